//! The part of a file around a hole that a row shows.

use std::ops::Range;

/// Code has at least as many bytes as this in a token.
const BYTES_PER_TOKEN: usize = 2;

/// Bytes of context in a row of at most `max_chars` characters and, where they are counted, `max_tokens` tokens.
pub fn context_bytes(max_chars: usize, max_tokens: Option<usize>) -> usize {
    max_tokens.map_or(max_chars, |tokens| max_chars.min(BYTES_PER_TOKEN * tokens))
}

/// Returns the range of whole lines around a hole, of `bytes` bytes beside the hole or fewer, a third of them after it,
/// that shows nothing of `repeats`. `None` if the hole is in one of these.
pub fn window(
    text: &str,
    hole: &Range<usize>,
    repeats: &[Range<usize>],
    bytes: usize,
) -> Option<Range<usize>> {
    if repeats.iter().any(|repeat| repeat.start < hole.end && hole.start < repeat.end) {
        return None;
    }
    let before = repeats.iter().map(|repeat| repeat.end).filter(|end| *end <= hole.start).max().unwrap_or(0);
    let after = repeats.iter().map(|repeat| repeat.start).filter(|start| *start >= hole.end).min();
    let end = last_line_end(text, hole.end, after.unwrap_or(text.len()).min(hole.end + bytes / 3));
    let start = hole.start.saturating_sub(bytes - (end - hole.end)).max(before);
    Some(first_line_start(text, start, hole.start)..end)
}

/// Returns the end of the last line that ends in `from..to`, or a place in the line where none does.
fn last_line_end(text: &str, from: usize, to: usize) -> usize {
    let to = text.floor_char_boundary(to);
    match text[from..to].rfind('\n') {
        Some(at) if to < text.len() => from + at + 1,
        _ => to,
    }
}

/// Returns the start of the first line that starts in `from..to`, or a place in the line where none does.
fn first_line_start(text: &str, from: usize, to: usize) -> usize {
    let from = text.ceil_char_boundary(from);
    match text[from..to].find('\n') {
        Some(at) if from > 0 && !text[..from].ends_with('\n') => from + at + 1,
        _ => from,
    }
}
