//! Choice of the weights that training changes.

/// The weights of a model that want gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainable {
    /// None: inference.
    Nothing,
    /// The adapter's; the base model is frozen.
    Adapter,
    /// All of the model's, copied to F32: full fine-tuning.
    AllWeights,
}
