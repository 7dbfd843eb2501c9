//! Shared by the benches: the measured roofs of the machine, the table of results, ratios of paired runs, and peers:
//! cuBLASLt, and programs that time a case on demand.

#[cfg(feature = "cublaslt")]
pub mod cublaslt;
pub mod machine;
pub mod paired;
pub mod peer;
pub mod results;
