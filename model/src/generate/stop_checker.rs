//! Detection of the end of a completion while it grows.

use super::request::FinishReason;
use crate::tokenizer::{DecodeStream, Tokenizer};

/// The text of a completion so far, and the strings that end it.
pub(super) struct StopChecker<'a> {
    tokenizer: Option<&'a Tokenizer>,
    stop: &'a [String],
    stream: DecodeStream,
    text: String,
}

impl<'a> StopChecker<'a> {
    pub(super) fn new(tokenizer: Option<&'a Tokenizer>, stop: &'a [String]) -> Self {
        StopChecker { tokenizer, stop, stream: DecodeStream::default(), text: String::new() }
    }

    /// Appends a token. Returns true if that completes a stop string; the text is then cut before the first of them.
    pub(super) fn push(&mut self, id: u32) -> bool {
        let Some(tokenizer) = self.tokenizer else { return false };
        let new = self.stream.push(tokenizer, id);
        let from = self.text.len();
        self.text.push_str(&new);
        self.cut_at_stop(from)
    }

    /// Returns the complete text; only here is a last, incomplete character appended.
    pub(super) fn finish(mut self, reason: FinishReason) -> String {
        if reason == FinishReason::Length {
            let from = self.text.len();
            let rest = std::mem::take(&mut self.stream).finish();
            self.text.push_str(&rest);
            self.cut_at_stop(from);
        }
        self.text
    }

    /// Cuts the text before the first stop string that ends after `from`; returns true if there is one.
    fn cut_at_stop(&mut self, from: usize) -> bool {
        let first = self.stop.iter().filter(|s| !s.is_empty()).filter_map(|stop| {
            // Only a match that touches the new text can be new.
            let mut start = from.saturating_sub(stop.len());
            while !self.text.is_char_boundary(start) {
                start -= 1;
            }
            self.text[start..].find(stop.as_str()).map(|offset| start + offset)
        });
        match first.min() {
            Some(end) => {
                self.text.truncate(end);
                true
            }
            None => false,
        }
    }
}
