//! One reader of weights. A weight walks in one direction, from the file to the kernel that uses it:
//!
//! 1. [`Checkpoint`] (`model_folder.rs`) knows which file of a model folder holds which tensor.
//! 2. [`TensorFile`] (`tensor_file.rs`) maps that file and knows where in it the tensor lies.
//! 3. [`Part`] (`slice.rs`) says which elements this rank reads, as runs of neighbouring elements.
//! 4. `transfer.rs` brings those elements to a device, converted (`convert.rs`) to the type that the ops compute with: mapped
//!    in place on the CPU where nothing has to change, through pinned buffers to a GPU.
//! 5. [`WeightLoader`] (`loader.rs`) does this for a whole model, and hands out the tensors that the layers keep.

mod convert;
mod loader;
mod model_folder;
mod slice;
mod tensor_file;
mod transfer;

pub use loader::WeightLoader;
pub use model_folder::Checkpoint;
pub use slice::Part;
pub(crate) use tensor_file::summarize;
pub use tensor_file::{TensorEntry, TensorFile};
pub use transfer::Watch;
