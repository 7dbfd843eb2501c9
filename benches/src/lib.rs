//! What benches share: the machine's measured roofs, a table of results, and the matrix product's peer.

#[cfg(feature = "cublaslt")]
pub mod cublaslt;
pub mod machine;
pub mod results;
