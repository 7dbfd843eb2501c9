//! Comments as prose: JSDoc and line comments, freed of markers, tags and markup.

/// What a comment says about the declaration under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doc {
    /// Paragraphs and list items, one a line; paragraphs are parted by an empty line.
    pub description: String,
    /// Name and meaning of each described parameter.
    pub params: Vec<(String, String)>,
    pub returns: String,
    pub throws: Vec<String>,
    pub deprecated: bool,
}

/// Directives to tools; they tell a reader nothing.
const DIRECTIVES: [&str; 14] = [
    "eslint",
    "deno-lint",
    "deno-fmt",
    "biome-ignore",
    "prettier-ignore",
    "oxlint",
    "tslint",
    "@ts-",
    "istanbul",
    "c8 ",
    "v8 ",
    "#__",
    "@__",
    "#region",
];

impl Doc {
    /// Reads one comment: a `/* … */` block or lines that each begin with `//`.
    pub fn parse(comment: &str) -> Doc {
        let mut doc = Doc::default();
        let (mut summary, mut described) = (String::new(), String::new());
        for (tag, body) in sections(&unmarked(comment)) {
            match tag.as_str() {
                "" => doc.description = prose(&body),
                "description" | "desc" | "remarks" => push_paragraph(&mut described, &prose(&body)),
                "summary" => summary = prose(&body),
                "param" | "arg" | "argument" => doc.params.extend(param(&body)),
                "return" | "returns" => doc.returns = flat(after_type(&body)),
                "throws" | "exception" => {
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

    /// Words of the description.
    pub fn words(&self) -> usize {
        self.description.split_whitespace().count()
    }
}

fn push_paragraph(text: &mut String, paragraph: &str) {
    if !text.is_empty() && !paragraph.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(paragraph);
}

/// The lines of a comment without `/**`, `*`, `*/`, `//`, and without directives.
pub(super) fn unmarked(comment: &str) -> Vec<&str> {
    let block = comment.trim_start().starts_with("/*");
    comment
        .trim()
        .trim_start_matches("/*")
        .trim_end_matches("*/")
        .lines()
        .map(|line| {
            let line = line.trim();
            let bare = line.trim_start_matches(if block { '*' } else { '/' });
            bare.strip_prefix(' ').unwrap_or(bare).trim_end()
        })
        .filter(|line| !DIRECTIVES.iter().any(|d| line.trim_start().starts_with(d)))
        .collect()
}

/// Splits at block tags, a tag being a line that starts with `@name`; what comes first has the tag "".
/// Fenced code is left out, with any tag-like line (a decorator) inside it.
fn sections<'a>(lines: &[&'a str]) -> Vec<(String, Vec<&'a str>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    let mut fenced = false;
    for line in lines {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fenced = !fenced;
        } else if fenced {
            continue;
        } else if let Some(tagged) = trimmed.strip_prefix('@').filter(|t| t.starts_with(char::is_alphabetic))
        {
            let end = tagged.find(|c: char| !c.is_alphanumeric()).unwrap_or(tagged.len());
            sections.push((tagged[..end].to_lowercase(), vec![&tagged[end..]]));
        } else {
            sections.last_mut().expect("starts with one").1.push(line);
        }
    }
    sections
}

/// Lines joined to paragraphs and list items; headings, rules and lines that announce an example go.
fn prose(lines: &[&str]) -> String {
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

/// `Example:`, `For example:`, `Usage:` and the like, whose code was left out.
fn announces_example(line: &str) -> bool {
    let line = line.to_lowercase();
    line.ends_with(':')
        && line.split_whitespace().count() <= 3
        && (line.contains("example") || line.contains("usage"))
}

/// A bullet or a number.
fn starts_item(line: &str) -> bool {
    let numbered = line.split_once(['.', ')']).is_some_and(|(n, rest)| {
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with(' ')
    });
    numbered || line.starts_with("- ") || line.starts_with("* ")
}

fn flat(text: String) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first paragraph of a tag as prose, after its `{type}` and a dash.
fn after_type(body: &[&str]) -> String {
    let text = body.join("\n");
    let text = text.trim_start();
    let text = match text.strip_prefix('{').filter(|t| !t.starts_with('@')) {
        Some(typed) => &typed[closing_brace(typed).map_or(0, |end| end + 1)..],
        None => text,
    };
    let text = text.trim_start().trim_start_matches(['-', ':']).trim_start();
    prose(&text.lines().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>())
}

/// Where the brace that was opened before `text` is closed.
fn closing_brace(text: &str) -> Option<usize> {
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

/// `{type} name - meaning`, `[name=default] meaning`, `name meaning`; `None` when nothing is said of it.
fn param(body: &[&str]) -> Option<(String, String)> {
    let text = after_type(body);
    let (name, meaning) = text.split_once(char::is_whitespace)?;
    let name = name.trim_matches(['[', ']', '`', ':']).split('=').next().unwrap_or(name);
    let meaning = flat(meaning.trim_start().trim_start_matches(['-', ':', '–', '—']).to_string());
    (!name.is_empty() && meaning.contains(char::is_alphabetic)).then(|| (name.to_string(), meaning))
}

/// Inline tags to code, links to their text, tags and emphasis away.
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
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `link Target`, `link Target | text`, `linkcode Target text`: the text, or the target as code.
fn inline_tag(tag: &str) -> String {
    let (_, target) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let (target, text) = target.trim().split_once([' ', '|']).unwrap_or((target.trim(), ""));
    match text.trim_start_matches([' ', '|']).trim() {
        "" if target.contains("://") => String::new(),
        "" => format!("`{}`", target.trim_matches('`')),
        text => text.to_string(),
    }
}

/// `[text](address)` to `text`; bare addresses away.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jsdoc_becomes_prose() {
        let doc = Doc::parse(
            "/**\n * Adds **two** numbers, see {@link\n * subtract} and\n * [the docs](https://a.b/c).\n *\n * - first\n * - second\n *\n \
             * Example:\n * ```ts\n * @decorated\n * add(1, 2);\n * ```\n * @param {number} a - The first\n *   number\n *\n * See below.\n \
             * @param [b=1] the second\n * @param c\n * @returns {Map<string, {x: number}>} The sum\n * @throws {RangeError} when negative\n \
             * @example add(1, 2)\n * @since 2.0\n */",
        );
        assert_eq!(doc.description, "Adds two numbers, see `subtract` and the docs.\n- first\n- second");
        let params = [("a", "The first number"), ("b", "the second")];
        assert_eq!(doc.params, params.map(|(a, b)| (a.to_string(), b.to_string())));
        assert_eq!(
            (doc.returns.as_str(), doc.throws.as_slice()),
            ("The sum", &["when negative".to_string()][..])
        );
        assert!(!doc.deprecated);
    }

    #[test]
    fn tagged_descriptions_count_and_a_repeated_summary_does_not() {
        let doc = Doc::parse(
            "/**\n * @name f\n * @summary Add days.\n *\n * @description\n * Add days.\n * @deprecated\n */",
        );
        assert_eq!((doc.description.as_str(), doc.deprecated), ("Add days.", true));
        let doc = Doc::parse("/** @summary Add days. */");
        assert_eq!(doc.description, "Add days.");
    }

    #[test]
    fn line_comments_lose_their_slashes_and_directives() {
        let doc = Doc::parse("// eslint-disable-next-line no-x\n// Joins the parts\n// of a path.");
        assert_eq!(doc.description, "Joins the parts of a path.");
        assert_eq!(Doc::parse("// @ts-expect-error hard to type"), Doc::default());
    }

    #[test]
    fn unclosed_markup_is_kept_as_it_is() {
        assert_eq!(Doc::parse("/** a {@link b */").description, "a {@link b");
        assert_eq!(Doc::parse("/** a [b](c */").description, "a [b](c");
        assert_eq!(Doc::parse("/** @returns {x */").returns, "x");
    }
}
