//! Where a growing completion ends.

use super::Finish;
use crate::tokenizer::{Stream, Tokenizer};

/// The text of a completion so far, and what ends it.
pub(super) struct Ending<'a> {
    tokenizer: Option<&'a Tokenizer>,
    stop: &'a [String],
    stream: Stream,
    text: String,
}

impl<'a> Ending<'a> {
    pub(super) fn new(tokenizer: Option<&'a Tokenizer>, stop: &'a [String]) -> Self {
        Ending { tokenizer, stop, stream: Stream::default(), text: String::new() }
    }

    /// Takes a token in; true when a stop string is complete, the text then being cut before the earliest.
    pub(super) fn push(&mut self, id: u32) -> bool {
        let Some(tokenizer) = self.tokenizer else { return false };
        let new = self.stream.push(tokenizer, id);
        let from = self.text.len();
        self.text.push_str(&new);
        self.cut(from)
    }

    /// The whole text. A last, incomplete character becomes visible only here.
    pub(super) fn finish(mut self, finish: Finish) -> String {
        if finish == Finish::Length {
            let from = self.text.len();
            let rest = std::mem::take(&mut self.stream).finish();
            self.text.push_str(&rest);
            self.cut(from);
        }
        self.text
    }

    /// Cuts before the first stop string that ends after `from`.
    fn cut(&mut self, from: usize) -> bool {
        let first = self.stop.iter().filter(|s| !s.is_empty()).filter_map(|stop| {
            // Only a match that touches the new text can be new.
            let mut start = from.saturating_sub(stop.len());
            while !self.text.is_char_boundary(start) {
                start -= 1;
            }
            self.text[start..].find(stop.as_str()).map(|at| start + at)
        });
        match first.min() {
            Some(at) => {
                self.text.truncate(at);
                true
            }
            None => false,
        }
    }
}
