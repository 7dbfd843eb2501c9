//! JSDoc, Javadoc and Doxygen: `@param x meaning` and `\param x meaning`.

use super::doc::DocComment;
use super::prose::{closing_brace, flat, prose, push_paragraph};

/// Parses lines without comment markers.
pub fn parse(lines: &[&str]) -> DocComment {
    let mut doc = DocComment::default();
    let (mut summary, mut described) = (String::new(), String::new());
    for (tag, body) in sections(lines) {
        match tag.as_str() {
            "" => doc.description = prose(&body),
            "brief" | "short" => push_paragraph(&mut doc.description, &prose(&body)),
            "description" | "desc" | "remarks" | "details" => push_paragraph(&mut described, &prose(&body)),
            "summary" => summary = prose(&body),
            "param" | "arg" | "argument" | "tparam" => doc.params.extend(param(&body)),
            "return" | "returns" | "result" => doc.returns = flat(after_type(&body)),
            "throw" | "throws" | "exception" => {
                doc.throws.extend(Some(flat(after_type(&body))).filter(|t| !t.is_empty()))
            }
            "deprecated" => doc.deprecated = true,
            _ => {}
        }
    }
    let rest = if described.is_empty() { summary } else { described };
    if !doc.description.contains(&rest) {
        push_paragraph(&mut doc.description, &rest);
    }
    doc
}

/// Replaces Javadoc's HTML by line breaks, bullets and plain text.
pub fn without_html(comment: &str) -> String {
    const REMOVED: [&str; 16] =
        ["ul", "ol", "i", "b", "em", "strong", "code", "pre", "tt", "li", "p", "br", "h1", "h2", "h3", "a"];
    let mut text = String::new();
    let mut rest = comment;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        let name =
            tag.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
        match tag.find('>').filter(|_| REMOVED.contains(&name.to_lowercase().as_str())) {
            Some(end) => {
                text.push_str(match &tag[..end] {
                    "p" | "br" | "p/" | "br/" => "\n\n",
                    "li" => "\n- ",
                    _ => "",
                });
                rest = &tag[end + 1..];
            }
            None => {
                text.push('<');
                rest = tag;
            }
        }
    }
    text.push_str(rest);
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&nbsp;", " "), ("&amp;", "&")]
        .iter()
        .fold(text, |text, (entity, plain)| text.replace(entity, plain))
}

/// Splits at block tags, lines that start with `@name` or `\name`; the text before the first has the tag "". Fenced
/// code is removed, including decorators, which look like tags.
fn sections<'a>(lines: &[&'a str]) -> Vec<(String, Vec<&'a str>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    let mut fenced = false;
    for line in lines {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
        } else if fenced {
            continue;
        } else if let Some(tagged) =
            trimmed.strip_prefix(['@', '\\']).filter(|t| t.starts_with(char::is_alphabetic))
        {
            let end = tagged.find(|c: char| !c.is_alphanumeric()).unwrap_or(tagged.len());
            sections.push((tagged[..end].to_lowercase(), vec![&tagged[end..]]));
        } else {
            sections.last_mut().expect("starts with one").1.push(line);
        }
    }
    sections
}

/// The first paragraph of a tag as prose, without its `{type}` and a dash.
fn after_type(body: &[&str]) -> String {
    let text = body.join("\n");
    // Doxygen's direction: `@param[in]`.
    let text = text.strip_prefix('[').and_then(|t| Some(t.split_once(']')?.1)).unwrap_or(&text);
    let text = text.trim_start();
    let text = match text.strip_prefix('{').filter(|t| !t.starts_with('@')) {
        Some(typed) => &typed[closing_brace(typed).map_or(0, |end| end + 1)..],
        None => text,
    };
    let text = text.trim_start().trim_start_matches(['-', ':']).trim_start();
    prose(&text.lines().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>())
}

/// Parses `{type} name - meaning`, `[name=default] meaning` or `name meaning`; `None` without a meaning.
pub(super) fn param(body: &[&str]) -> Option<(String, String)> {
    let text = after_type(body);
    let (name, meaning) = text.split_once(char::is_whitespace)?;
    let name = name.trim_matches(['[', ']', '`', ':']).split('=').next().unwrap_or(name);
    let meaning = flat(meaning.trim_start().trim_start_matches(['-', ':', '–', '—']).to_string());
    (!name.is_empty() && meaning.contains(char::is_alphabetic)).then(|| (name.to_string(), meaning))
}
