//! Foreign text, made fit to be shown.

/// Returns foreign text as it may be printed: control characters, and those that turn the direction of writing, are
/// escaped, newlines aside; of more than `limit` characters, the beginning and the end are kept.
pub fn printable(text: &str, limit: usize) -> String {
    let escape = |part: &str| escape(part, |c| c != '\n');
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

/// Returns a model's text as it may be written to a terminal: what [`printable`] escapes is escaped, tabs aside.
pub fn for_terminal(text: &str) -> String {
    escape(text, |c| !matches!(c, '\n' | '\t'))
}

/// Escapes the control characters that are `unwanted`, and those that turn the direction of writing.
fn escape(text: &str, unwanted: impl Fn(char) -> bool) -> String {
    let hostile = |c: char| {
        c.is_control() && unwanted(c)
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hostile(c) { c.escape_default().to_string() } else { c.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_lines_and_tabs_and_no_commands() {
        assert_eq!(for_terminal("if (x) {\n\ty();\n}"), "if (x) {\n\ty();\n}");
        assert_eq!(for_terminal("\u{1b}]0;title\u{7}a\rb"), "\\u{1b}]0;title\\u{7}a\\rb");
        assert_eq!(printable("a\tb\nc", 99), "a\\tb\nc");
    }
}
