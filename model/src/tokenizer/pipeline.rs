//! The steps from text to ids: added tokens, normalizer, pre-tokenizers, model.
//!
//! Llama's tokenizers put a dummy space before a text, so that its first word is spelled like every other. The crate's
//! own `encode` puts it before any text that it is given. Here the steps know where a text stands ([`Position`]), and
//! the dummy space is a step of its own, whether the file writes it as `Prepend`, `Metaspace` or `add_prefix_space`.

use codelsi_engine::{Error, Result};
use serde_json::{Value, json};
use std::fmt::Display;
use tokenizers::tokenizer::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

/// The place of a text in its sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Position {
    /// The sequence begins with it.
    Start,
    /// It follows a control token.
    AfterControl,
    /// It follows other text.
    AfterText,
}

/// The normalizer and the pre-tokenizers of a `tokenizer.json`.
pub(super) struct Pipeline {
    normalizer: Option<NormalizerWrapper>,
    /// The normalizer without `Prepend`.
    bare_normalizer: Option<NormalizerWrapper>,
    pre_tokenizers: Vec<PreTokenizerStep>,
    /// True if decoding a sequence drops the space at its start.
    pub(super) prepends_space: bool,
}

/// A pre-tokenizer without its dummy space, and that space.
struct PreTokenizerStep {
    prefix: Option<Prefix>,
    split: PreTokenizerWrapper,
}

/// The dummy space of a pre-tokenizer.
struct Prefix {
    text: String,
    /// Not only before the first section of a text, but before each (`prepend_scheme` "always").
    everywhere: bool,
}

impl Pipeline {
    /// Reads the steps of a `tokenizer.json`.
    ///
    /// # Errors
    /// When a step is malformed.
    pub(super) fn of(json: &Value) -> Result<Self> {
        let (normalizer, bare) = (&json["normalizer"], without_prepend(&json["normalizer"]));
        let mut steps = Vec::new();
        flatten(&json["pre_tokenizer"], &mut steps);
        let pre_tokenizers: Vec<PreTokenizerStep> =
            steps.into_iter().map(PreTokenizerStep::of).collect::<Result<_>>()?;
        let metaspace = |step: &PreTokenizerStep| {
            step.prefix.is_some() && matches!(step.split, PreTokenizerWrapper::Metaspace(_))
        };
        Ok(Pipeline {
            prepends_space: bare.as_ref() != Some(normalizer) || pre_tokenizers.iter().any(metaspace),
            normalizer: parse(normalizer.clone())?,
            bare_normalizer: bare.map_or(Ok(None), parse)?,
            pre_tokenizers,
        })
    }

    /// Encodes a text without the tokens that a post-processor adds. Without `added_tokens`, added tokens are text too.
    ///
    /// # Errors
    /// When the text cannot be spelled in the vocabulary.
    pub(super) fn encode(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &str,
        position: Position,
        added_tokens: bool,
    ) -> Result<Vec<u32>> {
        let normalizer = PositionedNormalizer { pipeline: self, position };
        let mut text = match added_tokens {
            true => tokenizer.get_added_vocabulary().extract_and_normalize(Some(&normalizer), text),
            false => {
                let mut text = PreTokenizedString::from(text);
                text.normalize(|section| normalizer.normalize(section)).map_err(|e| failed(&e))?;
                text
            }
        };
        for step in &self.pre_tokenizers {
            step.apply(&mut text, position).map_err(|e| failed(&e))?;
        }
        text.tokenize(|section| tokenizer.get_model().tokenize(section.get())).map_err(|e| failed(&e))?;
        let sections = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(sections.into_iter().filter_map(|(.., tokens)| tokens.as_ref()).flatten().map(|t| t.id).collect())
    }
}

impl PreTokenizerStep {
    /// Takes the dummy space out of a pre-tokenizer's description.
    fn of(mut step: Value) -> Result<Self> {
        let prefix = match step["type"].as_str() {
            Some("Metaspace") => {
                let text = step["replacement"].as_str().unwrap_or("▁").to_string();
                let scheme = prepend_scheme(&step).to_string();
                step["prepend_scheme"] = "never".into();
                step["add_prefix_space"] = false.into();
                (scheme != "never").then(|| Prefix { text, everywhere: scheme == "always" })
            }
            Some("ByteLevel") => {
                let prepends = step["add_prefix_space"] != false;
                step["add_prefix_space"] = false.into();
                prepends.then(|| Prefix { text: " ".into(), everywhere: true })
            }
            _ => None,
        };
        Ok(PreTokenizerStep { prefix, split: serde_json::from_value(step).map_err(|e| failed(&e))? })
    }

    fn apply(&self, text: &mut PreTokenizedString, position: Position) -> tokenizers::Result<()> {
        if let Some(prefix) = &self.prefix {
            text.split(|_, mut section| {
                if prefix.stands_before(&section, position) {
                    section.prepend(&prefix.text);
                }
                Ok(vec![section])
            })?;
        }
        self.split.pre_tokenize(text)
    }
}

impl Prefix {
    /// True if a section of a text gets this dummy space.
    fn stands_before(&self, section: &NormalizedString, position: Position) -> bool {
        let first = section.offsets_original().0 == 0;
        let wanted = match position {
            Position::Start => self.everywhere || first,
            Position::AfterControl => self.everywhere,
            Position::AfterText => self.everywhere && !first,
        };
        wanted && !section.get().starts_with(' ') && !section.get().starts_with(&self.text)
    }
}

/// The file's normalizer, without `Prepend` for a section that continues a text.
struct PositionedNormalizer<'a> {
    pipeline: &'a Pipeline,
    position: Position,
}

impl Normalizer for PositionedNormalizer<'_> {
    fn normalize(&self, section: &mut NormalizedString) -> tokenizers::Result<()> {
        let continues = self.position == Position::AfterText && section.offsets_original().0 == 0;
        let Pipeline { normalizer, bare_normalizer, .. } = self.pipeline;
        let normalizer = if continues { bare_normalizer } else { normalizer };
        normalizer.iter().try_for_each(|normalizer| normalizer.normalize(section))
    }
}

/// Returns where a `Metaspace` puts its dummy space: first, always or never.
pub(crate) fn prepend_scheme(step: &Value) -> &str {
    match step["prepend_scheme"].as_str() {
        Some(scheme) => scheme,
        None if step["add_prefix_space"] == false => "never",
        None => "always",
    }
}

/// Spells out the prepend scheme of every `Metaspace` that says `"add_prefix_space": false` alone, as old files do and
/// the crate refuses.
pub(super) fn modernize_metaspace(step: &mut Value) {
    if let Some(steps) = step.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        steps.iter_mut().for_each(modernize_metaspace);
    }
    if step["type"] == "Metaspace" && step["prepend_scheme"].is_null() {
        step["prepend_scheme"] = prepend_scheme(step).into();
    }
}

/// Appends the steps of a pre-tokenizer, those of its sequences in their places.
pub(crate) fn flatten(step: &Value, steps: &mut Vec<Value>) {
    match step["pretokenizers"].as_array() {
        Some(inner) if step["type"] == "Sequence" => inner.iter().for_each(|step| flatten(step, steps)),
        _ if step.is_null() => {}
        _ => steps.push(step.clone()),
    }
}

/// Returns a normalizer without its `Prepend` steps.
fn without_prepend(step: &Value) -> Option<Value> {
    match step["normalizers"].as_array() {
        Some(steps) if step["type"] == "Sequence" => {
            let kept: Vec<Value> = steps.iter().filter_map(without_prepend).collect();
            Some(json!({ "type": "Sequence", "normalizers": kept }))
        }
        _ => (step["type"] != "Prepend").then(|| step.clone()),
    }
}

fn parse(normalizer: Value) -> Result<Option<NormalizerWrapper>> {
    serde_json::from_value(normalizer).map_err(|e| failed(&e))
}

pub(super) fn failed(e: &dyn Display) -> Error {
    Error::new(format!("tokenizer: {e}"))
}
