//! The CPU twin: that of `lora`.

pub(super) use crate::lora::cpu::drop;
