//! The ways of failing that the paper names, counted over samples: the Markdown loop, prose instead of code, and
//! methods that no library has (arXiv 2509.14373, its section on qualitative failures).
//!
//! They describe what a model writes; no verdict depends on them.

mod methods;

use crate::problem::{Problem, Program};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use methods::Invented;

/// The methods that `code` calls and that neither it declares, nor JavaScript's library has, nor `known` holds.
pub fn unknown_methods(code: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let program = Program { text: code.to_owned(), tests_at: code.len() };
    let Invented { library, private } = methods::invented(&program, 0);
    let own = |name: &String| name.rsplit('.').next().is_some_and(|name| known.contains(name));
    library.into_iter().chain(private).filter(|name| !own(name)).collect()
}

/// How many samples of a model show each signature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signatures {
    /// The answer ends in the same fenced block, or piece of one, again and again.
    pub markdown_loops: usize,
    /// The answer is text about code, and no code.
    pub prose: usize,
    /// Calls a method that JavaScript's own library does not have.
    pub invented_methods: usize,
    /// Calls a method that a class given with the problem does not have.
    pub invented_private: usize,
    /// Invented names, with the number of samples that call them.
    pub names: BTreeMap<String, usize>,
}

impl Signatures {
    /// Adds a sample: what the model wrote, and the completion that it amounts to. Methods are looked at in TypeScript
    /// and JavaScript.
    pub fn add(&mut self, problem: &Problem, answer: &str, completion: &str) {
        self.markdown_loops += usize::from(is_markdown_loop(answer));
        self.prose += usize::from(is_prose(answer));
        let invented = match problem.language.as_str() {
            "ts" | "js" => methods::invented(&problem.program(completion), problem.prompt.len()),
            _ => Invented::default(),
        };
        self.invented_methods += usize::from(!invented.library.is_empty());
        self.invented_private += usize::from(!invented.private.is_empty());
        for name in invented.library.into_iter().chain(invented.private) {
            *self.names.entry(name).or_default() += 1;
        }
    }
}

/// Whether `text` ends in three or more copies of the same lines, a fence among them. The last copy may be cut off.
fn is_markdown_loop(text: &str) -> bool {
    const COPIES: usize = 3;
    const LINES: usize = 24;
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    (1..=LINES.min(lines.len() / COPIES)).any(|period| {
        // Every line is that of a period before; the last one may be a beginning of it.
        let same = |i: usize| {
            let (line, before) = (lines[lines.len() - 1 - i], lines[lines.len() - 1 - i - period]);
            line == before || i == 0 && before.starts_with(line)
        };
        let repeated = (COPIES - 1) * period;
        let copy = &lines[lines.len() - period..];
        lines.len() >= repeated + period && (0..repeated).all(same) && copy.iter().any(|l| l.contains("```"))
    })
}

/// Whether most of what is written is sentences, with no fenced block.
fn is_prose(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let sentences = lines.iter().filter(|line| is_sentence(line)).count();
    !lines.is_empty() && !text.contains("```") && 2 * sentences > lines.len()
}

/// Four words or more, and nothing of a program's punctuation; a comment is code.
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
    fn prose_is_sentences_and_no_code() {
        assert!(is_prose("To solve this problem we need to sort the list.\nThen we take the first element."));
        assert!(!is_prose("  // To solve this problem we need to sort the list.\n  return xs.sort()[0];\n}"));
        assert!(!is_prose(
            "Here is the function that you asked for:\n```ts\nconst a = 1;\n```\nIt returns a number."
        ));
        assert!(!is_prose("  return xs.map((x) => x + 1);\n}") && !is_prose("") && !is_prose("Sorry."));
    }
}
