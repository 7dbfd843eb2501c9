//! Layouts: how the ranks of a run share a model.
//!
//! | layout | known as | a rank holds | ranks exchange |
//! |---|---|---|---|
//! | `replicate` | data parallel (DDP) | the full model | gradients of the trained weights |
//! | `shard` | ZeRO-3 / FSDP of the frozen weights | 1/N of every frozen matrix; adapters and norms in full | matrices, gathered one layer ahead of use; gradients |
//! | `tensor` | Megatron tensor parallel | its heads, its MLP channels, its rows of the vocabulary | activations, twice per layer in each direction |

mod layout;
mod mappings;
pub(crate) mod shard;
mod tensor_parallel;

pub use layout::{Layout, Split};
pub(crate) use mappings::{copy_to_tensor_parallel, reduce_from_tensor_parallel};
pub use tensor_parallel::Cut;
