//! Decontamination: does a piece of code or its comment repeat a benchmark problem?
//!
//! Four signs, each enough by itself:
//!
//! - **words**: ten consecutive words of a problem's prompt. Comment markers, punctuation, case and line breaks do
//!   not count; a second index has the names of the function and its parameters blanked, so that renaming them
//!   throughout hides nothing. A description of six to nine words counts as a whole.
//! - **examples**: twenty consecutive syntax tokens of a problem's examples or tests with every identifier blanked
//!   and at least four different literals: the numbers and strings are what identifies an example.
//! - **signature**: the same function name (case and underscores aside) over the same parameter types; where none are
//!   written, over the same parameters, or a name of ten letters or more.
//! - **tree**: the normalised syntax tree of a solution, if the file has solutions ([`tree`]); or what is given to the
//!   function and expected of it in examples and tests, which is the same in any language ([`values`]).
//!
//! An n-gram that three or more problems share (`declare var require: any; …`) identifies none and is left out.
//!
//! What cannot be known: MultiPL-E's problems carry no solutions, so a bare solution under another name, without the
//! prose and without the examples, comes through. So does prose that was rewritten over examples that were changed, a
//! solution by another algorithm, and a problem whose examples hold too few different values to be anybody's.

mod tree;
mod values;

use crate::fingerprint::{
    FEWEST_WORDS, Head, TOKENS, WORDS, blanked_tokens, grams, lex, telling_tokens, telling_words, words,
};
use crate::language::Language;
use codelsi_engine::Result;
use codelsi_model::jsonl;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use values::Examples;

/// As many problems share no n-gram that identifies one of them.
const COMMON: usize = 3;

/// A problem in MultiPL-E's or in HumanEval's form, as far as it matters here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Problem {
    #[serde(alias = "task_id")]
    pub name: String,
    /// A comment and the head of a function.
    pub prompt: String,
    #[serde(alias = "test")]
    pub tests: String,
    /// MultiPL-E's name of the language, as `ts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// A body for the prompt, or a whole program.
    #[serde(default, alias = "canonical_solution", skip_serializing_if = "Option::is_none")]
    pub solution: Option<String>,
}

impl Problem {
    /// As it says, or else as its prompt looks.
    fn language(&self) -> Language {
        let said = self.language.as_deref();
        let known = said.and_then(|name| Language::of_code(name).or_else(|| name.parse().ok()));
        let python = self.prompt.lines().any(|line| line.starts_with("def "));
        known.unwrap_or(if python { Language::Python } else { Language::TypeScript })
    }
}

/// What gave a copy away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    Words,
    Examples,
    Signature,
    Tree,
}

impl Sign {
    /// Its word.
    pub fn told(self) -> &'static str {
        match self {
            Sign::Words => "words",
            Sign::Examples => "examples",
            Sign::Signature => "signature",
            Sign::Tree => "tree",
        }
    }
}

/// The problem that a text repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    pub problem: String,
    pub sign: Sign,
}

/// The problems to keep out of training. Numbers are places in `names`.
#[derive(Default)]
pub struct Benchmark {
    names: Vec<String>,
    grams: HashMap<u64, (usize, Sign)>,
    /// By name and number of parameters.
    signatures: HashMap<(String, usize), Vec<(Head, usize)>>,
    solutions: HashMap<u64, usize>,
    examples: Examples,
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
        let mut benchmark = Benchmark::default();
        let mut found: HashMap<u64, (usize, Sign, usize)> = HashMap::new();
        for (i, problem) in problems.iter().enumerate() {
            let language = problem.language();
            let head = Head::find(&lex(&problem.prompt), None, language);
            for (gram, sign) in problem_grams(problem, head.as_ref()) {
                found.entry(gram).or_insert((i, sign, 0)).2 += 1;
            }
            let name = head.as_ref().map_or("", |head| &head.name);
            benchmark.examples.insert(i, &problem.prompt, &[name]);
            benchmark.examples.insert(i, &problem.tests, &[name, "candidate"]);
            for hash in tree::of_problem(&problem.prompt, problem.solution.as_deref(), language) {
                benchmark.solutions.entry(hash).or_insert(i);
            }
            if let Some(head) = head {
                benchmark.signatures.entry(head.key()).or_default().push((head, i));
            }
            benchmark.names.push(problem.name.clone());
        }
        let telling = found.into_iter().filter(|(_, (_, _, shared_by))| *shared_by < COMMON);
        benchmark.grams = telling.map(|(gram, (i, sign, _))| (gram, (i, sign))).collect();
        benchmark
    }

    /// The problem that `text` (a comment or an instruction) or `code`, which defines `name`, repeats.
    pub fn find(&self, language: Language, name: &str, text: &str, code: &str) -> Option<Match> {
        if self.names.is_empty() {
            return None;
        }
        let head = own_head(language, name, code);
        let text = format!("{text}\n{code}");
        let (problem, sign) = self
            .by_signature(head.as_ref(), language)
            .or_else(|| self.by_grams(head.as_ref(), &text))
            .or_else(|| self.by_tree(language, code, &text))?;
        Some(Match { problem: self.names[problem].clone(), sign })
    }

    /// The problem of which `code` defines the function, `name`, by its head alone.
    pub fn find_head(&self, language: Language, name: &str, code: &str) -> Option<Match> {
        if self.signatures.is_empty() {
            return None;
        }
        let (problem, sign) = self.by_signature(own_head(language, name, code).as_ref(), language)?;
        Some(Match { problem: self.names[problem].clone(), sign })
    }

    fn by_signature(&self, head: Option<&Head>, language: Language) -> Option<(usize, Sign)> {
        let head = head?;
        let known = self.signatures.get(&head.key())?;
        let (_, problem) = known.iter().find(|(theirs, _)| is_same(head, theirs, language))?;
        Some((*problem, Sign::Signature))
    }

    fn by_grams(&self, head: Option<&Head>, text: &str) -> Option<(usize, Sign)> {
        let known = |gram| self.grams.get(&gram).copied();
        // The index holds telling n-grams only, so there is no need to ask again whether these are.
        grams(&blanked_tokens(text), TOKENS, |_| true).find_map(known).or_else(|| {
            [None, head].into_iter().find_map(|head| {
                let words = words(text, head);
                (FEWEST_WORDS..=WORDS).find_map(|n| grams(&words, n, |_| true).find_map(known))
            })
        })
    }

    fn by_tree(&self, language: Language, code: &str, text: &str) -> Option<(usize, Sign)> {
        let copied = || match self.solutions.is_empty() {
            true => None,
            false => tree::of_code(code, language).into_iter().find_map(|h| self.solutions.get(&h).copied()),
        };
        self.examples.find(text).or_else(copied).map(|problem| (problem, Sign::Tree))
    }
}

/// The head of what is called `name`, or `Class.name`.
fn own_head(language: Language, name: &str, code: &str) -> Option<Head> {
    let own_name = name.rsplit('.').next().unwrap_or(name);
    Head::find(&lex(code), Some(own_name), language)
}

/// Whether a head of the same name is a problem's: by its types, or where nobody has to write types by the names of
/// the parameters, or by a long name alone.
fn is_same(ours: &Head, theirs: &Head, language: Language) -> bool {
    const LONG: usize = 10;
    let untyped = matches!(language, Language::JavaScript | Language::Python);
    let pairs = || ours.types.iter().zip(&theirs.types);
    let missing = |(ours, theirs): (&String, &String)| theirs.is_empty() || (untyped && ours.is_empty());
    let told = ours.params == theirs.params || theirs.key().0.len() >= LONG;
    ours.types == theirs.types
        && (told || !theirs.types.iter().all(String::is_empty) || theirs.types.is_empty())
        || told && pairs().all(|pair| pair.0 == pair.1 || missing(pair))
}

/// Every n-gram that stands for a problem, once, and what it is one of.
fn problem_grams(problem: &Problem, head: Option<&Head>) -> HashMap<u64, Sign> {
    let mut all = HashMap::new();
    for text in [&problem.prompt, &problem.tests] {
        all.extend(grams(&blanked_tokens(text), TOKENS, telling_tokens).map(|gram| (gram, Sign::Examples)));
    }
    let (told, description) = (without_imports(&problem.prompt), description(&problem.prompt));
    for head in [None, head] {
        all.extend(grams(&words(&told, head), WORDS, telling_words).map(|gram| (gram, Sign::Words)));
        let short = words(&description, head);
        if (FEWEST_WORDS..WORDS).contains(&short.len()) {
            all.extend(grams(&short, short.len(), telling_words).map(|gram| (gram, Sign::Words)));
        }
    }
    all
}

/// The prompt from its comment or its function on: what comes before is said by many files.
fn without_imports(prompt: &str) -> String {
    let starts = ["import ", "from ", "#include", "using ", "use ", "class Problem"];
    let passed = |line: &&str| {
        line.trim().is_empty() || starts.iter().any(|start| line.trim_start().starts_with(start))
    };
    prompt.lines().skip_while(passed).collect::<Vec<_>>().join("\n")
}

/// The prompt's prose before its examples and its code, markers removed.
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
