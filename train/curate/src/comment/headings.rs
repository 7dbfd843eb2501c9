//! Rust documentation: Markdown with the conventional headings of rustdoc.

use super::doc::DocComment;
use super::prose::{flat, prose, push_paragraph};
use super::tags::param;

/// Parses lines without comment markers.
pub fn parse(lines: &[&str]) -> DocComment {
    let mut doc = DocComment::default();
    for (heading, body) in sections(lines) {
        let linked: Vec<String> = body.iter().map(|line| without_links(line)).collect();
        let body: Vec<&str> = linked.iter().map(String::as_str).collect();
        match heading.as_str() {
            "arguments" | "parameters" | "args" => {
                doc.params = items(&body).iter().filter_map(|i| param(i)).collect()
            }
            "returns" | "return" | "return value" => doc.returns = flat(prose(&body)),
            "errors" | "panics" => doc.throws.extend(Some(flat(prose(&body))).filter(|t| !t.is_empty())),
            "example" | "examples" | "usage" | "see also" | "references" => {}
            _ => push_paragraph(&mut doc.description, &prose(&body)),
        }
    }
    doc
}

/// Splits at headings; fenced code is removed.
fn sections<'a>(lines: &[&'a str]) -> Vec<(String, Vec<&'a str>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    let mut fenced = false;
    for &line in lines {
        let trimmed = line.trim();
        let heading = trimmed.trim_start_matches('#');
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
        } else if fenced {
            continue;
        } else if heading.len() < trimmed.len() && heading.starts_with(' ') {
            sections.push((heading.trim().trim_end_matches(':').to_lowercase(), Vec::new()));
        } else {
            sections.last_mut().expect("starts with one").1.push(line);
        }
    }
    sections
}

/// The items of a list, each with its continuation lines.
fn items<'a>(body: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut items: Vec<Vec<&str>> = Vec::new();
    for line in body.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
        match (line.strip_prefix("* ").or(line.strip_prefix("- ")), items.last_mut()) {
            (Some(text), _) => items.push(vec![text]),
            (None, Some(item)) => item.push(line),
            (None, None) => {}
        }
    }
    items
}

/// Replaces links to items, [`Vec`] and [text][target], by their text; link definitions become empty.
fn without_links(line: &str) -> String {
    let defined = line.trim().strip_prefix('[').and_then(|l| l.split_once(']'));
    if defined.is_some_and(|(_, rest)| rest.starts_with(": ")) {
        return String::new();
    }
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, inside)) = rest.split_once('[') {
        let Some((name, after)) = inside.split_once(']').filter(|(name, _)| !name.contains('[')) else {
            break;
        };
        let target = after.strip_prefix('[').and_then(|t| t.split_once(']'));
        text.push_str(before);
        match (target, name.starts_with('`') && !after.starts_with('(')) {
            (None, false) => text.push_str(&format!("[{name}]")),
            _ => text.push_str(name),
        }
        rest = target.map_or(after, |(_, after)| after);
    }
    text + rest
}
