//! The CPU twin is `lora`'s.

pub(super) use crate::lora::cpu::drop;
