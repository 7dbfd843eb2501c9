//! Decontamination: finds code and comments that repeat a benchmark problem.
//!
//! Each of four kinds of evidence is sufficient:
//!
//! - **words**: ten consecutive words of a problem's prompt, regardless of comment markers, punctuation, case and line
//!   breaks. In a second index the names of the function and its parameters are blanked, so that renamed copies are
//!   found. A description of six to nine words is indexed as one n-gram.
//! - **examples**: twenty consecutive syntax tokens of a problem's examples or tests, with blanked identifiers and at
//!   least four distinct literals: the numbers and strings identify an example.
//! - **signature**: the same function name (without case and underscores) and parameter types. Without written types,
//!   the same parameter names, or a function name of ten letters or more.
//! - **tree**: the normalized syntax tree of a solution, if the file has solutions ([`tree`]); or the arguments and
//!   expected results of examples and tests, which are the same in any language ([`values`]).
//!
//! N-grams that three or more problems share (`declare var require: any; …`) identify none of them and are left out.
//!
//! Limits: MultiPL-E's problems have no solutions, so a solution under another name without the prose and the examples
//! is not found. Neither are rewritten prose with changed examples, a solution by another algorithm, or a problem whose
//! examples have too few distinct values to be specific.

mod tree;
mod values;

use crate::fingerprint::{
    FunctionHead, MIN_DESCRIPTION_WORDS, NGRAM_TOKENS, NGRAM_WORDS, blanked_tokens, is_distinctive_example,
    is_distinctive_prose, ngram_hashes, tokenize, words,
};
use crate::language::Language;
use codelsi_engine::Result;
use codelsi_model::jsonl;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use values::Examples;

/// N-grams shared by this many problems are left out.
const COMMON: usize = 3;

/// A benchmark problem in the format of MultiPL-E or HumanEval, with the fields used here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BenchmarkProblem {
    #[serde(alias = "task_id")]
    pub name: String,
    /// The description and the head of the function.
    pub prompt: String,
    #[serde(alias = "test")]
    pub tests: String,
    /// The MultiPL-E code of the language, as `ts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The body that completes the prompt, or a complete program.
    #[serde(default, alias = "canonical_solution", skip_serializing_if = "Option::is_none")]
    pub solution: Option<String>,
}

impl BenchmarkProblem {
    /// The language given, or else guessed from the prompt.
    fn language(&self) -> Language {
        let given = self.language.as_deref();
        let known = given.and_then(|name| Language::from_multipl_e_code(name).or_else(|| name.parse().ok()));
        let python = self.prompt.lines().any(|line| line.starts_with("def "));
        known.unwrap_or(if python { Language::Python } else { Language::TypeScript })
    }
}

/// The evidence that text repeats a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchReason {
    Words,
    Examples,
    Signature,
    Tree,
}

impl MatchReason {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            MatchReason::Words => "words",
            MatchReason::Examples => "examples",
            MatchReason::Signature => "signature",
            MatchReason::Tree => "tree",
        }
    }
}

/// A benchmark problem that text repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BenchmarkMatch {
    pub problem: String,
    /// The evidence.
    #[serde(rename = "sign")]
    pub reason: MatchReason,
}

/// An index of the benchmark problems to keep out of training. Problems are referred to by their index in `names`.
#[derive(Default)]
pub struct Benchmark {
    names: Vec<String>,
    ngrams: HashMap<u64, (usize, MatchReason)>,
    /// By name and number of parameters.
    signatures: HashMap<(String, usize), Vec<(FunctionHead, usize)>>,
    solutions: HashMap<u64, usize>,
    examples: Examples,
}

impl Benchmark {
    /// Reads and indexes problem files.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed; the message names file and line.
    pub fn read<P: AsRef<Path>>(files: &[P]) -> Result<Benchmark> {
        let mut problems = Vec::new();
        for file in files {
            problems.extend(jsonl::read::<BenchmarkProblem>(file)?);
        }
        Ok(Benchmark::new(&problems))
    }

    /// Indexes problems.
    pub fn new(problems: &[BenchmarkProblem]) -> Benchmark {
        let mut benchmark = Benchmark::default();
        let mut candidates: HashMap<u64, (usize, MatchReason, usize)> = HashMap::new();
        for (i, problem) in problems.iter().enumerate() {
            let language = problem.language();
            let head = FunctionHead::find(&tokenize(&problem.prompt), None, language);
            for (ngram, sign) in problem_ngrams(problem, head.as_ref()) {
                candidates.entry(ngram).or_insert((i, sign, 0)).2 += 1;
            }
            let name = head.as_ref().map_or("", |head| &head.name);
            benchmark.examples.insert(i, &problem.prompt, &[name]);
            benchmark.examples.insert(i, &problem.tests, &[name, "candidate"]);
            for hash in tree::hashes_of_problem(&problem.prompt, problem.solution.as_deref(), language) {
                benchmark.solutions.entry(hash).or_insert(i);
            }
            if let Some(head) = head {
                benchmark.signatures.entry(head.key()).or_default().push((head, i));
            }
            benchmark.names.push(problem.name.clone());
        }
        let distinctive = candidates.into_iter().filter(|(_, (_, _, shared_by))| *shared_by < COMMON);
        benchmark.ngrams = distinctive.map(|(ngram, (i, sign, _))| (ngram, (i, sign))).collect();
        benchmark
    }

    /// Finds the problem that `text` (a comment or an instruction) or `code`, which defines `name`, repeats.
    pub fn find(&self, language: Language, name: &str, text: &str, code: &str) -> Option<BenchmarkMatch> {
        if self.names.is_empty() {
            return None;
        }
        let head = head_of(language, name, code);
        let text = format!("{text}\n{code}");
        let (problem, sign) = self
            .by_signature(head.as_ref(), language)
            .or_else(|| self.by_ngrams(head.as_ref(), &text))
            .or_else(|| self.by_tree(language, code, &text))?;
        Some(BenchmarkMatch { problem: self.names[problem].clone(), reason: sign })
    }

    /// Finds the problem whose signature the function `name` in `code` has.
    pub fn find_signature(&self, language: Language, name: &str, code: &str) -> Option<BenchmarkMatch> {
        if self.signatures.is_empty() {
            return None;
        }
        let (problem, sign) = self.by_signature(head_of(language, name, code).as_ref(), language)?;
        Some(BenchmarkMatch { problem: self.names[problem].clone(), reason: sign })
    }

    fn by_signature(&self, head: Option<&FunctionHead>, language: Language) -> Option<(usize, MatchReason)> {
        let head = head?;
        let known = self.signatures.get(&head.key())?;
        let (_, problem) =
            known.iter().find(|(problem_head, _)| same_signature(head, problem_head, language))?;
        Some((*problem, MatchReason::Signature))
    }

    fn by_ngrams(&self, head: Option<&FunctionHead>, text: &str) -> Option<(usize, MatchReason)> {
        text_ngrams(head, text).find_map(|ngram| self.ngrams.get(&ngram).copied())
    }

    fn by_tree(&self, language: Language, code: &str, text: &str) -> Option<(usize, MatchReason)> {
        let copied = || match self.solutions.is_empty() {
            true => None,
            false => {
                tree::hashes_of_code(code, language).into_iter().find_map(|h| self.solutions.get(&h).copied())
            }
        };
        self.examples.find(text).or_else(copied).map(|problem| (problem, MatchReason::Tree))
    }
}

/// Returns the indices of the problems of which any of `codes` shares distinctive words or examples, each problem taken
/// alone: what several problems share counts for each. So it stays true for every selection of the others.
pub fn problems_in(problems: &[BenchmarkProblem], codes: &[&str], language: Language) -> BTreeSet<usize> {
    let mut owners: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, problem) in problems.iter().enumerate() {
        let head = FunctionHead::find(&tokenize(&problem.prompt), None, language);
        problem_ngrams(problem, head.as_ref())
            .keys()
            .for_each(|&ngram| owners.entry(ngram).or_default().push(i));
    }
    let of_code = |code: &&str| {
        let head = FunctionHead::find(&tokenize(code), None, language);
        let found: BTreeSet<usize> = text_ngrams(head.as_ref(), code)
            .filter_map(|ngram| owners.get(&ngram))
            .flatten()
            .copied()
            .collect();
        found
    };
    codes.par_iter().map(of_code).reduce(BTreeSet::new, |a, b| &a | &b)
}

/// The n-grams of a text that could be a problem's: of its syntax tokens, then of its words with and without the names in
/// its head. The index of problems holds distinctive ones only, so these need not be checked.
fn text_ngrams<'a>(head: Option<&'a FunctionHead>, text: &'a str) -> impl Iterator<Item = u64> + 'a {
    let tokens = ngram_hashes(&blanked_tokens(text), NGRAM_TOKENS, |_| true).collect::<Vec<_>>();
    tokens.into_iter().chain([None, head].into_iter().flat_map(move |head| {
        let own = words(text, head);
        let hashes = |n| ngram_hashes(&own, n, |_| true).collect::<Vec<_>>();
        (MIN_DESCRIPTION_WORDS..=NGRAM_WORDS).flat_map(hashes).collect::<Vec<_>>()
    }))
}

/// The head of the function `name` or method `Class.name` in `code`.
fn head_of(language: Language, name: &str, code: &str) -> Option<FunctionHead> {
    let own_name = name.rsplit('.').next().unwrap_or(name);
    FunctionHead::find(&tokenize(code), Some(own_name), language)
}

/// Returns whether a head of the same name is that of a problem: by its types; in languages without mandatory types
/// also by the names of its parameters or a long name.
fn same_signature(head: &FunctionHead, problem_head: &FunctionHead, language: Language) -> bool {
    const LONG: usize = 10;
    let untyped = matches!(language, Language::JavaScript | Language::Python);
    let pairs = || head.types.iter().zip(&problem_head.types);
    let missing =
        |(ty, problem_type): (&String, &String)| problem_type.is_empty() || (untyped && ty.is_empty());
    let distinctive = head.params == problem_head.params || problem_head.key().0.len() >= LONG;
    head.types == problem_head.types
        && (distinctive || !problem_head.types.iter().all(String::is_empty) || problem_head.types.is_empty())
        || distinctive && pairs().all(|pair| pair.0 == pair.1 || missing(pair))
}

/// The distinctive n-grams of a problem, each with its kind of evidence.
fn problem_ngrams(problem: &BenchmarkProblem, head: Option<&FunctionHead>) -> HashMap<u64, MatchReason> {
    let mut all = HashMap::new();
    for text in [&problem.prompt, &problem.tests] {
        all.extend(
            ngram_hashes(&blanked_tokens(text), NGRAM_TOKENS, is_distinctive_example)
                .map(|ngram| (ngram, MatchReason::Examples)),
        );
    }
    let (prompt, prose) = (without_imports(&problem.prompt), description(&problem.prompt));
    for head in [None, head] {
        all.extend(
            ngram_hashes(&words(&prompt, head), NGRAM_WORDS, is_distinctive_prose)
                .map(|ngram| (ngram, MatchReason::Words)),
        );
        let short = words(&prose, head);
        if (MIN_DESCRIPTION_WORDS..NGRAM_WORDS).contains(&short.len()) {
            all.extend(
                ngram_hashes(&short, short.len(), is_distinctive_prose)
                    .map(|ngram| (ngram, MatchReason::Words)),
            );
        }
    }
    all
}

/// The prompt without its imports, which many files have.
fn without_imports(prompt: &str) -> String {
    let starts = ["import ", "from ", "#include", "using ", "use ", "class Problem"];
    let is_import = |line: &&str| {
        line.trim().is_empty() || starts.iter().any(|start| line.trim_start().starts_with(start))
    };
    prompt.lines().skip_while(is_import).collect::<Vec<_>>().join("\n")
}

/// The prose of a prompt before its examples and code, without comment markers.
fn description(prompt: &str) -> String {
    let prompt = without_imports(prompt);
    let docstring = ["\"\"\"", "'''"].iter().find_map(|quote| Some(prompt.split_once(quote)?.1));
    let lines = docstring.unwrap_or(&prompt).lines();
    let lines = lines.map(|line| line.trim().trim_start_matches(['/', '*']).trim());
    let ends = |line: &str| {
        [">>>", "function ", "fn ", "Example"].iter().any(|start| line.starts_with(start))
            || line.ends_with('{')
    };
    lines.take_while(|line| !ends(line)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
