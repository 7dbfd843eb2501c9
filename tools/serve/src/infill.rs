//! Infilling prompts: the model's markers around a prefix and a suffix.

use crate::error::ApiError;
use codelsi_model::tokenizer::Tokenizer;

/// Markers as plugins write them into raw prompts: of Code Llama, and of Qwen and others.
const MARKERS: [[&str; 3]; 2] =
    [["<PRE>", "<SUF>", "<MID>"], ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]];

/// A prompt as tokens, and the tokens that end its answer beside those that end a text.
pub struct EncodedPrompt {
    pub tokens: Vec<u32>,
    pub stop_token_ids: Vec<u32>,
}

/// True if the model has markers.
pub fn is_supported(tokenizer: &Tokenizer) -> bool {
    tokenizer.infill_tokens().is_some()
}

/// Encodes the prompt for the text between `prefix` and `suffix`, which goes on after `begun`. All three are text: a marker
/// in them is none.
///
/// # Errors
/// When the model has no markers, or the text cannot be spelled in the vocabulary.
pub fn encode(
    tokenizer: &Tokenizer,
    prefix: &str,
    suffix: &str,
    begun: &str,
) -> Result<EncodedPrompt, ApiError> {
    let stop_token_ids = tokenizer.require_infill_tokens()?.ends.clone();
    Ok(EncodedPrompt { tokens: tokenizer.infill_with_middle(prefix, suffix, begun)?, stop_token_ids })
}

/// Encodes a raw prompt, whose markers are markers.
///
/// # Errors
/// When it has markers and the model has none, or the text cannot be spelled in the vocabulary.
pub fn encode_raw(tokenizer: &Tokenizer, text: &str) -> Result<EncodedPrompt, ApiError> {
    match tokenizer.encode_infill_markers(text) {
        Some(tokens) => {
            let stop_token_ids = tokenizer.require_infill_tokens()?.ends.clone();
            Ok(EncodedPrompt { tokens: tokens?, stop_token_ids })
        }
        None if is_infilling(text) => {
            tokenizer.require_infill_tokens()?;
            Err(ApiError::field("prompt", "is written with another family's infilling markers"))
        }
        None => encode_text(tokenizer, text),
    }
}

/// Encodes a prompt that is text throughout.
///
/// # Errors
/// When it cannot be spelled in the vocabulary.
pub fn encode_text(tokenizer: &Tokenizer, text: &str) -> Result<EncodedPrompt, ApiError> {
    Ok(EncodedPrompt { tokens: tokenizer.encode(text, true)?, stop_token_ids: Vec::new() })
}

/// Returns the template that Ollama's clients look for: it holds `.Suffix` where the model infills.
pub fn ollama_template(tokenizer: &Tokenizer) -> String {
    let Some(tokens) = tokenizer.infill_tokens() else { return "{{ .Prompt }}".into() };
    let [prefix, suffix, middle] = [tokens.markers.prefix, tokens.markers.suffix, tokens.markers.middle];
    // `▁` is a space; Code Llama's markers have one, and one more after the first.
    let spelled = |marker: &str| marker.replace('▁', " ");
    let space = if prefix.starts_with('▁') { " " } else { "" };
    let infill = format!(
        "{}{space}{{{{ .Prompt }}}}{}{{{{ .Suffix }}}}{}",
        spelled(prefix).trim_start(),
        spelled(suffix),
        spelled(middle)
    );
    format!("{{{{- if .Suffix }}}}{infill}{{{{ else }}}}{{{{ .Prompt }}}}{{{{ end }}}}")
}

/// True if a text has all three markers of a family, in the order in which plugins write them.
fn is_infilling(text: &str) -> bool {
    MARKERS.iter().any(|markers| {
        let mut rest = text;
        markers.iter().all(|marker| match rest.split_once(marker) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}
