//! Tokens that stand for no text: those around a text, and the added tokens of the vocabulary.

use super::pipeline::failed;
use codelsi_engine::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use tokenizers::AddedToken;

/// Contents of the files beside `tokenizer.json`; each may be null.
#[derive(Default)]
pub(super) struct Settings {
    /// `tokenizer_config.json`.
    pub(super) tokenizer_config: Value,
    /// `special_tokens_map.json`.
    pub(super) special_tokens_map: Value,
    /// `config.json`.
    pub(super) model_config: Value,
}

impl Settings {
    /// Returns the text of a named token, e.g. `eos_token`: a string, or an object with `content`.
    pub(super) fn token(&self, name: &str) -> Option<&str> {
        [&self.tokenizer_config, &self.special_tokens_map]
            .into_iter()
            .find_map(|file| file[name].as_str().or_else(|| file[name]["content"].as_str()))
    }

    /// Returns the id of a named token: that of its text, else what the model's config says, else that of `default`.
    fn token_id(&self, tokenizer: &tokenizers::Tokenizer, name: &str, default: &str) -> Option<u32> {
        let given = &self.model_config[format!("{name}_id")];
        let config_id = given.as_u64().or_else(|| given[0].as_u64()).and_then(|id| u32::try_from(id).ok());
        self.token(name)
            .and_then(|text| tokenizer.token_to_id(text))
            .or_else(|| config_id.filter(|&id| tokenizer.id_to_token(id).is_some()))
            .or_else(|| tokenizer.token_to_id(default))
    }
}

/// The tokens around a text, and the added tokens.
pub(super) struct SpecialTokens {
    /// Tokens before a text that begins a sequence.
    pub(super) prefix: Vec<u32>,
    /// Tokens after a complete text.
    pub(super) suffix: Vec<u32>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// The added tokens; those that are special are control tokens.
    pub(super) added: HashMap<u32, AddedToken>,
}

impl SpecialTokens {
    /// Finds the special tokens as transformers does: `post_processor` says what stands around a text, and a
    /// CodeLlamaTokenizer always begins it.
    ///
    /// # Errors
    /// When the post-processor fails, or its ids are not in the vocabulary.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, settings: &Settings) -> Result<Self> {
        let bos = settings.token_id(tokenizer, "bos_token", "<s>");
        let eos = settings.token_id(tokenizer, "eos_token", "</s>");
        let encoding = tokenizer.encode("a", true).map_err(|e| failed(&e))?;
        let added = encoding.get_special_tokens_mask().iter().map(|&mask| mask == 1);
        let count = added.clone().take_while(|&added| added).count();
        let (prefix, rest) = encoding.get_ids().split_at(count);
        let suffix = added.rev().take_while(|&added| added).count().min(rest.len());
        let (mut prefix, mut suffix) = (prefix.to_vec(), rest[rest.len() - suffix..].to_vec());
        if let Some(id) = prefix.iter().chain(&suffix).find(|&&id| tokenizer.id_to_token(id).is_none()) {
            return Err(Error::new(format!(
                "post_processor adds token {id}, which is not in the vocabulary"
            )));
        }
        let class = settings.tokenizer_config["tokenizer_class"].as_str().unwrap_or_default();
        if class.starts_with("CodeLlamaTokenizer") {
            (prefix, suffix) = (bos.into_iter().collect(), Vec::new());
        }
        let added = tokenizer.get_added_tokens_decoder().into_iter().collect();
        Ok(SpecialTokens { prefix, suffix, bos, eos, added })
    }
}

/// Checks that a post-processor's template has what it names, which the crate takes for granted.
///
/// # Errors
/// When it names a token without its ids, or a second text.
pub(super) fn check_post_processor(step: &Value) -> Result<()> {
    step["processors"].as_array().into_iter().flatten().try_for_each(check_post_processor)?;
    for piece in step["single"].as_array().into_iter().flatten() {
        let (token, text) = (&piece["SpecialToken"]["id"], &piece["Sequence"]["id"]);
        if token.as_str().is_some_and(|token| step["special_tokens"].get(token).is_none()) {
            return Err(Error::new(format!(
                "no usable tokenizer: post_processor names {token} without its ids"
            )));
        }
        if text == "B" {
            return Err(Error::new("no usable tokenizer: post_processor puts a second text into `single`"));
        }
    }
    Ok(())
}
