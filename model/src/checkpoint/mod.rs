//! One reader of weights. A weight moves in one direction, from the file to the kernel that uses it:
//!
//! 1. [`Checkpoint`] (`model_folder.rs`) maps each tensor name to its file in a model folder.
//! 2. [`TensorFile`] (`tensor_file.rs`) memory-maps that file and finds the tensor by the offset in its header.
//! 3. `slice.rs` defines the elements that this rank reads, as runs of contiguous elements.
//! 4. `transfer.rs` copies those elements to a device, converted (`convert.rs`) to the type that the ops compute
//!    with: mapped in place on the CPU where nothing has to change, through pinned buffers to a GPU.
//! 5. [`WeightLoader`] (`loader.rs`) does this for all weights of a model, and returns the tensors that the layers
//!    keep.

mod convert;
mod loader;
mod model_folder;
mod pack_weights;
mod slice;
mod tensor_file;
mod transfer;

pub use loader::WeightLoader;
pub use model_folder::Checkpoint;
pub use pack_weights::{PackWeights, Packing};
pub use slice::TensorSlice;
pub(crate) use tensor_file::summarize;
pub use tensor_file::{TensorEntry, TensorFile};
pub use transfer::LoadProgress;
