//! Shared by the benches: the measured roofs of the machine, the table of results, and cuBLASLt for comparison.

#[cfg(feature = "cublaslt")]
pub mod cublaslt;
pub mod machine;
pub mod results;
