//! The failure modes that the paper names, counted over samples: Markdown loops, prose instead of code, and invented
//! methods (arXiv 2509.14373, its section on qualitative failures).
//!
//! They describe a model's output; no verdict depends on them.

mod invented_methods;

use crate::problem::{CandidateProgram, Problem};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use invented_methods::{InventedMethods, find_invented_methods};

/// Returns the methods that `code` calls although neither the code itself nor JavaScript's library declares them,
/// without those in `known`. Code that is too long to examine has none.
pub fn unknown_methods(code: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let program = CandidateProgram { text: code.to_owned(), tests_at: code.len() };
    let InventedMethods { library, private } = find_invented_methods(&program, 0).unwrap_or_default();
    let is_known = |name: &String| name.rsplit('.').next().is_some_and(|name| known.contains(name));
    library.into_iter().chain(private).filter(|name| !is_known(name)).collect()
}

/// The number of samples of a model with each failure mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailureModes {
    /// The answer ends in repetitions of the same fenced block or of a part of one.
    pub markdown_loops: usize,
    /// The answer is text about code without code.
    pub prose: usize,
    /// The completion calls a method that JavaScript's own library does not have.
    pub invented_methods: usize,
    /// The completion calls a method that a class given with the problem does not have.
    pub invented_private: usize,
    /// Programs that are too long to look for invented methods in them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unexamined: usize,
    /// Invented names with the number of samples that call them.
    pub names: BTreeMap<String, usize>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl FailureModes {
    /// The names most often invented, and what was not examined, in one line.
    pub fn most_invented(&self, most: usize) -> String {
        let mut names: Vec<(&String, &usize)> = self.names.iter().collect();
        names.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let names = names.iter().take(most).map(|(name, n)| format!("{name} ({n})"));
        let unexamined = (self.unexamined > 0).then(|| format!("{} too long to examine", self.unexamined));
        names.chain(unexamined).collect::<Vec<_>>().join(", ")
    }

    /// Adds a sample: the model's answer, and the completion extracted from it. Invented methods are found in
    /// TypeScript and JavaScript only.
    pub fn add(&mut self, problem: &Problem, answer: &str, completion: &str) {
        self.markdown_loops += usize::from(is_markdown_loop(answer));
        self.prose += usize::from(is_prose(answer));
        let invented = match problem.language.as_str() {
            "ts" | "js" => find_invented_methods(&problem.program(completion), problem.prompt.len()),
            _ => Some(InventedMethods::default()),
        };
        self.unexamined += usize::from(invented.is_none());
        let invented = invented.unwrap_or_default();
        self.invented_methods += usize::from(!invented.library.is_empty());
        self.invented_private += usize::from(!invented.private.is_empty());
        for name in invented.library.into_iter().chain(invented.private) {
            *self.names.entry(name).or_default() += 1;
        }
    }
}

/// Returns true if `text` ends in three or more copies of the same lines with a fence among them. The last copy may
/// be cut off.
fn is_markdown_loop(text: &str) -> bool {
    const COPIES: usize = 3;
    const LINES: usize = 24;
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    (1..=LINES.min(lines.len() / COPIES)).any(|period| {
        // Every line equals the line one period before; the last one may be a prefix of it.
        let repeats = |i: usize| {
            let (line, before) = (lines[lines.len() - 1 - i], lines[lines.len() - 1 - i - period]);
            line == before || i == 0 && before.starts_with(line)
        };
        let repeated = (COPIES - 1) * period;
        let copy = &lines[lines.len() - period..];
        lines.len() >= repeated + period
            && (0..repeated).all(repeats)
            && copy.iter().any(|l| l.contains("```"))
    })
}

/// Returns true if most lines are sentences and there is no fenced block.
fn is_prose(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let sentences = lines.iter().filter(|line| is_sentence(line)).count();
    !lines.is_empty() && !text.contains("```") && 2 * sentences > lines.len()
}

/// Returns true for a line of four words or more without the punctuation of code. A comment counts as code.
fn is_sentence(line: &str) -> bool {
    let comment = ["//", "/*", "*", "#"].iter().any(|mark| line.starts_with(mark));
    let words = line.split_whitespace().filter(|word| word.chars().filter(|c| c.is_alphabetic()).count() > 1);
    !comment && words.count() >= 4 && !line.contains(['{', '}', ';', '=', '<', '>', '[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_ends_in_copies_of_a_fenced_block() {
        let block = "```typescript\nfunction f() {\n  return 1;\n}\n```\n";
        assert!(is_markdown_loop(&format!("Sure.\n{}", block.repeat(4))));
        assert!(is_markdown_loop(&format!("{}```typescript\nfunc", block.repeat(3))), "the last is cut off");
        assert!(is_markdown_loop(&"```\n".repeat(9)));
        assert!(!is_markdown_loop(&format!("{block}Or:\n{block}")));
        assert!(!is_markdown_loop(&"  x += 1;\n".repeat(20)), "no fence");
        assert!(!is_markdown_loop("") && !is_markdown_loop(block));
    }

    #[test]
    fn prose_is_sentences_without_code() {
        assert!(is_prose("To solve this problem we need to sort the list.\nThen we take the first element."));
        assert!(!is_prose("  // To solve this problem we need to sort the list.\n  return xs.sort()[0];\n}"));
        assert!(!is_prose(
            "Here is the function that you asked for:\n```ts\nconst a = 1;\n```\nIt returns a number."
        ));
        assert!(!is_prose("  return xs.map((x) => x + 1);\n}") && !is_prose("") && !is_prose("Sorry."));
    }
}
