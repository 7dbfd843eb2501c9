//! Control tokens in a rendered conversation: those that the template writes are tokens, those in a message are text.

use crate::message::{Message, Role};
use crate::tokenizer::Tokenizer;
use codelsi_engine::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;
use tokenizers::AddedToken;

/// Finds control tokens in a text, as the `tokenizers` crate does: leftmost first, the longest of those.
pub(super) struct ControlTokens<'a> {
    tokens: Vec<(u32, &'a AddedToken)>,
}

impl<'a> ControlTokens<'a> {
    /// The tokens of a template: those that are special, and other added tokens that its source writes.
    pub(super) fn of(tokenizer: &'a Tokenizer, source: &str) -> Self {
        let written = |token: &AddedToken| !token.normalized && source.contains(&token.content);
        let is_control = |token: &AddedToken| !token.content.is_empty() && (token.special || written(token));
        let mut tokens: Vec<(u32, &AddedToken)> =
            tokenizer.added_tokens().filter(|(_, token)| is_control(token)).collect();
        tokens.sort_by_key(|(id, token)| (std::cmp::Reverse(token.content.len()), *id));
        ControlTokens { tokens }
    }

    /// Returns the text of a control token.
    pub(super) fn text(&self, id: u32) -> Option<&'a str> {
        self.tokens.iter().find(|(other, _)| *other == id).map(|(_, token)| &token.content[..])
    }

    /// Cuts a text into its control tokens, each with its id, and the text between them.
    pub(super) fn split(&self, text: &str) -> Vec<(Range<usize>, Option<u32>)> {
        let (mut pieces, mut done) = (Vec::new(), 0);
        while let Some((range, id)) = self.next(text, done) {
            if done < range.start {
                pieces.push((done..range.start, None));
            }
            done = range.end;
            pieces.push((range, Some(id)));
        }
        if done < text.len() {
            pieces.push((done..text.len(), None));
        }
        pieces
    }

    /// Returns the first control token at or after `from`, with the spaces that it takes in.
    fn next(&self, text: &str, from: usize) -> Option<(Range<usize>, u32)> {
        let starts = text[from..].char_indices().map(|(offset, _)| from + offset);
        let (start, id, token) =
            starts.flat_map(|start| self.at(text, start).map(|(id, t)| (start, id, t))).next()?;
        let end = start + token.content.len();
        let before = text[from..start].trim_end().len() + from;
        let after = text.len() - text[end..].trim_start().len();
        let range = if token.lstrip { before } else { start }..if token.rstrip { after } else { end };
        Some((range, id))
    }

    /// Returns the longest token at `start`.
    fn at(&self, text: &str, start: usize) -> Option<(u32, &'a AddedToken)> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let (before, rest) = text.split_at(start);
        let stands_alone = |token: &AddedToken| {
            !before.ends_with(is_word) && !rest[token.content.len()..].starts_with(is_word)
        };
        let found = self.tokens.iter().find(|(_, token)| rest.starts_with(&token.content))?;
        (!found.1.single_word || stands_alone(found.1)).then_some(*found)
    }
}

/// Characters that stand for the texts of control tokens in messages while a template renders them.
#[derive(Default)]
pub(super) struct StandIns {
    characters: Vec<(char, String)>,
}

impl StandIns {
    /// Replaces texts of control tokens in the messages; in what the assistant says only those of special ones, since a
    /// thought between `<think>` and `</think>` is the assistant's.
    ///
    /// # Errors
    /// When the messages use up all characters for private use.
    pub(super) fn hide(
        control: &ControlTokens,
        source: &str,
        messages: &[Message],
    ) -> Result<(Self, Vec<Message>)> {
        let mut stand_ins = StandIns::default();
        let mut free = ('\u{f0000}'..='\u{ffffd}')
            .filter(|&c| !source.contains(c) && !messages.iter().any(|message| message.content.contains(c)));
        let mut hidden = messages.to_vec();
        for message in &mut hidden {
            let hides = |token: &AddedToken| token.special || message.role != Role::Assistant;
            // The longest first: a token may hold another.
            let tokens = control.tokens.iter().filter(|(_, token)| hides(token));
            for text in tokens.map(|(_, token)| &token.content[..]) {
                if !message.content.contains(text) {
                    continue;
                }
                let known = stand_ins.characters.iter().find(|(_, hidden)| hidden == text).map(|(c, _)| *c);
                let Some(c) = known.or_else(|| free.next()) else {
                    return Err(Error::new("a conversation holds every character for private use"));
                };
                if known.is_none() {
                    stand_ins.characters.push((c, text.to_string()));
                }
                message.content = message.content.replace(text, c.encode_utf8(&mut [0; 4]));
            }
        }
        Ok((stand_ins, hidden))
    }

    /// The texts that characters stand for.
    pub(super) fn texts(&self) -> Vec<&str> {
        self.characters.iter().map(|(_, text)| &text[..]).collect()
    }

    /// True if a text holds a character that stands for another text.
    pub(super) fn are_in(&self, text: &str) -> bool {
        self.characters.iter().any(|(c, _)| text.contains(*c))
    }

    /// Puts the texts back.
    pub(super) fn restore<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for (c, hidden) in self.characters.iter().filter(|(c, _)| text.contains(*c)).collect::<Vec<_>>() {
            text = Cow::Owned(text.replace(*c, hidden));
        }
        text
    }
}
