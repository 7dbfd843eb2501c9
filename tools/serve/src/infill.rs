//! Infilling prompts: the model's markers around a prefix and a suffix.

use crate::error::ApiError;
use codelsi_model::tokenizer::Tokenizer;

/// The texts that stand for Code Llama's markers in a raw prompt.
const MARKERS: [&str; 3] = ["<PRE>", "<SUF>", "<MID>"];

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
    let markers = tokenizer.infill_tokens().ok_or_else(unsupported)?;
    let mut tokens = tokenizer.infill(prefix, suffix)?;
    if !begun.is_empty() {
        tokens.extend(tokenizer.encode_continuation(begun)?);
    }
    Ok(EncodedPrompt { tokens, stop_token_ids: vec![markers.end] })
}

/// Encodes a raw prompt, whose markers are markers.
///
/// # Errors
/// When it has markers and the model has none, or the text cannot be spelled in the vocabulary.
pub fn encode_raw(tokenizer: &Tokenizer, text: &str) -> Result<EncodedPrompt, ApiError> {
    match cut(text) {
        Some([prefix, suffix, begun]) => encode(tokenizer, prefix, suffix, begun),
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
pub fn ollama_template(tokenizer: &Tokenizer) -> &'static str {
    match is_supported(tokenizer) {
        true => "{{- if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}{{ .Prompt }}{{ end }}",
        false => "{{ .Prompt }}",
    }
}

fn cut(text: &str) -> Option<[&str; 3]> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let (prefix, rest) = text.strip_prefix(MARKERS[0])?.split_once(MARKERS[1])?;
    let (suffix, begun) = rest.split_once(MARKERS[2])?;
    let prefix = prefix.strip_prefix(' ').unwrap_or(prefix);
    let prefix = prefix.strip_suffix(' ').unwrap_or(prefix);
    Some([prefix, suffix.strip_suffix(' ').unwrap_or(suffix), begun])
}

fn unsupported() -> ApiError {
    ApiError::invalid("this model does not infill: its tokenizer has no infilling markers; leave out the suffix")
}
