//! The code blocks of a comment: fenced code, the text of `@example` tags, and lines of prose that are plainly examples.

use super::value::VALUE_MARKERS;

/// Prompts of an interactive session before a call, whose value is on the next line.
const PROMPTS: [&str; 3] = [">>> ", ">> ", "> "];
/// Markers that make a line of prose an example.
const ARROWS: [&str; 5] = ["=>", "->", "→", "===", "=="];

/// A block of a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// The code, each line with its number in the comment.
    pub lines: Vec<(usize, &'a str)>,
    /// The numbers of the lines around it: fences, and the tag.
    pub frame: Vec<usize>,
    /// True for lines of prose, of which only plain examples count.
    prose: bool,
}

impl<'a> Block<'a> {
    /// Splits a comment without markers into its blocks; the last one holds its prose before the first tag.
    pub fn split(comment: &[&'a str]) -> Vec<Block<'a>> {
        let mut blocks = vec![Block::default()];
        let mut prose = Block { prose: true, ..Block::default() };
        let (mut fenced, mut example, mut tagged) = (false, false, false);
        for (at, line) in comment.iter().enumerate() {
            let trimmed = line.trim_start();
            let open = blocks.last_mut().expect("starts with one");
            if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
                // The tag before a fence belongs to it.
                let tag =
                    if !fenced && open.is_blank() { std::mem::take(&mut open.frame) } else { Vec::new() };
                open.frame.extend(fenced.then_some(at));
                fenced = !fenced;
                let frame = tag.into_iter().chain(fenced.then_some(at)).collect();
                blocks.push(Block { frame, ..Block::default() });
            } else if let Some(tag) = trimmed.strip_prefix('@').filter(|_| !fenced) {
                (example, tagged) = (tag.starts_with("example"), true);
                let rest = tag.strip_prefix("example").unwrap_or_default();
                let code = rest.split_once("</caption>").map_or(rest, |(_, code)| code);
                let frame = if example { vec![at] } else { Vec::new() };
                blocks.push(Block { lines: vec![(at, code)], frame, prose: false });
            } else if fenced || example {
                open.lines.push((at, line));
            } else if !tagged {
                prose.lines.push((at, line));
            }
        }
        blocks.push(prose);
        blocks
    }

    fn is_blank(&self) -> bool {
        self.lines.iter().all(|(_, line)| line.trim().is_empty())
    }

    /// The block as TypeScript, line by line, in which every value of a call of `name` is in a comment after the call:
    /// `f(x) === y`, `>> f(x)` above `y`.
    pub fn code(&self, name: &str) -> String {
        let mut code = String::new();
        let mut answers = false;
        for (_, line) in &self.lines {
            let answer = answers && !line.trim().is_empty() && !line.trim_start().starts_with("//");
            let example = example_line(line, name);
            answers = matches!(example, Some(ExampleLine { answered: false, .. }));
            match example {
                Some(example) => code.push_str(&example.text),
                None if answer => code.push_str(&format!("// => {}", line.trim())),
                None if self.prose => {}
                None => code.push_str(line),
            }
            code.push('\n');
        }
        code
    }
}

/// A line that is a call with its value, or a call at a prompt.
struct ExampleLine {
    text: String,
    /// False if the value is on the next line.
    answered: bool,
}

/// Reads `f(x) => y`, `f(x) === y`, `f(x) returns y` and `>> f(x)`, after a bullet or in code quotes.
fn example_line(line: &str, name: &str) -> Option<ExampleLine> {
    let line = line.trim_start_matches(['-', '*', '`', ' ', '\t']);
    let prompted = PROMPTS.iter().find_map(|prompt| line.strip_prefix(prompt));
    let text = prompted.unwrap_or(line).trim_start();
    let arguments = text.strip_prefix("await ").unwrap_or(text).strip_prefix(name)?;
    let (call, rest) = text.split_at(text.len() - arguments.len() + arguments_length(arguments)?);
    let rest = rest.trim_matches(['`', ';', ' ', '\t']);
    if rest.is_empty() {
        return prompted.map(|_| ExampleLine { text: format!("{call};"), answered: false });
    }
    if let Some(comment) = rest.strip_prefix("//") {
        let marked = prompted.is_some() || ARROWS.iter().any(|arrow| comment.trim_start().starts_with(arrow));
        return marked.then(|| ExampleLine { text: format!("{call}; {rest}"), answered: true });
    }
    if !VALUE_MARKERS.iter().any(|marker| rest.starts_with(marker)) {
        return None;
    }
    let value = match rest.split_once(" //") {
        // `f(x) === y // true`; with another comment the line says something else.
        Some((value, comment)) => Some(value).filter(|_| comment.trim().ends_with("true"))?,
        None => rest,
    };
    let value = value.replace('`', "");
    Some(ExampleLine { text: format!("{call}; // {}", value.trim_end_matches(['.', ' '])), answered: true })
}

/// The length of the arguments that `text` begins with, brackets included; strings are skipped.
fn arguments_length(text: &str) -> Option<usize> {
    text.strip_prefix('(')?;
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', Some(_)) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'' | '`', None) => quote = Some(c),
            ('(' | '[' | '{', None) => depth += 1,
            (')' | ']' | '}', None) => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
