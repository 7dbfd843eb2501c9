//! Conversations: from the messages of a request to a prompt.

use crate::error::ApiError;
use crate::fields::mistyped;
use crate::infill::EncodedPrompt;
use codelsi_model::chat_format::ChatFormat;
use codelsi_model::message::{Message, Role};
use codelsi_model::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::Path;

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 4096;

/// The form of a model's conversations, and where an answer in it ends.
pub struct Chat {
    format: ChatFormat,
    stop: Vec<String>,
}

impl Chat {
    /// Loads the form of a model folder.
    ///
    /// # Errors
    /// When its chat template is malformed.
    pub fn load(folder: &Path, tokenizer: &Tokenizer) -> codelsi_engine::Result<Self> {
        let format = ChatFormat::load(folder)?;
        let stop = format.end_of_turn(tokenizer).into_iter().collect();
        Ok(Chat { format, stop })
    }

    /// True if the checkpoint has a template of its own.
    pub fn has_template(&self) -> bool {
        matches!(self.format, ChatFormat::Template(_))
    }

    /// Strings at which an answer ends.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// Encodes a conversation that the assistant is to continue.
    ///
    /// # Errors
    /// When the form does not take it, or the text cannot be spelled in the vocabulary.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<EncodedPrompt, ApiError> {
        let tokens = self.format.encode(tokenizer, messages)?;
        Ok(EncodedPrompt { tokens, stop_token_ids: Vec::new() })
    }
}

/// Reads the messages of a request.
///
/// # Errors
/// When one has no known role, or content that is no text.
pub fn parse_messages(list: Vec<Value>) -> Result<Vec<Message>, ApiError> {
    if list.len() > MAX_MESSAGES {
        let message = format!("holds {} messages; {MAX_MESSAGES} are allowed", list.len());
        return Err(ApiError::field("messages", message));
    }
    list.into_iter().enumerate().map(|(i, message)| parse_message(i, message)).collect()
}

fn parse_message(i: usize, mut message: Value) -> Result<Message, ApiError> {
    let at = |name: &str| format!("messages[{i}].{name}");
    if !message.is_object() {
        return Err(mistyped(&format!("messages[{i}]"), "an object", &message));
    }
    let role = match message["role"].as_str() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        _ => return Err(ApiError::field(&at("role"), "is not system, user, assistant or tool")),
    };
    for name in ["tool_calls", "images"] {
        if message[name].as_array().is_some_and(|list| !list.is_empty()) {
            return Err(ApiError::field(&at(name), "is not supported; leave it out"));
        }
    }
    let content = match message["content"].take() {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(parts) => {
            let texts = parts.into_iter().map(|part| parse_part(&at("content"), part));
            texts.collect::<Result<Vec<_>, _>>()?.concat()
        }
        other => return Err(mistyped(&at("content"), "a text or a list of parts", &other)),
    };
    Ok(Message { role, content })
}

/// Returns the text of a part of a message.
fn parse_part(name: &str, mut part: Value) -> Result<String, ApiError> {
    let is_text = part["type"].as_str().is_none_or(|kind| kind == "text");
    match part.get_mut("text").map(Value::take) {
        Some(Value::String(text)) if is_text => Ok(text),
        _ => Err(ApiError::field(name, "holds a part that is no text; the model reads text alone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(list: &Value) -> Result<Vec<Message>, ApiError> {
        parse_messages(list.as_array().unwrap().clone())
    }

    #[test]
    fn content_is_a_text_or_parts() {
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null}]);
        let messages = parse(&parts).unwrap();
        assert_eq!([&messages[0].content[..], &messages[1].content[..]], ["ab", ""]);
        for bad in [
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            json!([{"role": "pilot", "content": "x"}]),
            json!([{"content": "x"}]),
            json!(["x"]),
            json!([{"role": "user", "content": 1}]),
            json!([{"role": "user", "content": "x", "images": ["aGk="]}]),
            json!([{"role": "user", "content": [null]}]),
        ] {
            assert_eq!(parse(&bad).unwrap_err().status.as_u16(), 400, "{bad}");
        }
    }
}
