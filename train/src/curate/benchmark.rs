//! Decontamination: does a piece of code or its comment repeat a benchmark problem?
//!
//! Three signs, each enough by itself:
//!
//! - **words**: ten consecutive words of a problem's prompt. Comment markers, punctuation, case and line breaks do
//!   not count; a second index has the names of the function and its parameters blanked, so that renaming them
//!   throughout hides nothing. A description of six to nine words counts as a whole.
//! - **examples**: twenty consecutive syntax tokens of a problem's examples or tests with every identifier blanked
//!   and at least four different literals: the numbers and strings are what identifies an example.
//! - **signature**: the same function name (case and underscores aside) over the same parameter types.
//!
//! An n-gram that three or more problems share (`declare var require: any; …`) identifies none and is left out.
//! A problem carries no solution, so a bare solution under another name and without the prose cannot be known.

use super::fingerprint::{
    FEWEST_WORDS, Head, TOKENS, WORDS, blanked_tokens, grams, lex, telling_tokens, telling_words, words,
};
use crate::jsonl;
use codelsi_engine::Result;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// As many problems share no n-gram that identifies one of them.
const COMMON: usize = 3;

/// A problem in MultiPL-E's form, as far as it matters here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub name: String,
    /// A comment and the head of a function.
    pub prompt: String,
    pub tests: String,
}

/// The problems to keep out of training.
#[derive(Default)]
pub struct Benchmark {
    grams: HashSet<u64>,
    signatures: HashSet<(String, Vec<String>)>,
}

impl Benchmark {
    /// Reads problem files; errors name file and line.
    pub fn read<P: AsRef<Path>>(files: &[P]) -> Result<Benchmark> {
        let mut problems = Vec::new();
        for file in files {
            problems.extend(jsonl::read::<Problem>(file)?);
        }
        Ok(Benchmark::new(&problems))
    }

    /// Indexes the problems.
    pub fn new(problems: &[Problem]) -> Benchmark {
        let mut shared_by: HashMap<u64, usize> = HashMap::new();
        for gram in problems.iter().flat_map(problem_grams) {
            *shared_by.entry(gram).or_default() += 1;
        }
        let grams = shared_by.into_iter().filter(|&(_, n)| n < COMMON).map(|(gram, _)| gram).collect();
        let heads = problems.iter().filter_map(|p| Head::find(&lex(&p.prompt), None));
        Benchmark { grams, signatures: heads.map(|head| head.key()).collect() }
    }

    /// Whether `text` (a comment or an instruction) or `code`, which defines `name`, repeats a problem.
    pub fn contains(&self, name: &str, text: &str, code: &str) -> bool {
        if self.signatures.is_empty() && self.grams.is_empty() {
            return false;
        }
        let own_name = name.rsplit('.').next().unwrap_or(name);
        let head = Head::find(&lex(code), Some(own_name));
        if head.as_ref().is_some_and(|head| self.signatures.contains(&head.key())) {
            return true;
        }
        let text = format!("{text}\n{code}");
        let known = |gram| self.grams.contains(&gram);
        // The index holds telling n-grams only, so there is no need to ask again whether these are.
        grams(&blanked_tokens(&text), TOKENS, |_| true).any(known)
            || [None, head.as_ref()].into_iter().any(|head| {
                let words = words(&text, head);
                (FEWEST_WORDS..=WORDS).any(|n| grams(&words, n, |_| true).any(known))
            })
    }
}

/// Every n-gram that stands for a problem, once.
fn problem_grams(problem: &Problem) -> HashSet<u64> {
    let head = Head::find(&lex(&problem.prompt), None);
    let mut all = HashSet::new();
    for text in [&problem.prompt, &problem.tests] {
        all.extend(grams(&blanked_tokens(text), TOKENS, telling_tokens));
    }
    let description = description(&problem.prompt);
    for head in [None, head.as_ref()] {
        all.extend(grams(&words(&problem.prompt, head), WORDS, telling_words));
        let short = words(&description, head);
        if (FEWEST_WORDS..WORDS).contains(&short.len()) {
            all.extend(grams(&short, short.len(), telling_words));
        }
    }
    all
}

/// The prompt's prose before its examples and its code, markers removed.
fn description(prompt: &str) -> String {
    let lines = prompt.lines().map(|line| line.trim().trim_start_matches(['/', '*']).trim());
    let prose = lines
        .take_while(|l| !l.starts_with(">>>") && !l.starts_with("function ") && !l.starts_with("Example"));
    prose.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str, prose: &str, rest: &str) -> Problem {
        Problem { name: name.into(), prompt: format!("//{prose}\n{rest}"), tests: String::new() }
    }

    fn benchmark() -> Benchmark {
        Benchmark::new(&[
            problem(
                "1_intersperse",
                "Insert a number 'delimeter' between every two consecutive elements of input array `numbers`",
                "// >>> intersperse([1, 2, 3], 4)\n// [1, 4, 2, 4, 3]\n\
                 function intersperse(numbers: number[], delimeter: number): number[] {\n",
            ),
            problem("2_median", "Return median of elements in the array l.", "function median(l: number[]): number {\n"),
            Problem {
                tests: "assert.deepEqual(candidate([3, 1, 2, 4, 5], \"a\"), 3); assert.deepEqual(candidate([-10, 4]), 6);"
                    .into(),
                ..problem("3_third", "Sums.", "function third(a: string): string {\n")
            },
        ])
    }

    const BODY: &str = "function other(q: string) { return q; }";

    #[test]
    fn prose_is_known_in_any_dress_and_with_renamed_names() {
        let copy = "/**\n * insert a number 'delimeter' between every two\n * consecutive elements of input array `numbers`.\n */";
        assert!(benchmark().contains("other", copy, BODY));
        let renamed = "Insert a number `gap` between every two consecutive elements of input array `list`";
        let code = "function weave(list: number[], gap: number) {}";
        assert!(benchmark().contains("weave", renamed, code));
        assert!(!benchmark().contains(
            "weave",
            "Insert a gap between any two neighbours of a list of numbers",
            code
        ));
    }

    #[test]
    fn a_short_description_counts_as_a_whole() {
        assert!(benchmark().contains(
            "other",
            "// Return the median: return median of elements in the array l",
            BODY
        ));
        assert!(!benchmark().contains("other", "// Return median of elements in the list l", BODY));
    }

    #[test]
    fn the_same_function_is_known_by_its_head() {
        assert!(benchmark().contains("Stats.Median", "", "Median(values: number[]) { return values[0]; }"));
        assert!(!benchmark().contains("median", "", "function median(values: Date[]) { return values[0]; }"));
    }

    #[test]
    fn examples_and_tests_are_known_by_their_values() {
        let doctest = "@example weave([1, 2, 3], 4) [1, 4, 2, 4, 3] // so it goes";
        assert!(benchmark().contains("weave", doctest, BODY));
        let test = "function check() { check.equal(f([3,1,2,4,5], 'a'), 3); check.equal(f([-10, 4]), 6); }";
        assert!(benchmark().contains("check", "", test));
        assert!(!benchmark().contains("check", "", &test.replace('3', "7")));
    }

    #[test]
    fn what_many_problems_share_identifies_none() {
        let prose = "Write a function that takes an array of numbers and returns one number";
        let many: Vec<Problem> =
            (0..3).map(|i| problem("p", &format!("{prose} {i}"), &format!("function f{i}() {{\n"))).collect();
        assert!(!Benchmark::new(&many).contains("other", prose, BODY));
        assert!(Benchmark::new(&many[..2]).contains("other", prose, BODY));
    }
}
