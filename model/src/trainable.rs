//! Choice of the weights that training changes.

use crate::adapter::method::ROUTER;

/// The weights of a model that want gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainable {
    /// None: inference.
    Nothing,
    /// The adapter's; the base model is frozen.
    Adapter,
    /// The routers of a mixture; its experts and the base model are frozen.
    Routers,
    /// All of the model's, copied to F32: full fine-tuning.
    AllWeights,
}

impl Trainable {
    /// Returns true if an adapter's tensor of this name wants a gradient.
    pub fn includes_adapter_tensor(self, name: &str) -> bool {
        match self {
            Trainable::Nothing | Trainable::AllWeights => false,
            Trainable::Adapter => true,
            Trainable::Routers => name.ends_with(ROUTER),
        }
    }
}
