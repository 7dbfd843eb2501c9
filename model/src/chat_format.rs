//! The form in which a conversation is put to a model: the checkpoint's own chat template, else Code Llama's `[INST]`.

use crate::chat_template::ChatTemplate;
use crate::message::{Message, Role};
use crate::template::PromptTemplate;
use crate::tokenizer::Tokenizer;
use codelsi_engine::{Error, Result};
use std::path::Path;

/// The form of a model's conversations.
pub enum ChatFormat {
    /// The checkpoint's own chat template.
    Template(Box<ChatTemplate>),
    /// Llama 2's and Code Llama Instruct's form: each turn is a text of its own, `[INST] question [/INST] answer`, the
    /// system message in the first question between `<<SYS>>` and `<</SYS>>`.
    Inst,
}

impl ChatFormat {
    /// Loads the form of a model folder.
    ///
    /// # Errors
    /// When its chat template is malformed.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Ok(match ChatTemplate::load(folder)? {
            Some(template) => ChatFormat::Template(Box::new(template)),
            None => ChatFormat::Inst,
        })
    }

    /// Describes the form in a few words.
    pub fn describe(&self) -> &'static str {
        match self {
            ChatFormat::Template(_) => "the model's own chat template",
            ChatFormat::Inst => "[INST] .. [/INST], for want of a chat template",
        }
    }

    /// Encodes a conversation that the assistant is to continue. A control token's text in a message stays text.
    ///
    /// # Errors
    /// When the form does not take these messages, or the text cannot be spelled in the vocabulary.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        match self {
            ChatFormat::Template(template) => template.encode_prompt(tokenizer, messages),
            ChatFormat::Inst => encode_inst(tokenizer, messages),
        }
    }

    /// Returns the text of the control token that ends a turn of the assistant and is not the end of a text.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Option<String> {
        match self {
            ChatFormat::Template(template) => template.end_of_turn(tokenizer),
            ChatFormat::Inst => None,
        }
    }
}

/// Encodes turns one after the other, as they are trained with `--template inst`. Messages that follow each other without
/// an answer are one question; system messages stand at the beginning of the question after them.
fn encode_inst(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
    let (mut tokens, mut system, mut question) = (Vec::new(), Vec::new(), Vec::new());
    for Message { role, content } in messages {
        match role {
            Role::System if content.is_empty() => {}
            Role::System => system.push(content.as_str()),
            Role::User | Role::Tool => question.push(content.as_str()),
            Role::Assistant => {
                if !question.is_empty() {
                    tokens.extend(tokenizer.encode(&wrap_question(&mut system, &mut question), true)?);
                }
                tokens.extend(tokenizer.encode_continuation(content)?);
                tokens.extend(tokenizer.eos());
            }
        }
    }
    if question.is_empty() {
        return Err(Error::new("a conversation must end with a message of the user"));
    }
    tokens.extend(tokenizer.encode(&wrap_question(&mut system, &mut question), true)?);
    Ok(tokens)
}

/// Takes the messages of a question and writes them.
fn wrap_question(system: &mut Vec<&str>, question: &mut Vec<&str>) -> String {
    let header = match std::mem::take(system) {
        none if none.is_empty() => String::new(),
        system => format!("<<SYS>>\n{}\n<</SYS>>\n\n", system.join("\n\n")),
    };
    PromptTemplate::Inst.wrap(&(header + &std::mem::take(question).join("\n\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{config, write_random_model};
    use Role::{Assistant, System, Tool, User};

    fn synthetic_tokenizer() -> Tokenizer {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("model");
        write_random_model(&folder, &config("tiny").unwrap(), 1, &mut |_, _| ()).unwrap();
        Tokenizer::load(&folder).unwrap()
    }

    fn encode(tokenizer: &Tokenizer, messages: &[(Role, &str)]) -> Result<Vec<u32>> {
        let messages: Vec<Message> =
            messages.iter().map(|&(role, content)| Message { role, content: content.into() }).collect();
        ChatFormat::Inst.encode(tokenizer, &messages)
    }

    #[test]
    fn each_turn_is_a_text_of_its_own_and_the_system_message_is_in_the_first() {
        let tokenizer = synthetic_tokenizer();
        let text = |text: &str| tokenizer.encode(text, true).unwrap();
        let answer = |text: &str| [tokenizer.encode_continuation(text).unwrap(), vec![2]].concat();
        assert_eq!(encode(&tokenizer, &[(User, "a")]).unwrap(), text("[INST] a [/INST]"));
        let turns = [(System, "be"), (User, "a"), (Assistant, " b"), (User, "c")];
        let expected =
            [text("[INST] <<SYS>>\nbe\n<</SYS>>\n\na [/INST]"), answer(" b"), text("[INST] c [/INST]")];
        assert_eq!(encode(&tokenizer, &turns).unwrap(), expected.concat());
        let joined = [(User, "a"), (User, "b"), (Assistant, "c"), (System, ""), (System, "be"), (Tool, "d")];
        let expected =
            [text("[INST] a\n\nb [/INST]"), answer("c"), text("[INST] <<SYS>>\nbe\n<</SYS>>\n\nd [/INST]")];
        assert_eq!(encode(&tokenizer, &joined).unwrap(), expected.concat());
    }

    #[test]
    fn a_conversation_that_the_model_ended_is_refused() {
        let tokenizer = synthetic_tokenizer();
        for messages in [&[][..], &[(User, "a"), (Assistant, "b")], &[(System, "a")]] {
            let message = encode(&tokenizer, messages).unwrap_err().to_string();
            assert!(message.contains("end with a message of the user"), "{message}");
        }
    }
}
