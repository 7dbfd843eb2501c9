//! Layouts: how the ranks of a run share a model.
//!
//! | layout | a rank holds | ranks exchange |
//! |---|---|---|
//! | `replicate`: data parallel (DDP) | the full model | gradients of the trained weights |
//! | `shard`: ZeRO-3 / FSDP | 1/N of every frozen matrix; adapters, norms | matrices, a layer ahead; gradients |
//! | `tensor`: Megatron tensor parallel | its heads, MLP channels, vocabulary rows | activations, twice a layer |

mod layout;
mod mappings;
pub(crate) mod shard;
mod tensor_parallel;

pub use layout::{Layout, RankLayout};
pub(crate) use mappings::{copy_to_tensor_parallel, reduce_from_tensor_parallel};
pub use tensor_parallel::TensorParallelRule;
