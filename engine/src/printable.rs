//! Foreign text, made fit to be shown.

/// Returns foreign text as it may be printed: control characters, and those that turn the direction of writing, are
/// escaped, newlines aside; of more than `limit` characters, the beginning and the end are kept.
pub fn printable(text: &str, limit: usize) -> String {
    let hostile = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let escape = |part: &str| -> String {
        part.chars().map(|c| if hostile(c) { c.escape_default().to_string() } else { c.into() }).collect()
    };
    let length = text.chars().count();
    if length <= limit {
        return escape(text);
    }
    let tail = limit / 4;
    let place = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let (head, end) = (place(limit - tail), place(length - tail));
    let left_out = length - limit;
    format!("{} … ({left_out} characters left out) … {}", escape(&text[..head]), escape(&text[end..]))
}
