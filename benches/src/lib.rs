//! What benches share: the machine's measured roof.

pub mod roof;
