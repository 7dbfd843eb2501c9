//! Detection of the end of a completion while it grows, and the text that may be shown before.

use super::request::FinishReason;
use crate::tokenizer::{DecodeStream, Tokenizer};

/// The text of a completion so far, and what of it was shown.
///
/// A control token decodes to nothing, and a stop string may name one (`<|im_end|>`, `</s>`): strings are looked for in the
/// text with control tokens spelled out as well. Text that a stop string may still begin with is held back.
#[derive(Default)]
pub(super) struct StopChecker {
    stream: DecodeStream,
    text: String,
    /// The text with control tokens spelled out.
    spelled: String,
    /// (offset in `spelled`, length) of each control token.
    control: Vec<(usize, usize)>,
    /// Length of the text that was shown.
    shown: usize,
}

impl StopChecker {
    /// Appends a token. Returns true if that completes one of the strings `stop`; the text is then cut before the first of
    /// them.
    pub(super) fn push(&mut self, tokenizer: Option<&Tokenizer>, stop: &[String], id: u32) -> bool {
        let Some(tokenizer) = tokenizer else { return false };
        let new = self.stream.push(tokenizer, id);
        let control = tokenizer.control_token(id).unwrap_or_default();
        self.append(&new, control, stop)
    }

    /// Returns the text that has become certain since it was last shown: no stop string can cut it any more.
    pub(super) fn take_certain(&mut self, stop: &[String]) -> String {
        let held = held_back(&self.text, stop).min(match self.control.is_empty() {
            true => usize::MAX,
            false => self.offset_in_text(held_back(&self.spelled, stop)),
        });
        self.take_until(held)
    }

    /// Returns the rest of the text; only here is a last, incomplete character appended.
    pub(super) fn finish(&mut self, stop: &[String], reason: FinishReason) -> String {
        if reason == FinishReason::Length {
            let rest = std::mem::take(&mut self.stream).finish();
            self.append(&rest, "", stop);
        }
        self.take_until(self.text.len())
    }

    fn take_until(&mut self, end: usize) -> String {
        let from = self.shown;
        self.shown = end.max(from);
        self.text[from..self.shown].to_string()
    }

    /// Appends text or a control token; returns true if that completes a stop string, and cuts the text before it.
    fn append(&mut self, new: &str, control: &str, stop: &[String]) -> bool {
        let (from, from_spelled) = (self.text.len(), self.spelled.len());
        if !control.is_empty() {
            self.control.push((from_spelled, control.len()));
        }
        self.text.push_str(new);
        self.spelled.push_str(new);
        self.spelled.push_str(control);
        let in_text = first_stop(&self.text, from, stop);
        let in_spelled = match self.control.is_empty() {
            true => None,
            false => first_stop(&self.spelled, from_spelled, stop).map(|end| self.offset_in_text(end)),
        };
        let end = in_text.into_iter().chain(in_spelled).min();
        end.iter().for_each(|&end| self.text.truncate(end));
        end.is_some()
    }

    /// Converts an offset in `spelled` to one in `text`.
    fn offset_in_text(&self, offset: usize) -> usize {
        let before = self.control.iter().take_while(|(start, _)| *start < offset);
        offset - before.map(|(start, length)| (*length).min(offset - start)).sum::<usize>()
    }
}

/// Returns the offset of the first stop string in `text` that ends after `from`.
fn first_stop(text: &str, from: usize, stop: &[String]) -> Option<usize> {
    let starts = stop.iter().filter(|s| !s.is_empty()).filter_map(|stop| {
        // Only a match that touches the new text can be new.
        let mut start = from.saturating_sub(stop.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        text[start..].find(stop.as_str()).map(|offset| start + offset)
    });
    starts.min()
}

/// Returns the offset of the longest end of `text` with which a stop string may begin.
fn held_back(text: &str, stop: &[String]) -> usize {
    let longest = |stop: &String| {
        // A whole stop string has cut the text before.
        let most = text.len().min(stop.len().saturating_sub(1));
        let begins = |&length: &usize| stop.as_bytes().starts_with(&text.as_bytes()[text.len() - length..]);
        (1..=most).rev().find(begins).unwrap_or(0)
    };
    text.len() - stop.iter().map(longest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of the letters a to d and the control tokens `</s>` (4) and `<|im_end|>` (5).
    fn tokenizer() -> Tokenizer {
        let control = |id: u32, content: &str| {
            serde_json::json!({"id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false})
        };
        let json = serde_json::json!({
            "version": "1.0", "added_tokens": [control(4, "</s>"), control(5, "<|im_end|>")],
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "merges": []},
        });
        Tokenizer::parse(&json.to_string(), "").unwrap()
    }

    /// Pushes ids until one completes a stop string; returns the number of ids pushed, and the text, which is shown piece
    /// by piece.
    fn run(ids: &[u32], stop: &[&str]) -> (usize, String) {
        let (tokenizer, stop) = (tokenizer(), stop.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        let (mut checker, mut shown) = (StopChecker::default(), String::new());
        for (i, &id) in ids.iter().enumerate() {
            if checker.push(Some(&tokenizer), &stop, id) {
                shown += &checker.finish(&stop, FinishReason::Stop);
                return (i + 1, shown);
            }
            shown += &checker.take_certain(&stop);
        }
        shown += &checker.finish(&stop, FinishReason::Length);
        (ids.len(), shown)
    }

    #[test]
    fn text_that_a_stop_string_may_begin_with_is_held_back() {
        let (tokenizer, stop) = (tokenizer(), ["bca".to_string(), "cd".to_string()]);
        let mut checker = StopChecker::default();
        let mut push = |id| {
            assert!(!checker.push(Some(&tokenizer), &stop, id));
            checker.take_certain(&stop)
        };
        assert_eq!([0, 1, 2, 2, 0].map(&mut push), ["a", "", "", "bc", "ca"]);
        assert!(
            checker.push(Some(&tokenizer), &["a".into()], 0),
            "a stop string of one character holds nothing back"
        );
        let mut checker = StopChecker::default();
        let stop = ["b<|im_end|>".to_string()];
        let mut push = |id| {
            checker.push(Some(&tokenizer), &stop, id);
            checker.take_certain(&stop)
        };
        assert_eq!([0, 1, 4, 1, 5].map(&mut push), ["a", "", "", "b", ""]);
        assert_eq!(checker.finish(&stop, FinishReason::Stop), "");
    }

    #[test]
    fn a_stop_string_matches_a_control_token() {
        assert_eq!(run(&[0, 1, 5, 2], &["<|im_end|>"]), (3, "ab".into()));
        assert_eq!(run(&[0, 4, 1, 5, 2], &["b<|im"]), (4, "a".into()));
        assert_eq!(run(&[0, 4, 1, 5, 2], &["</s>b"]), (3, "a".into()));
        assert_eq!(run(&[0, 4, 1, 5, 2], &["s>b"]), (3, "a".into()));
    }

    #[test]
    fn a_control_token_does_not_part_the_text_around_it() {
        assert_eq!(run(&[0, 4, 1, 2], &["ab"]), (3, String::new()));
        assert_eq!(run(&[0, 4, 1, 2], &["x", ""]), (4, "abc".into()));
    }
}
