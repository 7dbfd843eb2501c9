//! RE2's syntax, which gitleaks' rules are written in, as that of the regex crate.

/// Rewrites a pattern in which RE2 takes characters literally that the regex crate takes as operators: a brace that
/// begins no repetition, and inside a class a bracket and doubled `&`, `-` and `~`.
pub fn to_regex_syntax(pattern: &str) -> String {
    let mut output = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    // Inside a class: whether its first character is still to come, where `]` is literal.
    let mut class: Option<bool> = None;
    while let Some(c) = rest.chars().next() {
        let taken = match (c, class) {
            ('\\', _) => escape_length(rest),
            ('[', None) => {
                let length = if rest.starts_with("[^") { 2 } else { 1 };
                output.push_str(&rest[..length]);
                rest = &rest[length..];
                class = Some(true);
                continue;
            }
            ('[', Some(_)) if rest.starts_with("[:") => rest.find(":]").map_or(1, |end| end + 2),
            (']', Some(first)) => {
                output.push_str(if first { "\\]" } else { "]" });
                rest = &rest[1..];
                class = first.then_some(false);
                continue;
            }
            ('[', Some(_)) => {
                output.push('\\');
                1
            }
            // A range that ends in a hyphen; at the beginning of a class one that begins with it.
            ('-', Some(false)) if rest.starts_with("--") => {
                output.push_str("-\\");
                rest = &rest[1..];
                1
            }
            ('&' | '-' | '~', Some(_)) if rest[1..].starts_with(c) => {
                output.push('\\');
                1
            }
            ('{', None) if !is_repetition(rest) => {
                output.push('\\');
                1
            }
            _ => c.len_utf8(),
        };
        output.push_str(&rest[..taken]);
        rest = &rest[taken..];
        class = class.map(|_| false);
    }
    output
}

/// Returns the bytes of the escape at the beginning of a pattern: `\d`, `\{`, `\x{41}`, `\p{Greek}`.
fn escape_length(pattern: &str) -> usize {
    let Some(c) = pattern[1..].chars().next() else { return 1 };
    let plain = 1 + c.len_utf8();
    match matches!(c, 'x' | 'p' | 'P') && pattern[plain..].starts_with('{') {
        true => pattern.find('}').map_or(plain, |end| end + 1),
        false => plain,
    }
}

/// Returns whether a pattern begins with `{n}`, `{n,}` or `{n,m}`.
fn is_repetition(pattern: &str) -> bool {
    let Some((bounds, _)) = pattern[1..].split_once('}') else { return false };
    let (least, most) = bounds.split_once(',').unwrap_or((bounds, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    #[test]
    fn what_re2_takes_literally_is_literal() {
        for (pattern, matching, other) in [
            (r"^\$(?:\d+|{\d+})$", "${12}", "$"),
            (r"^\{\{[ \t]*\w+[ \t]*}}$", "{{ name }}", "{name}"),
            ("^a{2}b{1,}c{0,3}$", "aabbccc", "a{2}bc"),
            ("^a{,3}$", "a{,3}", "aaa"),
            ("^{x}$", "{x}", "x"),
            (r"^[[a]+$", "[a", "]"),
            (r"^[]a]+$", "]a", "["),
            (r"^[^]a]+$", "bc", "]"),
            (r"^[a&&b]+$", "a&b", "c"),
            (r"^[+--]$", ",", "a"),
            (r"^[[:alpha:]_]+$", "a_", ":"),
            (r"^\x{41}\p{Lu}\[$", "AB[", "a"),
        ] {
            let regex = Regex::new(&to_regex_syntax(pattern)).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert!(regex.is_match(matching) && !regex.is_match(other), "{pattern}");
        }
        for pattern in ["\\", "[", "[^", "{", "a{", "[[:", r"\x{", r"\p", "é{é"] {
            to_regex_syntax(pattern);
        }
    }
}
