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
    pub(super) fn of(tokenizer: &'a Tokenizer) -> Self {
        let mut tokens: Vec<(u32, &AddedToken)> =
            tokenizer.control_tokens().filter(|(_, token)| !token.content.is_empty()).collect();
        tokens.sort_by_key(|(id, token)| (std::cmp::Reverse(token.content.len()), *id));
        ControlTokens { tokens }
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
    /// Replaces texts of control tokens in the messages. An added token that is not special (`<think>`) counts where
    /// the template itself writes it, except in what the assistant says.
    ///
    /// # Errors
    /// When the messages use up all characters for private use.
    pub(super) fn hide(
        source: &str,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<(Self, Vec<Message>)> {
        let special: Vec<&str> = tokenizer.control_tokens().map(|(_, token)| &token.content[..]).collect();
        let written = tokenizer.added_texts().filter(|text| source.contains(text));
        let all: Vec<&str> = special.iter().copied().chain(written).collect();
        let mut stand_ins = StandIns::default();
        let mut free = ('\u{f0000}'..='\u{ffffd}')
            .filter(|&c| !source.contains(c) && !messages.iter().any(|message| message.content.contains(c)));
        let mut hidden = messages.to_vec();
        for message in &mut hidden {
            let texts = if message.role == Role::Assistant { &special } else { &all };
            let mut found: Vec<&str> =
                texts.iter().copied().filter(|text| message.content.contains(text)).collect();
            // The longest first: a token may hold another.
            found.sort_by_key(|text| std::cmp::Reverse(text.len()));
            for text in found {
                let known = stand_ins.characters.iter().find(|(_, hidden)| hidden == text).map(|(c, _)| *c);
                let c = match known.or_else(|| free.next()) {
                    Some(c) => c,
                    None => return Err(Error::new("a conversation holds every character for private use")),
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
