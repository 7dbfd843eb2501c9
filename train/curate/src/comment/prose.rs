//! Conversion of comment lines to prose: paragraphs and list items without markup.

/// Appends a paragraph, if it is not empty.
pub(super) fn push_paragraph(text: &mut String, paragraph: &str) {
    if !text.is_empty() && !paragraph.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(paragraph);
}

/// Joins lines to paragraphs and list items; headings, rules and lines that announce an example are removed.
pub(super) fn prose(lines: &[&str]) -> String {
    let mut blocks: Vec<String> = Vec::new();
    let mut open = false;
    for line in lines.iter().map(|l| l.trim()) {
        let heading = line.starts_with('#') || line.trim_matches(['-', '=', '*', ' ']).is_empty();
        if heading || announces_example(line) {
            open = false;
            continue;
        }
        match blocks.last_mut().filter(|_| open && !starts_item(line)) {
            Some(block) => {
                block.push(' ');
                block.push_str(line);
            }
            None => blocks.push(line.to_string()),
        }
        open = true;
    }
    let mut text = String::new();
    for block in blocks.iter().map(|block| inline(block)).filter(|block| !is_addresses(block)) {
        match starts_item(&block) {
            true if !text.is_empty() => text.push_str(&format!("\n{block}")),
            _ => push_paragraph(&mut text, &block),
        }
    }
    text
}

/// Returns whether a line announces an example (`Example:`, `Usage:`), whose code has been removed.
fn announces_example(line: &str) -> bool {
    let line = line.to_lowercase();
    line.ends_with(':')
        && line.split_whitespace().count() <= 3
        && (line.contains("example") || line.contains("usage"))
}

/// Returns whether a line starts a list item: with a bullet or a number.
fn starts_item(line: &str) -> bool {
    let numbered = line.split_once(['.', ')']).is_some_and(|(n, rest)| {
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with(' ')
    });
    numbered || line.starts_with("- ") || line.starts_with("* ")
}

pub(super) fn flat(text: String) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Doxygen commands that only format the next word.
const FORMATTING_COMMANDS: [&str; 10] =
    ["\\c", "\\p", "\\a", "\\e", "\\b", "\\ref", "@c", "@p", "@a", "@ref"];

/// Returns whether a block says nothing: it holds addresses alone, or nothing.
fn is_addresses(block: &str) -> bool {
    block.split_whitespace().all(|word| word.contains("://") || matches!(word, "-" | "*"))
}

/// Replaces inline tags by code and links by their text; removes HTML tags and emphasis. Code spans stay as they are.
fn inline(line: &str) -> String {
    let (line, spans) = without_code_spans(line);
    let mut text = String::new();
    let mut rest = line.as_str();
    while let Some((before, tag)) = rest.split_once("{@") {
        let Some(end) = closing_brace(tag) else {
            break;
        };
        let replaced = inline_tag(&tag[..end]);
        match linked_text(before).filter(|_| tag.starts_with("link")) {
            // JSDoc's `[text]{@link Target}`.
            Some((open, linked)) => text.extend([&before[..open], linked]),
            None => text.extend([before, &replaced]),
        }
        rest = &tag[end + 1..];
    }
    text.push_str(rest);
    let mut text = unlinked(&text).replace("**", "");
    for tag in
        ["<br>", "<br/>", "<br />", "<p>", "</p>", "<b>", "</b>", "<code>", "</code>", "<pre>", "</pre>"]
    {
        text = text.replace(tag, "");
    }
    let words = text.split_whitespace().filter(|word| !FORMATTING_COMMANDS.contains(word)).map(plain_address);
    with_code_spans(&words.collect::<Vec<_>>().join(" "), &spans)
}

/// Characters for private use, which stand for code spans.
const SPAN_MARKS: std::ops::RangeInclusive<char> = '\u{e000}'..='\u{f8ff}';

/// Replaces each code span, from a run of backticks to the next run of that length, by a mark; returns the spans.
fn without_code_spans(line: &str) -> (String, Vec<&str>) {
    let (mut text, mut spans) = (String::new(), Vec::new());
    let mut rest = line;
    for mark in SPAN_MARKS {
        let Some(start) = rest.find('`') else { break };
        let ticks = rest[start..].len() - rest[start..].trim_start_matches('`').len();
        let Some(length) = span_length(&rest[start..], ticks) else {
            text.push_str(&rest[..start + ticks]);
            rest = &rest[start + ticks..];
            continue;
        };
        text.push_str(&rest[..start]);
        text.push(mark);
        // Marks of unclosed backticks are not used.
        spans.resize(mark as usize - *SPAN_MARKS.start() as usize, "");
        spans.push(&rest[start..start + length]);
        rest = &rest[start + length..];
    }
    (text + rest, spans)
}

/// The length of the code span that `text` begins with, which opens with `ticks` backticks.
fn span_length(text: &str, ticks: usize) -> Option<usize> {
    let mut at = ticks;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        at = start + text[start..].len() - text[start..].trim_start_matches('`').len();
        if at - start == ticks {
            return Some(at);
        }
    }
    None
}

/// Puts code spans back in place of their marks.
fn with_code_spans(text: &str, spans: &[&str]) -> String {
    let mut whole = String::new();
    for c in text.chars() {
        match (c as usize).checked_sub(*SPAN_MARKS.start() as usize).and_then(|i| spans.get(i)) {
            Some(span) => whole.push_str(span),
            None => whole.push(c),
        }
    }
    whole
}

/// `code text`, `link Target`, `link Target | text`, `linkcode Target text`: the text, or the target as code.
fn inline_tag(tag: &str) -> String {
    let (name, target) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let target = target.trim();
    if target.is_empty() {
        return String::new();
    }
    if matches!(name, "code" | "literal") {
        return format!("`{}`", target.trim_matches('`'));
    }
    let (target, text) = target.split_once([' ', '|']).unwrap_or((target, ""));
    match text.trim_start_matches([' ', '|']).trim() {
        "" if target.contains("://") => target.to_string(),
        "" => format!("`{}`", target.trim_matches('`')),
        text => text.to_string(),
    }
}

/// Replaces `[text](address)` and `![text](address)` by `text`.
fn unlinked(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(middle) = rest.find("](") {
        let (before, after) = (&rest[..middle + 1], &rest[middle + 2..]);
        match (linked_text(before), closing(after, '(', ')')) {
            (Some((open, linked)), Some(close)) => {
                text.push_str(before[..open].trim_end_matches('!'));
                text.push_str(linked);
                rest = &after[close + 1..];
            }
            _ => {
                text.push_str(&rest[..middle + 2]);
                rest = after;
            }
        }
    }
    text + rest
}

/// The position of the bracket that opens the `[text]` at the end of `before`, and the text in it.
fn linked_text(before: &str) -> Option<(usize, &str)> {
    let inside = before.strip_suffix(']')?;
    let mut depth = 1;
    let open = inside.char_indices().rev().find_map(|(at, c)| {
        depth += match c {
            ']' => 1,
            '[' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })?;
    Some((open, &inside[open + 1..]))
}

/// An address in angle brackets without them; other words as they are.
fn plain_address(word: &str) -> String {
    match word.strip_prefix('<').filter(|_| word.contains("://")) {
        Some(address) => address.replacen('>', "", 1),
        None => word.to_owned(),
    }
}

/// The position of the brace that closes one opened before `text`.
pub(super) fn closing_brace(text: &str) -> Option<usize> {
    closing(text, '{', '}')
}

/// The position of the bracket that closes one opened before `text`.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
        }
        (depth == 0).then_some(at)
    })
}
