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
    for block in blocks.iter().map(|block| inline(block)).filter(|block| !block.is_empty()) {
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

/// Replaces inline tags by code and links by their text; removes tags and emphasis.
fn inline(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, tag)) = rest.split_once("{@") {
        let Some(end) = closing_brace(tag) else {
            break;
        };
        text.push_str(before);
        text.push_str(&inline_tag(&tag[..end]));
        rest = &tag[end + 1..];
    }
    text.push_str(rest);
    let mut text = unlinked(&text).replace("**", "");
    for tag in
        ["<br>", "<br/>", "<br />", "<p>", "</p>", "<b>", "</b>", "<code>", "</code>", "<pre>", "</pre>"]
    {
        text = text.replace(tag, "");
    }
    let words = text.split_whitespace().filter(|word| !FORMATTING_COMMANDS.contains(word));
    words.collect::<Vec<_>>().join(" ")
}

/// `code text`, `link Target`, `link Target | text`, `linkcode Target text`: the text, or the target as code.
fn inline_tag(tag: &str) -> String {
    let (name, target) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    if matches!(name, "code" | "literal") {
        return format!("`{}`", target.trim().trim_matches('`'));
    }
    let (target, text) = target.trim().split_once([' ', '|']).unwrap_or((target.trim(), ""));
    match text.trim_start_matches([' ', '|']).trim() {
        "" if target.contains("://") => String::new(),
        "" => format!("`{}`", target.trim_matches('`')),
        text => text.to_string(),
    }
}

/// Replaces `[text](address)` by `text`; removes bare addresses.
fn unlinked(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(middle) = rest.find("](") {
        let (before, after) = (&rest[..middle], &rest[middle + 2..]);
        let (Some(open), Some(close)) = (before.rfind('['), after.find(')')) else {
            break;
        };
        text.push_str(&before[..open]);
        text.push_str(&before[open + 1..]);
        rest = &after[close + 1..];
    }
    text.push_str(rest);
    let kept: Vec<&str> = text.split(' ').filter(|word| !word.contains("://")).collect();
    kept.join(" ")
}

/// The position of the brace that closes one opened before `text`.
pub(super) fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })
}
