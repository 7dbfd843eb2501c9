//! Text to token ids and back, from a `tokenizer.json`.
//!
//! The BPE itself is the `tokenizers` crate's. This module adds what that crate leaves to its callers: text that
//! follows other text (no dummy space in front), decoding token by token without half characters, prompts for
//! infilling, and text that can never become a control token: `</s>` in a source file is four characters.
//! `truncation`, `padding` and BPE dropout, which belong to a training run, are not obeyed.

mod decode_stream;
mod infill;
mod infill_markers;
mod pipeline;
mod probes;
mod special_tokens;
mod token_bytes;

pub use decode_stream::DecodeStream;
pub use infill_markers::{InfillMarkers, InfillTokens};

use crate::hub;
use codelsi_engine::{At, Error, Result};
use pipeline::{Pipeline, modernize_metaspace};
pub(crate) use pipeline::{Position, flatten, prepend_scheme};
use serde_json::Value;
use special_tokens::{Settings, SpecialTokens, check_post_processor};
use std::fs;
use std::path::Path;
use token_bytes::{ByteEncoding, TokenBytes};
use tokenizers::AddedToken;

/// A tokenizer with Llama's conventions.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pipeline: Pipeline,
    token_bytes: TokenBytes,
    special: SpecialTokens,
    infill: Option<InfillTokens>,
}

/// Upper limit of a token id: beyond every vocabulary (as in a model's config), and what is allocated by it is small.
pub(crate) const MAX_ID: u64 = 1 << 24;

impl Tokenizer {
    /// Loads `tokenizer.json` from a folder, or the file itself, with the settings beside it.
    ///
    /// # Errors
    /// When it is absent, malformed, or neither SentencePiece's nor byte-level, or does not encode as the `tokenizers`
    /// crate.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.exists() {
            hub::check_folder(path, "model")?;
        }
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let text = fs::read_to_string(&file).map_err(|e| absent(&file, e))?;
        let beside = |name: &str| read_settings(&file.with_file_name(name));
        let settings = Settings {
            tokenizer_config: beside("tokenizer_config.json")?,
            special_tokens_map: beside("special_tokens_map.json")?,
            // Whoever opens the model says what is wrong with its config.
            model_config: beside("config.json").unwrap_or_default(),
        };
        Tokenizer::build(&text, &settings).at(file.display().to_string())
    }

    /// Parses the texts of `tokenizer.json` and `tokenizer_config.json` (which may be empty).
    ///
    /// # Errors
    /// See [`Tokenizer::load`].
    pub fn parse(tokenizer: &str, config: &str) -> Result<Self> {
        let tokenizer_config = serde_json::from_str(config).unwrap_or_default();
        Tokenizer::build(tokenizer, &Settings { tokenizer_config, ..Settings::default() })
    }

    fn build(tokenizer: &str, settings: &Settings) -> Result<Self> {
        let malformed = |e: &dyn std::fmt::Display| Error::new(format!("no usable tokenizer: {e}"));
        let mut json: Value = serde_json::from_str(tokenizer).map_err(|e| malformed(&e))?;
        if !json.is_object() {
            return Err(malformed(&"not a JSON object"));
        }
        check_ids(&json)?;
        check_post_processor(&json["post_processor"])?;
        for key in ["/truncation", "/padding", "/model/dropout"] {
            json.pointer_mut(key).iter_mut().for_each(|value| **value = Value::Null);
        }
        json.get_mut("pre_tokenizer").iter_mut().for_each(|step| modernize_metaspace(step));
        infill_markers::make_markers_control_tokens(&mut json);
        let encoding = ByteEncoding::of(&json["decoder"])?;
        let pipeline = Pipeline::of(&json)?;
        let mut inner: tokenizers::Tokenizer = serde_json::from_value(json).map_err(|e| malformed(&e))?;
        inner.set_encode_special_tokens(true);
        probes::check(&inner, &pipeline)?;
        let special = SpecialTokens::of(&inner, settings)?;
        let token_bytes = TokenBytes::of(&inner, encoding);
        let infill = InfillTokens::find(|text| inner.token_to_id(text));
        Ok(Tokenizer { inner, pipeline, token_bytes, special, infill })
    }

    /// The largest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.token_bytes.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Tokens in front of a text that begins a sequence.
    pub(crate) fn prefix(&self) -> &[u32] {
        &self.special.prefix
    }

    /// Returns the text of a control token, e.g. `</s>`; `None` for other tokens.
    pub fn control_token(&self, id: u32) -> Option<&str> {
        self.special.added.get(&id).filter(|token| token.special).map(|token| token.content.as_str())
    }

    /// The added tokens; those that are special are control tokens.
    pub(crate) fn added_tokens(&self) -> impl Iterator<Item = (u32, &AddedToken)> {
        self.special.added.iter().map(|(&id, token)| (id, token))
    }

    /// Returns the token as the vocabulary spells it.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Checks that a model's embedding of `vocab` rows has a row for every token.
    ///
    /// # Errors
    /// When an id is `vocab` or more.
    pub fn check_fits(&self, vocab: usize) -> Result<()> {
        if self.vocab_size() <= vocab {
            return Ok(());
        }
        Err(Error::new(format!(
            "the tokenizer has ids up to {}, the model's vocabulary has {vocab}: it belongs to another model",
            self.vocab_size() - 1
        )))
    }

    /// Encodes a text that begins a sequence. With `add_special`, what `post_processor` puts before a text (Llama's
    /// `<s>`) goes in front; what it puts after a complete text does not, since a prompt is to be continued.
    ///
    /// # Errors
    /// When the text cannot be spelled in this vocabulary.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let mut ids = if add_special { self.special.prefix.clone() } else { Vec::new() };
        ids.extend(self.encode_at(text, Position::Start)?);
        Ok(ids)
    }

    /// Encodes a complete text, with all that `post_processor` puts around it: transformers' `encode`, except that a
    /// control token's text stays text.
    ///
    /// # Errors
    /// See [`Tokenizer::encode`].
    pub fn encode_complete(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, true)?;
        ids.extend(&self.special.suffix);
        Ok(ids)
    }

    /// Encodes a text that follows other text: no `<s>`, no space in front.
    ///
    /// # Errors
    /// See [`Tokenizer::encode`].
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_at(text, Position::AfterText)
    }

    /// Encodes a text that stands at `position`, without special tokens.
    pub(crate) fn encode_at(&self, text: &str, position: Position) -> Result<Vec<u32>> {
        self.pipeline.encode(&self.inner, text, position, true)
    }

    /// Encodes a text that stands at `position`, in which added tokens are text too.
    pub(crate) fn encode_plain_at(&self, text: &str, position: Position) -> Result<Vec<u32>> {
        self.pipeline.encode(&self.inner, text, position, false)
    }

    /// Decodes a complete sequence; control tokens are omitted.
    pub fn decode(&self, ids: &[u32]) -> String {
        let text = self.decode_continuation(ids);
        match text.strip_prefix(' ') {
            Some(rest) if self.pipeline.prepends_space => rest.to_string(),
            _ => text,
        }
    }

    /// Returns the bytes that a token adds to a text; none for control tokens.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.token_bytes.get(id)
    }

    /// Decodes ids that follow others.
    pub fn decode_continuation(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes.get(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Describes a `tokenizer.json` that cannot be read, and how to make one of the files of a slow tokenizer beside it.
fn absent(file: &Path, error: std::io::Error) -> Error {
    let slow = ["tokenizer.model", "vocab.json"].into_iter().find(|name| file.with_file_name(name).exists());
    match (error.kind(), slow, file.parent()) {
        (std::io::ErrorKind::NotFound, Some(name), Some(folder)) => Error::io(
            file,
            format!(
                "does not exist, only {name}; make it where transformers, sentencepiece and protobuf are: python -c \"from \
                 transformers import AutoTokenizer as T; T.from_pretrained('{0}').save_pretrained('{0}')\"",
                folder.display()
            ),
        ),
        _ => Error::io(file, error),
    }
}

/// Reads a JSON file beside `tokenizer.json`; null if it does not exist.
fn read_settings(file: &Path) -> Result<Value> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| Error::io(file, format!("not JSON: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(e) => Err(Error::io(file, e)),
    }
}

/// Checks the ids of a `tokenizer.json` before anything is allocated by them.
fn check_ids(json: &Value) -> Result<()> {
    let vocabulary = json["model"]["vocab"].as_object().into_iter().flatten();
    let vocabulary = vocabulary.map(|(token, id)| (token.as_str(), id));
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let added = added.map(|token| (token["content"].as_str().unwrap_or_default(), &token["id"]));
    for (token, id) in vocabulary.chain(added) {
        if id.as_u64().is_none_or(|id| id >= MAX_ID) {
            let token: String = token.chars().take(40).collect();
            return Err(Error::new(format!(
                "no usable tokenizer: token {token:?} has the id {id}, not a whole number below {MAX_ID}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
