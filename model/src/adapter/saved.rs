//! Weights of the base that an adapter brings in full: PEFT's `modules_to_save`, the embedding and the head
//! (`save_embedding_layers`), and biases.

use super::AdapterConfig;
use crate::config::ModelConfig;
use codelsi_engine::{Error, Result};
use std::collections::BTreeMap;

/// The embedding's weight.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The head's weight.
pub const HEAD: &str = "lm_head.weight";

/// Returns the names and shapes of a model's weights, with the head even where it is the embedding.
pub(super) fn weights(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let mut all: BTreeMap<String, Vec<usize>> = config.tensor_shapes().into_iter().collect();
    all.entry(HEAD.to_string()).or_insert_with(|| vec![config.vocab, config.hidden]);
    all
}

impl AdapterConfig {
    /// Returns true if `modules_to_save` names the module of a weight or one around it: an adapter then holds the
    /// weight, and trains it. As in PEFT a name is the end of a module's path, `norm` also that of `input_layernorm`.
    pub fn saves(&self, weight: &str) -> bool {
        let ends = weight.match_indices('.').map(|(end, _)| end);
        let mut modules = ends.map(|end| &weight[..end]);
        modules.any(|module| self.modules_to_save.iter().any(|name| module.ends_with(name.as_str())))
    }

    /// Names and shapes of the weights that `modules_to_save` names.
    ///
    /// # Errors
    /// When one of its names is that of no module, or a linear has an adapter inside a module that is saved.
    pub fn saved_weights(&self, config: &ModelConfig) -> Result<BTreeMap<String, Vec<usize>>> {
        let mut all = weights(config);
        for name in &self.modules_to_save {
            let alone = AdapterConfig { modules_to_save: vec![name.clone()], ..self.clone() };
            if !all.keys().any(|weight| alone.saves(weight)) {
                return Err(Error::new(format!("`modules_to_save` names `{name}`, which this model lacks")));
            }
        }
        all.retain(|name, _| self.saves(name));
        match self.adapted_modules(config).iter().find(|module| all.contains_key(&module.weight())) {
            Some(module) => {
                Err(Error::new(format!("`{}` is in `modules_to_save` and has an adapter", module.path)))
            }
            None => Ok(all),
        }
    }
}
