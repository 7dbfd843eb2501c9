//! Conversations as tokens, and which of them are the assistant's.

use super::ChatTemplate;
use super::control_tokens::{ControlTokens, StandIns};
use crate::message::{Message, Role};
use crate::tokenizer::{Position, Tokenizer};
use codelsi_engine::{Error, Result};
use std::ops::Range;

/// A conversation to train on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedConversation {
    pub tokens: Vec<u32>,
    /// True for the tokens that the model is to say: the assistant's turns, each with the token that ends it.
    pub in_loss: Vec<bool>,
}

impl ChatTemplate {
    /// Encodes a conversation that the assistant is to continue. The ids are transformers', except that a control
    /// token's text in a message stays text.
    ///
    /// # Errors
    /// When the template fails, or the text cannot be spelled in the vocabulary.
    pub fn encode_prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        let control = ControlTokens::of(tokenizer, &self.source);
        let (stand_ins, hidden) = StandIns::hide(&control, &self.source, messages)?;
        let text = self.render_hidden(&stand_ins, &hidden, messages, true)?;
        let mut encoder = Encoder::new(tokenizer, &control, &stand_ins);
        encoder.push(&text, false)?;
        Ok(encoder.conversation.tokens)
    }

    /// Encodes a conversation to train on, with the assistant's turns in the loss. A turn begins where the prompt for
    /// it ends, so its tokens are those that follow this prompt in generation. Where the template ends the last turn
    /// with no control token, the tokenizer's end of text is added.
    ///
    /// # Errors
    /// When the template fails, or changes the text of earlier turns when turns are added.
    pub fn encode_conversation(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<EncodedConversation> {
        let control = ControlTokens::of(tokenizer, &self.source);
        let (stand_ins, hidden) = StandIns::hide(&control, &self.source, messages)?;
        let text = self.render_hidden(&stand_ins, &hidden, messages, false)?;
        let mut encoder = Encoder::new(tokenizer, &control, &stand_ins);
        let (mut done, mut ended) = (0, true);
        for turn in self.assistant_turns(&hidden, &text)? {
            let length = end_of_turn(&control, &text[turn.clone()]).map(|(end, _)| end);
            let end = turn.start + length.unwrap_or(turn.len());
            encoder.push(&text[done..turn.start], false)?;
            encoder.push(&text[turn.start..end], true)?;
            (done, ended) = (end, length.is_some());
        }
        encoder.push(&text[done..], false)?;
        let answered = messages.last().is_some_and(|last| last.role == Role::Assistant);
        if let Some(eos) = tokenizer.eos().filter(|_| answered && !ended) {
            encoder.extend(&[eos], true);
        }
        Ok(encoder.conversation)
    }

    /// Returns the text of the control token that ends a turn of the assistant, e.g. `<|im_end|>`: generation stops at
    /// it.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Option<String> {
        let message = |role| Message { role, content: "a".into() };
        let messages = [message(Role::User), message(Role::Assistant)];
        let text = self.render(&messages, false).ok()?;
        let turn = self.assistant_turns(&messages, &text).ok()?.pop()?;
        let control = ControlTokens::of(tokenizer, &self.source);
        let (_, id) = end_of_turn(&control, &text[turn])?;
        control.text(id).map(String::from)
    }

    /// Renders messages in which characters stand for control tokens' texts.
    fn render_hidden(
        &self,
        stand_ins: &StandIns,
        hidden: &[Message],
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let text = self.render(hidden, add_generation_prompt)?;
        let texts = stand_ins.texts();
        if !texts.is_empty() && stand_ins.restore(&text) != self.render(messages, add_generation_prompt)? {
            return Err(Error::new(format!(
                "the chat template reads the control token {} in a message; take it out of the message",
                texts.join(", ")
            ))
            .at(&self.file));
        }
        Ok(text)
    }

    /// Returns where the assistant's turns stand in the rendered conversation: from the end of the prompt for each to
    /// the end of the conversation up to it.
    fn assistant_turns(&self, messages: &[Message], text: &str) -> Result<Vec<Range<usize>>> {
        let is_assistant = |&i: &usize| messages[i].role == Role::Assistant;
        (0..messages.len())
            .filter(is_assistant)
            .map(|i| {
                let prompt = self.render(&messages[..i], true)?;
                let answered = self.render(&messages[..=i], false)?;
                if !answered.starts_with(&prompt) {
                    return Err(self.unsuitable(i, "is not what the prompt for it and an answer would be"));
                }
                if !text.starts_with(&answered) {
                    return Err(self.unsuitable(i, "changes when turns are added"));
                }
                Ok(prompt.len()..answered.len())
            })
            .collect()
    }

    fn unsuitable(&self, turn: usize, reason: &str) -> Error {
        Error::new(format!(
            "a model cannot be trained with this chat template: the text up to message {} {reason}; train with another \
             template, or on conversations of one answer",
            turn + 1
        ))
        .at(&self.file)
    }
}

/// Returns the length of a turn up to and with the control token that ends it, and that token, if only space follows.
fn end_of_turn(control: &ControlTokens, turn: &str) -> Option<(usize, u32)> {
    let last = control.split(turn).into_iter().rev().find_map(|(range, id)| Some((range.end, id?)));
    last.filter(|(end, _)| turn[*end..].trim().is_empty())
}

/// Appends rendered text to a conversation.
struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    control: &'a ControlTokens<'a>,
    stand_ins: &'a StandIns,
    position: Position,
    conversation: EncodedConversation,
}

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a Tokenizer, control: &'a ControlTokens<'a>, stand_ins: &'a StandIns) -> Self {
        let conversation = EncodedConversation::default();
        Encoder { tokenizer, control, stand_ins, position: Position::Start, conversation }
    }

    fn push(&mut self, text: &str, in_loss: bool) -> Result<()> {
        for (range, control) in self.control.split(text) {
            let text = &text[range];
            let (ids, position) = match control {
                Some(id) => (vec![id], Position::AfterControl),
                None if self.stand_ins.are_in(text) => (self.encode_restored(text)?, Position::AfterText),
                None => (self.tokenizer.encode_at(text, self.position)?, Position::AfterText),
            };
            self.position = position;
            self.extend(&ids, in_loss);
        }
        Ok(())
    }

    /// Encodes text that holds the texts of control tokens.
    fn encode_restored(&self, text: &str) -> Result<Vec<u32>> {
        let text = self.stand_ins.restore(text);
        let ids = self.tokenizer.encode_plain_at(&text, self.position)?;
        let texts = self.stand_ins.texts();
        match ids.iter().find_map(|&id| self.control.text(id).filter(|text| texts.contains(text))) {
            None => Ok(ids),
            Some(text) => Err(Error::new(format!(
                "a message holds the control token {text}, which this tokenizer cannot spell as text; take it out"
            ))),
        }
    }

    fn extend(&mut self, ids: &[u32], in_loss: bool) {
        let EncodedConversation { tokens, in_loss: mask } = &mut self.conversation;
        tokens.extend(ids);
        mask.resize(tokens.len(), in_loss);
    }
}
