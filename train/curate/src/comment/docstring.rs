//! Python docstrings: sections in the Google and NumPy conventions, and reStructuredText fields.

use super::doc::DocComment;
use super::prose::{flat, prose, push_paragraph};

/// The headings of each section.
const HEADINGS: [(Section, &[&str]); 4] = [
    (
        Section::Params,
        &[
            "args",
            "arguments",
            "parameters",
            "params",
            "keyword args",
            "keyword arguments",
            "other parameters",
        ],
    ),
    (Section::Returns, &["returns", "return", "yields", "yield"]),
    (Section::Raises, &["raises", "raise", "throws"]),
    (
        Section::Other,
        &[
            "example",
            "examples",
            "note",
            "notes",
            "warning",
            "warnings",
            "warns",
            "see also",
            "references",
            "attributes",
            "todo",
            "methods",
            "usage",
            "doctest",
            "doctests",
            "tests",
        ],
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Description,
    Params,
    Returns,
    Raises,
    Other,
}

/// The lines of a string literal without their common indentation.
pub fn unquoted(literal: &str) -> Vec<&str> {
    let text = literal.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| text.starts_with(quote)).unwrap_or("");
    let text = text.strip_prefix(quote).unwrap_or(text);
    let text = text.strip_suffix(quote).unwrap_or(text);
    let later = text.lines().skip(1).filter(|line| !line.trim().is_empty());
    let common = later.map(indent).min().unwrap_or(0);
    let mut lines: Vec<&str> =
        text.lines().map(|line| line.get(common.min(indent(line))..).unwrap_or("")).collect();
    if let Some(first) = lines.first_mut() {
        *first = text.lines().next().unwrap_or("").trim_start();
    }
    lines
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// Parses lines without quotes and comment markers.
pub fn parse(lines: &[&str]) -> DocComment {
    let mut doc = DocComment::default();
    for (part, body) in sections(&without_examples(lines)) {
        let entries = split_entries(&body);
        match part {
            Section::Description => push_paragraph(&mut doc.description, &plain(&body)),
            Section::Params => doc.params.extend(entries.iter().filter_map(|entry| param(entry))),
            Section::Returns => doc.returns = parse_returns(&body, &entries),
            Section::Raises => doc.throws.extend(entries.iter().map(|entry| parse_raises(entry))),
            Section::Other => {}
        }
    }
    let text = lines.join("\n");
    fields(&text, &mut doc);
    doc.deprecated = text.contains(".. deprecated::");
    doc
}

/// Removes doctests (`>>>` and their output, to the next empty line), fenced code and directives.
fn without_examples<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let (mut fenced, mut printed) = (false, false);
    let mut kept = Vec::new();
    for line in lines {
        let trimmed = line.trim();
        printed = (printed || trimmed.starts_with(">>>")) && !trimmed.is_empty();
        if trimmed.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !printed && !trimmed.starts_with(".. ") {
            kept.push(*line);
        }
    }
    kept
}

/// Splits at headings: `Args:` before indented lines, or a name above a rule. Fields end the text.
fn sections<'a>(lines: &[&'a str]) -> Vec<(Section, Vec<&'a str>)> {
    let mut sections = vec![(Section::Description, Vec::new())];
    let mut ends_at: Option<usize> = None;
    let mut lines = lines.iter().copied().peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if field(trimmed).is_some() {
            break;
        }
        if ends_at.is_some_and(|at| !trimmed.is_empty() && indent(line) <= at) {
            sections.push((Section::Description, Vec::new()));
            ends_at = None;
        }
        let ruled = |next: &&str| next.trim().len() > 2 && next.trim().trim_matches(['-', '=']).is_empty();
        let name = trimmed.strip_suffix(':').unwrap_or(trimmed).to_lowercase();
        let known = HEADINGS.iter().find(|(_, names)| names.contains(&name.as_str()));
        match known.filter(|_| trimmed.ends_with(':') || lines.peek().is_some_and(ruled)) {
            Some((part, _)) => {
                // A section with a rule extends to the next heading.
                ends_at = lines.next_if(ruled).is_none().then(|| indent(line));
                sections.push((*part, Vec::new()));
            }
            None => sections.last_mut().expect("starts with one").1.push(line),
        }
    }
    sections
}

/// The first line of an entry, and the lines below it that are indented further.
type SectionEntry<'a> = (&'a str, Vec<&'a str>);

/// Splits a section into entries, which start at its least indented lines.
fn split_entries<'a>(body: &[&'a str]) -> Vec<SectionEntry<'a>> {
    let lines: Vec<&str> = body.iter().filter(|line| !line.trim().is_empty()).copied().collect();
    let min_indent = lines.iter().map(|line| indent(line)).min().unwrap_or(0);
    let mut entries: Vec<SectionEntry> = Vec::new();
    for line in lines {
        match entries.last_mut().filter(|_| indent(line) > min_indent) {
            Some((_, more)) => more.push(line.trim()),
            None => entries.push((line.trim(), Vec::new())),
        }
    }
    entries
}

/// Parses `x (int): meaning`, or `x : int` above the meaning.
fn param((head, more): &SectionEntry) -> Option<(String, String)> {
    let (name, meaning) = split_at_colon(head).unwrap_or((head, ""));
    let numpy = name.ends_with(' ') || !head.contains(':');
    let name = name.split(['(', ',', ' ']).next().unwrap_or(name).trim_matches(['`', '*']);
    let mut words = if numpy { Vec::new() } else { vec![meaning] };
    words.extend(more);
    let meaning = flat(plain(&words));
    (!name.is_empty() && meaning.contains(char::is_alphabetic)).then(|| (name.to_string(), meaning))
}

/// Parses `int: meaning`, the meaning alone, or a type above the meaning.
fn parse_returns(body: &[&str], entries: &[SectionEntry]) -> String {
    let text = match entries {
        [(head, more)]
            if split_at_colon(head).is_none_or(|(name, _)| name.ends_with(' '))
                && !more.is_empty()
                && !head.contains(' ') =>
        {
            more.clone()
        }
        [(head, more)] if head.contains(" : ") && !more.is_empty() => more.clone(),
        [(head, more)] => {
            let typed = split_at_colon(head).filter(|(kind, rest)| !kind.contains(' ') && !rest.is_empty());
            [typed.map_or(*head, |(_, rest)| rest)].into_iter().chain(more.iter().copied()).collect()
        }
        _ => body.to_vec(),
    };
    flat(plain(&text))
}

/// Parses an error and its meaning.
fn parse_raises((head, more): &SectionEntry) -> String {
    let colon = if more.is_empty() || head.contains(':') { "" } else { ":" };
    flat(plain(&[&format!("{head}{colon}"), more.join(" ").as_str()]))
}

/// Splits a line at its first colon outside brackets.
fn split_at_colon(head: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    let at = head.char_indices().find_map(|(at, c)| {
        depth += match c {
            '(' | '[' => 1,
            ')' | ']' => -1,
            _ => 0,
        };
        (c == ':' && depth == 0).then_some(at)
    })?;
    Some((&head[..at], head[at + 1..].trim()))
}

/// Parses `:param int x: meaning` as (`param`, `int x`, `meaning`).
fn field(line: &str) -> Option<(&str, &str, &str)> {
    let (inside, meaning) = line.strip_prefix(':')?.split_once(':')?;
    let (kind, what) = inside.split_once(' ').unwrap_or((inside, ""));
    let known = [
        "param",
        "parameter",
        "arg",
        "argument",
        "key",
        "keyword",
        "type",
        "return",
        "returns",
        "rtype",
        "raise",
        "raises",
        "except",
        "exception",
    ];
    known.contains(&kind).then(|| (kind, what, meaning.trim()))
}

/// Parses reStructuredText fields, each with its continuation lines.
fn fields(text: &str, doc: &mut DocComment) {
    let mut found: Vec<(&str, &str, String)> = Vec::new();
    let mut open = false;
    for line in text.lines().map(str::trim) {
        match (field(line), found.last_mut()) {
            (Some((kind, what, meaning)), _) => found.push((kind, what, meaning.to_string())),
            (None, Some((_, _, meaning))) if open => {
                meaning.push(' ');
                meaning.push_str(line);
            }
            _ => {}
        }
        open = !line.is_empty() && !found.is_empty() && (open || field(line).is_some());
    }
    for (kind, what, meaning) in found {
        let meaning = flat(plain(&[&meaning]));
        match kind {
            "type" | "rtype" => {}
            "return" | "returns" => doc.returns = meaning,
            "raise" | "raises" | "except" | "exception" => doc.throws.push(format!("{what}: {meaning}")),
            _ if meaning.is_empty() => {}
            _ => doc.params.push((what.rsplit(' ').next().unwrap_or(what).to_string(), meaning)),
        }
    }
}

/// Prose without reStructuredText roles and double back quotes.
fn plain(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| without_roles(line)).collect();
    prose(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Replaces :class:`Stack` by `Stack`.
fn without_roles(line: &str) -> String {
    let line = line.replace("``", "`");
    let mut text = String::new();
    let mut rest = line.as_str();
    while let Some((before, after)) = rest.split_once(":`") {
        let role = before.rfind(':').filter(|at| before[at + 1..].bytes().all(|b| b.is_ascii_lowercase()));
        text.push_str(role.map_or(before, |at| &before[..at]));
        text.push_str(if role.is_some() { "`" } else { ":`" });
        rest = after;
    }
    text + rest
}
