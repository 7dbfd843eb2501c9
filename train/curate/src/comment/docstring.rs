//! Python's docstrings: sections in Google's and in NumPy's form, and reStructuredText's fields.

use super::doc::Doc;
use super::prose::{flat, prose, push_paragraph};

/// Headings of sections, and what they hold.
const HEADINGS: [(Part, &[&str]); 4] = [
    (
        Part::Params,
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
    (Part::Returns, &["returns", "return", "yields", "yield"]),
    (Part::Raises, &["raises", "raise", "throws"]),
    (
        Part::Other,
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
enum Part {
    Description,
    Params,
    Returns,
    Raises,
    Other,
}

/// The lines of a string literal, moved left as far as they all go.
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

/// Reads lines without marks.
pub fn parse(lines: &[&str]) -> Doc {
    let mut doc = Doc::default();
    for (part, body) in sections(&without_examples(lines)) {
        let entries = entries(&body);
        match part {
            Part::Description => push_paragraph(&mut doc.description, &plain(&body)),
            Part::Params => doc.params.extend(entries.iter().filter_map(|entry| param(entry))),
            Part::Returns => doc.returns = returned(&body, &entries),
            Part::Raises => doc.throws.extend(entries.iter().map(|entry| raised(entry))),
            Part::Other => {}
        }
    }
    let text = lines.join("\n");
    fields(&text, &mut doc);
    doc.deprecated = text.contains(".. deprecated::");
    doc
}

/// Without doctests (`>>>` and what it prints, to the next empty line), fenced code and directives.
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

/// Splits at headings: `Args:` over indented lines, or a name over a rule. Fields end the text.
fn sections<'a>(lines: &[&'a str]) -> Vec<(Part, Vec<&'a str>)> {
    let mut sections = vec![(Part::Description, Vec::new())];
    let mut ends_at: Option<usize> = None;
    let mut lines = lines.iter().copied().peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if field(trimmed).is_some() {
            break;
        }
        if ends_at.is_some_and(|at| !trimmed.is_empty() && indent(line) <= at) {
            sections.push((Part::Description, Vec::new()));
            ends_at = None;
        }
        let ruled = |next: &&str| next.trim().len() > 2 && next.trim().trim_matches(['-', '=']).is_empty();
        let name = trimmed.strip_suffix(':').unwrap_or(trimmed).to_lowercase();
        let known = HEADINGS.iter().find(|(_, names)| names.contains(&name.as_str()));
        match known.filter(|_| trimmed.ends_with(':') || lines.peek().is_some_and(ruled)) {
            Some((part, _)) => {
                // A section over a rule goes on to the next heading.
                ends_at = lines.next_if(ruled).is_none().then(|| indent(line));
                sections.push((*part, Vec::new()));
            }
            None => sections.last_mut().expect("starts with one").1.push(line),
        }
    }
    sections
}

/// A head, and the lines below it that are indented further.
type Entry<'a> = (&'a str, Vec<&'a str>);

fn entries<'a>(body: &[&'a str]) -> Vec<Entry<'a>> {
    let lines: Vec<&str> = body.iter().filter(|line| !line.trim().is_empty()).copied().collect();
    let least = lines.iter().map(|line| indent(line)).min().unwrap_or(0);
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        match entries.last_mut().filter(|_| indent(line) > least) {
            Some((_, more)) => more.push(line.trim()),
            None => entries.push((line.trim(), Vec::new())),
        }
    }
    entries
}

/// `x (int): meaning`, or `x : int` over the meaning.
fn param((head, more): &Entry) -> Option<(String, String)> {
    let (name, meaning) = split_at_colon(head).unwrap_or((head, ""));
    let numpy = name.ends_with(' ') || !head.contains(':');
    let name = name.split(['(', ',', ' ']).next().unwrap_or(name).trim_matches(['`', '*']);
    let mut words = if numpy { Vec::new() } else { vec![meaning] };
    words.extend(more);
    let meaning = flat(plain(&words));
    (!name.is_empty() && meaning.contains(char::is_alphabetic)).then(|| (name.to_string(), meaning))
}

/// `int: meaning`, the meaning alone, or a type over the meaning.
fn returned(body: &[&str], entries: &[Entry]) -> String {
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

fn raised((head, more): &Entry) -> String {
    let colon = if more.is_empty() || head.contains(':') { "" } else { ":" };
    flat(plain(&[&format!("{head}{colon}"), more.join(" ").as_str()]))
}

/// Parts a head at its first colon outside of brackets.
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

/// `:param int x: meaning` as (`param`, `int x`, `meaning`).
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

/// Reads reStructuredText's fields, each with the lines that go on with it.
fn fields(text: &str, doc: &mut Doc) {
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

/// Prose without reStructuredText's roles and double back quotes.
fn plain(lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| without_roles(line)).collect();
    prose(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// :class:`Stack` as `Stack`.
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
