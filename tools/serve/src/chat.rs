//! Conversations: from the messages of a request to a prompt, by the checkpoint's chat template, or else in the form of Code
//! Llama's Instruct models.

use crate::error::ApiError;
use crate::fields::mistyped;
use crate::infill::EncodedPrompt;
use codelsi_engine::Result;
use codelsi_model::chat_template::ChatTemplate;
use codelsi_model::message::{Message, Role};
use codelsi_model::template::PromptTemplate;
use codelsi_model::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::Path;

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 4096;

/// The form of a model's conversations.
pub struct ChatForm {
    /// The checkpoint's own template.
    template: Option<ChatTemplate>,
    /// Strings at which an answer ends.
    stop: Vec<String>,
}

impl ChatForm {
    /// Loads the chat template of a model folder, if it has one.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn load(folder: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let template = ChatTemplate::load(folder)?;
        let stop = template.iter().filter_map(|template| template.end_of_turn(tokenizer)).collect();
        Ok(ChatForm { template, stop })
    }

    /// True if the checkpoint has a template.
    pub fn is_own(&self) -> bool {
        self.template.is_some()
    }

    /// Strings at which an answer ends.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// Encodes a conversation that the assistant is to continue.
    ///
    /// # Errors
    /// When it has no form in the template, or the text cannot be spelled in the vocabulary.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> std::result::Result<EncodedPrompt, ApiError> {
        let tokens = match &self.template {
            Some(template) => template.encode_prompt(tokenizer, messages)?,
            None => encode_inst(tokenizer, messages)?,
        };
        Ok(EncodedPrompt { tokens, stop_token_ids: Vec::new() })
    }
}

/// Encodes turns one after the other, each `<s>[INST] question [/INST]answer</s>` as in training; system messages stand at
/// the beginning of the question after them.
fn encode_inst(
    tokenizer: &Tokenizer,
    messages: &[Message],
) -> std::result::Result<Vec<u32>, ApiError> {
    let (mut tokens, mut system, mut question) = (Vec::new(), Vec::new(), Vec::new());
    let wrap = |system: &mut Vec<&str>, question: &mut Vec<&str>| {
        let header = match system.is_empty() {
            true => String::new(),
            false => format!("<<SYS>>\n{}\n<</SYS>>\n\n", std::mem::take(system).join("\n\n")),
        };
        PromptTemplate::Inst.wrap(&(header + &std::mem::take(question).join("\n\n")))
    };
    for message in messages {
        match message.role {
            Role::System if message.content.is_empty() => {}
            Role::System => system.push(&message.content[..]),
            Role::User | Role::Tool => question.push(&message.content[..]),
            Role::Assistant => {
                if !question.is_empty() {
                    tokens.extend(tokenizer.encode(&wrap(&mut system, &mut question), true)?);
                }
                tokens.extend(tokenizer.encode_continuation(&message.content)?);
                tokens.extend(tokenizer.eos());
            }
        }
    }
    if question.is_empty() {
        return Err(ApiError::field("messages", "do not end with a message of the user"));
    }
    tokens.extend(tokenizer.encode(&wrap(&mut system, &mut question), true)?);
    Ok(tokens)
}

/// Reads the messages of a request.
///
/// # Errors
/// When one has no known role, or content that is no text.
pub fn parse_messages(list: Vec<Value>) -> std::result::Result<Vec<Message>, ApiError> {
    if list.len() > MAX_MESSAGES {
        let message = format!("holds {} messages; {MAX_MESSAGES} are allowed", list.len());
        return Err(ApiError::field("messages", message));
    }
    list.into_iter().enumerate().map(|(i, message)| parse_message(i, message)).collect()
}

fn parse_message(i: usize, mut message: Value) -> std::result::Result<Message, ApiError> {
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
            texts.collect::<std::result::Result<Vec<_>, _>>()?.concat()
        }
        other => return Err(mistyped(&at("content"), "a text or a list of parts", &other)),
    };
    Ok(Message { role, content })
}

/// Returns the text of a part of a message.
fn parse_part(name: &str, mut part: Value) -> std::result::Result<String, ApiError> {
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

    fn parse(list: &Value) -> std::result::Result<Vec<Message>, ApiError> {
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
