//! The models that are served: the base and its adapters, by the names that clients know.

use crate::error::ApiError;
use codelsi_model::generate::AdapterId;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// Word of a model's name by which editors' plugins choose Code Llama's markers.
const CODE_LLAMA: &str = "codellama";

/// A model that clients may name.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// Name that clients see.
    pub id: String,
    /// Name that it was given.
    pub name: String,
    /// The adapter; none for the base.
    pub adapter: Option<AdapterId>,
    /// Seconds since 1970.
    pub created: u64,
}

/// The base, and the adapters that are loaded now.
pub struct Models {
    base: ServedModel,
    /// True if ids carry [`CODE_LLAMA`].
    is_code_llama: bool,
    adapters: RwLock<Vec<ServedModel>>,
}

impl Models {
    /// The base alone.
    pub fn new(name: &str, is_code_llama: bool) -> Self {
        let base = ServedModel {
            id: public_id(name, is_code_llama),
            name: name.to_owned(),
            adapter: None,
            created: now(),
        };
        Models { base, is_code_llama, adapters: RwLock::default() }
    }

    /// The base.
    pub fn base(&self) -> &ServedModel {
        &self.base
    }

    /// The base and the adapters, in the order of their loading.
    pub fn all(&self) -> Vec<ServedModel> {
        let adapters = self.read();
        std::iter::once(&self.base).chain(adapters.iter()).cloned().collect()
    }

    /// Returns the model of a name; the base where none is given.
    ///
    /// # Errors
    /// When no model has the name.
    pub fn find(&self, name: Option<&str>) -> Result<ServedModel, ApiError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(self.base.clone()) };
        // Ollama's names have a tag.
        let plain = name.strip_suffix(":latest").unwrap_or(name);
        let is_it = |model: &ServedModel| [&model.id, &model.name].iter().any(|n| *n == plain || *n == name);
        self.all().into_iter().find(is_it).ok_or_else(|| ApiError::no_model(name))
    }

    /// Adds an adapter.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add(&self, name: &str, adapter: AdapterId) -> Result<(), ApiError> {
        let mut adapters = self.adapters.write().unwrap_or_else(PoisonError::into_inner);
        let model = ServedModel {
            id: public_id(name, self.is_code_llama),
            name: name.to_owned(),
            adapter: Some(adapter),
            created: now(),
        };
        let all = std::iter::once(&self.base).chain(adapters.iter());
        if all.into_iter().any(|other| other.id == model.id || other.name == model.name) {
            return Err(ApiError::field("lora_name", format!("{name:?} is the name of another model")));
        }
        adapters.push(model);
        Ok(())
    }

    /// Removes an adapter and returns it.
    ///
    /// # Errors
    /// When none has the name.
    pub fn remove(&self, name: &str) -> Result<ServedModel, ApiError> {
        let mut adapters = self.adapters.write().unwrap_or_else(PoisonError::into_inner);
        let found = adapters.iter().position(|model| model.name == name || model.id == name);
        found.map(|i| adapters.remove(i)).ok_or_else(|| ApiError::no_model(name))
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<ServedModel>> {
        self.adapters.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name that clients see: plugins look for `codellama` in it, and some of them in small letters.
fn public_id(name: &str, is_code_llama: bool) -> String {
    let small = name.to_lowercase();
    match is_code_llama {
        false => name.to_owned(),
        true if name.contains(CODE_LLAMA) => name.to_owned(),
        true if small.contains(CODE_LLAMA) => small,
        true if small.contains("code-llama") => small.replace("code-llama", CODE_LLAMA),
        true => format!("{CODE_LLAMA}-{name}"),
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_code_llama_says_so() {
        for (name, id) in [
            ("CodeLlama-7b-hf", "codellama-7b-hf"),
            ("code-llama-7b", "codellama-7b"),
            ("private", "codellama-private"),
            ("my-codellama", "my-codellama"),
        ] {
            assert_eq!((public_id(name, true), public_id(name, false)), (id.to_owned(), name.to_owned()));
        }
    }

    #[test]
    fn a_model_is_found_by_its_names() {
        let models = Models::new("CodeLlama-7b-hf", true);
        for name in
            [None, Some(""), Some("codellama-7b-hf"), Some("CodeLlama-7b-hf"), Some("codellama-7b-hf:latest")]
        {
            assert!(models.find(name).is_ok(), "{name:?}");
        }
        assert_eq!(models.find(Some("gpt-4")).unwrap_err().status.as_u16(), 404);
        assert!(models.remove("codellama-7b-hf").is_err(), "the base stays");
    }
}
