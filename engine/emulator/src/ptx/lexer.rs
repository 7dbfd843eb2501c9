//! The lexer: PTX text to tokens.

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// An identifier, register, directive or opcode, dots included.
    Identifier(&'a str),
    /// A word that begins with a digit: `12`, `0xff`, `0f3F800000`, `1.5`.
    Number(&'a str),
    String(&'a str),
    Punctuation(u8),
}

/// A token and its line, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct LocatedToken<'a> {
    pub token: Token<'a>,
    pub line: u32,
}

fn starts_word(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn continues_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'.')
}

/// Splits `text` into tokens; comments and trailing NUL bytes are dropped.
pub fn tokenize(text: &str) -> Result<Vec<LocatedToken<'_>>> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4);
    let mut line = 1;
    let mut at = 0;
    while at < bytes.len() {
        let c = bytes[at];
        let rest = &bytes[at..];
        if c == b'\n' {
            line += 1;
            at += 1;
        } else if c.is_ascii_whitespace() || c == 0 {
            at += 1;
        } else if rest.starts_with(b"//") {
            at += rest.iter().position(|&c| c == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            let end = rest.windows(2).position(|w| w == b"*/");
            let end = end.ok_or_else(|| Error::ptx(line, "a comment that does not end"))?;
            line += rest[..end].iter().filter(|&&c| c == b'\n').count() as u32;
            at += end + 2;
        } else if c == b'"' {
            let end = rest[1..].iter().position(|&c| c == b'"' || c == b'\n');
            let end = end.filter(|&e| rest[1 + e] == b'"');
            let end = end.ok_or_else(|| Error::ptx(line, "a string that does not end"))?;
            out.push(LocatedToken { token: Token::String(&text[at + 1..at + 1 + end]), line });
            at += end + 2;
        } else if starts_word(c) || c.is_ascii_digit() {
            let end = word_end(bytes, at);
            let word = &text[at..end];
            let token = if c.is_ascii_digit() { Token::Number(word) } else { Token::Identifier(word) };
            out.push(LocatedToken { token, line });
            at = end;
        } else if c.is_ascii_graphic() {
            out.push(LocatedToken { token: Token::Punctuation(c), line });
            at += 1;
        } else {
            return Err(Error::ptx(line, format!("unexpected byte {c:#04x}")));
        }
    }
    Ok(out)
}

/// Returns the end of the word that begins at `at`; `::` inside it, as in `.L2::128B`, belongs to it.
fn word_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() {
        if continues_word(bytes[end]) {
            end += 1;
        } else if bytes[end..].starts_with(b"::") && bytes.get(end + 2).is_some_and(|&c| continues_word(c)) {
            end += 2;
        } else {
            break;
        }
    }
    end
}

/// Returns the value of an integer literal, as 64 bits.
pub fn integer(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches('U');
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    if let Some(binary) = digits.strip_prefix("0b").or_else(|| digits.strip_prefix("0B")) {
        return u64::from_str_radix(binary, 2).ok();
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return u64::from_str_radix(&digits[1..], 8).ok();
    }
    digits.parse().ok()
}

/// Returns the bits of a float literal and true for a double: `0f` and 8 digits, `0d` and 16, or decimal.
pub fn float(word: &str) -> Option<(u64, bool)> {
    let hex = |digits: &str, n: usize| {
        if digits.len() == n { u64::from_str_radix(digits, 16).ok() } else { None }
    };
    if let Some(digits) = word.strip_prefix("0f").or_else(|| word.strip_prefix("0F")) {
        return hex(digits, 8).map(|b| (b, false));
    }
    if let Some(digits) = word.strip_prefix("0d").or_else(|| word.strip_prefix("0D")) {
        return hex(digits, 16).map(|b| (b, true));
    }
    if word.contains('.') { word.parse::<f64>().ok().map(|v| (v.to_bits(), true)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_marks() {
        let found: Vec<_> =
            tokenize("@%p1 ld.L2::128B.b32 {%r1}, [%rd1+-0x10]; // x\n/* a\n b */ \"s\"\0").unwrap();
        let words: Vec<_> = found.iter().map(|s| s.token).collect();
        assert_eq!(words[1], Token::Identifier("%p1"));
        assert_eq!(words[2], Token::Identifier("ld.L2::128B.b32"));
        assert_eq!(words[10], Token::Punctuation(b'-'));
        assert_eq!(words[11], Token::Number("0x10"));
        assert_eq!(*words.last().unwrap(), Token::String("s"));
        assert_eq!(found.last().unwrap().line, 3);
    }

    #[test]
    fn literals() {
        assert_eq!(integer("0x1F"), Some(31));
        assert_eq!(integer("010"), Some(8));
        assert_eq!(integer("42U"), Some(42));
        assert_eq!(integer("4x"), None);
        assert_eq!(float("0f3F800000"), Some((0x3f80_0000, false)));
        assert_eq!(float("0d3FF0000000000000"), Some((0x3ff0_0000_0000_0000, true)));
        assert_eq!(float("0f3F8"), None);
    }

    #[test]
    fn open_comments_strings_and_foreign_bytes_are_errors() {
        for text in ["/* a", "\"a", "\"a\n\"", "\u{7f}", "ä"] {
            assert!(tokenize(text).is_err(), "{text:?}");
        }
    }
}
