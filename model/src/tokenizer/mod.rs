//! Text to token ids and back, from a `tokenizer.json`.
//!
//! The BPE itself is the `tokenizers` crate's. This module adds what that crate leaves to its callers: text that
//! follows other text (no dummy space in front), decoding token by token without half characters, Code Llama's
//! infilling tokens, and text that can never become a control token: `</s>` in a source file is four characters.

mod token_bytes;

use codelsi_engine::{At, Error, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;
use token_bytes::{ByteEncoding, TokenBytes};

/// A tokenizer with Llama's conventions.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    dummy_space: DummySpace,
    token_bytes: TokenBytes,
    bos: Option<u32>,
    eos: Option<u32>,
    infill: Option<InfillTokens>,
}

/// Rule for the space put before a text, so that its first word is spelled like every other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DummySpace {
    Never,
    Always,
    /// Only before a text that does not begin with a space.
    IfMissing,
}

/// Code Llama's infilling tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InfillTokens {
    pub prefix: u32,
    pub suffix: u32,
    pub middle: u32,
    /// Ends the infilled text.
    pub end: u32,
}

impl Tokenizer {
    /// Loads `tokenizer.json` from a folder, or the file itself.
    ///
    /// # Errors
    /// When it is absent, malformed, or neither SentencePiece's nor byte-level.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
        let config = fs::read_to_string(file.with_file_name("tokenizer_config.json")).unwrap_or_default();
        Tokenizer::parse(&text, &config).at(file.display().to_string())
    }

    /// Parses the texts of `tokenizer.json` and `tokenizer_config.json` (which may be empty).
    ///
    /// # Errors
    /// See [`Tokenizer::load`].
    pub fn parse(tokenizer: &str, config: &str) -> Result<Self> {
        let malformed = |e: &dyn std::fmt::Display| Error::new(format!("no usable tokenizer: {e}"));
        let mut json: Value = serde_json::from_str(tokenizer).map_err(|e| malformed(&e))?;
        let dummy_space = take_dummy_space(&mut json);
        let encoding = ByteEncoding::of(&json["decoder"])?;
        let mut inner: tokenizers::Tokenizer = serde_json::from_value(json).map_err(|e| malformed(&e))?;
        inner.set_encode_special_tokens(true);
        let config: Value = serde_json::from_str(config).unwrap_or_default();
        let token = |key: &str, default: &str| {
            let name = config[key].as_str().or(config[key]["content"].as_str()).unwrap_or(default);
            inner.token_to_id(name)
        };
        let (bos, eos) = (token("bos_token", "<s>"), token("eos_token", "</s>"));
        let (token_bytes, infill) = (TokenBytes::of(&inner, encoding), InfillTokens::of(&inner));
        Ok(Tokenizer { inner, dummy_space, token_bytes, bos, eos, infill })
    }

    /// The largest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.token_bytes.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The infilling tokens, if the vocabulary has them.
    pub fn infill_tokens(&self) -> Option<InfillTokens> {
        self.infill
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

    /// Encodes a text that begins a sequence.
    ///
    /// # Errors
    /// When the text cannot be spelled in this vocabulary.
    pub fn encode(&self, text: &str, add_bos: bool) -> Result<Vec<u32>> {
        let add_space = match self.dummy_space {
            DummySpace::Always => !text.is_empty(),
            DummySpace::IfMissing => !text.is_empty() && !text.starts_with([' ', '▁']),
            DummySpace::Never => false,
        };
        let ids = if add_space { self.encode_raw(&format!(" {text}")) } else { self.encode_raw(text) }?;
        Ok(self.bos.filter(|_| add_bos).into_iter().chain(ids).collect())
    }

    /// Encodes a text that follows other text: no `<s>`, no space in front.
    ///
    /// # Errors
    /// See [`Tokenizer::encode`].
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_raw(text)
    }

    /// Returns the prompt for the text between `prefix` and `suffix`: `<s> <PRE> prefix <SUF>suffix <MID>` (Rozière
    /// et al., "Code Llama", arXiv 2308.12950, section 2.3).
    ///
    /// # Errors
    /// When the vocabulary has no infilling tokens.
    pub fn infill(&self, prefix: &str, suffix: &str) -> Result<Vec<u32>> {
        let Some(tokens) = self.infill else {
            return Err(Error::new("the tokenizer has no infilling tokens (▁<PRE>, ▁<SUF>, ▁<MID>, ▁<EOT>)"));
        };
        let mut ids: Vec<u32> = self.bos.into_iter().chain([tokens.prefix]).collect();
        ids.extend(self.encode(prefix, false)?);
        ids.push(tokens.suffix);
        ids.extend(self.encode_continuation(suffix)?);
        ids.push(tokens.middle);
        Ok(ids)
    }

    /// Decodes a complete sequence; control tokens are omitted.
    pub fn decode(&self, ids: &[u32]) -> String {
        let text = self.decode_continuation(ids);
        match (self.dummy_space, text.strip_prefix(' ')) {
            (DummySpace::Always | DummySpace::IfMissing, Some(rest)) => rest.to_string(),
            _ => text,
        }
    }

    /// Decodes ids that follow others.
    pub fn decode_continuation(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes.get(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Encodes a text without adding a space or tokens.
    fn encode_raw(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        Ok(encoding.map_err(|e| Error::new(format!("tokenizer: {e}")))?.get_ids().to_vec())
    }
}

/// Decodes token by token. The returned pieces join to [`Tokenizer::decode_continuation`] of all tokens, and none
/// ends inside a character.
#[derive(Default)]
pub struct DecodeStream {
    /// The first bytes of an incomplete character.
    pending: Vec<u8>,
}

impl DecodeStream {
    /// Returns the text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.pending.extend(tokenizer.token_bytes.get(id));
        let complete = match self.pending.utf8_chunks().last() {
            Some(last) if may_continue(last.invalid()) => self.pending.len() - last.invalid().len(),
            _ => self.pending.len(),
        };
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        text
    }

    /// Returns the rest at the end: a replacement character for a character that was never completed.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// True for the first bytes of a valid character.
fn may_continue(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

/// Removes the dummy space from a tokenizer's description and returns its rule.
fn take_dummy_space(json: &mut Value) -> DummySpace {
    let prepends = |step: &Value| step["type"] == "Prepend";
    if prepends(&json["normalizer"]) {
        json["normalizer"] = Value::Null;
        return DummySpace::Always;
    }
    if let Some(steps) = json.pointer_mut("/normalizer/normalizers").and_then(Value::as_array_mut)
        && steps.iter().any(prepends)
    {
        steps.retain(|step| !prepends(step));
        return DummySpace::Always;
    }
    let splitter = json.get_mut("pre_tokenizer").and_then(Value::as_object_mut);
    let Some(splitter) =
        splitter.filter(|splitter| splitter.get("type").is_some_and(|name| name == "Metaspace"))
    else {
        return DummySpace::Never;
    };
    let legacy = splitter.remove("add_prefix_space");
    let scheme = splitter.insert("prepend_scheme".into(), "never".into());
    if legacy == Some(false.into()) || scheme == Some("never".into()) {
        DummySpace::Never
    } else {
        DummySpace::IfMissing
    }
}

impl InfillTokens {
    fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let id = |token| tokenizer.token_to_id(token);
        Some(InfillTokens {
            prefix: id("▁<PRE>")?,
            suffix: id("▁<SUF>")?,
            middle: id("▁<MID>")?,
            end: id("▁<EOT>")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_testing::shared;

    fn load(path: &str) -> Option<Tokenizer> {
        shared(path).map(|path| Tokenizer::load(path).unwrap())
    }

    #[test]
    fn gives_the_golden_encodings() {
        for file in ["llama2-tokenizer.json", "codellama-tokenizer-reconstructed.json"] {
            let Some(tokenizer) = load(&format!("data/codellama-tokenizer/{file}")) else { return };
            let golden = shared("data/codellama-tokenizer/golden-llama2.jsonl").unwrap();
            for line in fs::read_to_string(golden).unwrap().lines() {
                let case: Value = serde_json::from_str(line).unwrap();
                let text = case["text"].as_str().unwrap();
                let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
                assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{file}: {text:?}");
                assert_eq!(tokenizer.decode(&ids), case["decoded"].as_str().unwrap(), "{file}: {text:?}");
            }
        }
    }

    #[test]
    fn text_after_text_gets_no_space_and_joins_to_the_complete_text() {
        let Some(tokenizer) = load("data/codellama-tokenizer/llama2-tokenizer.json") else { return };
        assert_eq!(tokenizer.encode("world", true).unwrap(), [1, 3186]);
        let rest = tokenizer.encode_continuation("world").unwrap();
        assert_eq!(tokenizer.decode_continuation(&rest), "world");
        let both =
            [tokenizer.encode("f(x) {", true).unwrap(), tokenizer.encode_continuation("\n  é").unwrap()];
        assert_eq!(tokenizer.decode(&both.concat()), "f(x) {\n  é");
    }

    #[test]
    fn control_tokens_cannot_be_written_as_text() {
        let Some(tokenizer) = load("data/codellama-tokenizer/llama2-tokenizer.json") else { return };
        let ids = tokenizer.encode("a <s>b</s> <unk>", false).unwrap();
        assert!(ids.iter().all(|&id| id > 2), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids), "a <s>b</s> <unk>");
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.infill_tokens()), (Some(1), Some(2), None));
        assert!(tokenizer.infill("a", "b").unwrap_err().to_string().contains("infill"));
    }

    #[test]
    fn infill_follows_the_paper() {
        let Some(tokenizer) = load("data/codellama-tokenizer/codellama-tokenizer-reconstructed.json") else {
            return;
        };
        let (before, after) = ("def f(x):\n  ", "\n  return y");
        let ids = tokenizer.infill(before, after).unwrap();
        let cut = ids.iter().position(|&id| id == 32008).unwrap();
        assert_eq!((&ids[..2], ids.last()), (&[1, 32007][..], Some(&32009)));
        assert_eq!(ids[2..cut], tokenizer.encode(before, false).unwrap());
        assert_eq!(tokenizer.decode_continuation(&ids[cut + 1..ids.len() - 1]), after);
        assert_eq!(tokenizer.infill_tokens().unwrap().end, 32010);
    }

    #[test]
    fn a_stream_never_returns_half_a_character() {
        let Some(tokenizer) = load("data/stories260k/tokenizer.json") else { return };
        let text = "Tim 🙃 said “é” \u{fffd}.";
        let mut ids = tokenizer.encode(text, true).unwrap();
        // A broken character in the middle and an unfinished one at the end.
        ids.splice(3..3, tokenizer.encode_continuation("🙃").unwrap().into_iter().take(2));
        ids.extend(tokenizer.encode_continuation("🙃").unwrap().into_iter().take(3));
        let mut stream = DecodeStream::default();
        let mut streamed: String = ids.iter().map(|&id| stream.push(&tokenizer, id)).collect();
        assert!(streamed.contains("🙃 said “é”"), "{streamed}");
        streamed += &stream.finish();
        assert_eq!(streamed, tokenizer.decode_continuation(&ids));
        assert!(streamed.ends_with(".\u{fffd}"));
    }

    #[test]
    fn a_model_too_small_for_the_vocabulary_is_refused() {
        let Some(tokenizer) = load("data/stories260k/tokenizer.json") else { return };
        assert_eq!((tokenizer.vocab_size(), tokenizer.check_fits(512)), (512, Ok(())));
        let message = tokenizer.check_fits(511).unwrap_err().to_string();
        assert!(message.contains("511") && message.contains("another model"), "{message}");
    }

    #[test]
    fn byte_level_vocabularies_decode_too() {
        let json = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "Ċ": 2, "Ã": 3, "©": 4}, "merges": []}}"#;
        let tokenizer = Tokenizer::parse(json, "").unwrap();
        let ids = tokenizer.encode("a \né", false).unwrap();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        assert_eq!(tokenizer.decode(&ids), "a \né");
    }
}
