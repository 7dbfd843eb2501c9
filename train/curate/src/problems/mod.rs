//! Executable problems in MultiPL-E's form, made of a repository's own TypeScript functions.
//!
//! A function whose comment holds examples (`crate::examples`), and which with declarations of the same file alone is a
//! program, becomes a problem: the declarations, the comment and the head are the prompt, the body is the reference
//! solution, and the tests assert the examples. Half of several examples, rounded down, are held back from the prompt's
//! comment. Nothing is run here: that the reference passes and an empty body fails is for a judge to say.

mod against;
mod declarations;
mod head;
mod names;

pub use against::drop_repeats_of_rows;

use crate::counts::UnreadFile;
use crate::duplicates::without_whitespace;
use crate::examples::{CommentExamples, Example};
use crate::extract::{Item, extract_items};
use crate::filters::RowPlace;
use crate::language::Language;
use crate::row::ItemKind;
use crate::secrets::SecretRules;
use crate::source::{SourceFile, read};
use codelsi_engine::{Error, Result, interrupt};
use declarations::Declarations;
use head::FunctionParts;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use tree_sitter::Tree;

/// MultiPL-E's stop tokens of TypeScript, and beginnings of further declarations of a module.
const STOP_TOKENS: [&str; 6] = ["\nfunction ", "\n/*", "\n//", "\nclass", "\nexport ", "\nconst "];
/// Maximum bytes of a function's code.
const MAX_CODE: usize = 6000;
/// Maximum lines of a comment in a prompt.
const MAX_COMMENT_LINES: usize = 100;

/// A problem with its reference solution, as a line of a file: MultiPL-E's fields, and HumanEval's reference solution under
/// the name that decontamination reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionProblem {
    /// `path:function`, with the repository before it where it is known.
    pub name: String,
    pub language: String,
    pub prompt: String,
    pub tests: String,
    pub stop_tokens: Vec<String>,
    /// The repository's own body, which completes the prompt.
    pub solution: String,
}

/// Counts of problems: `functions` equals the problems plus the sum of `dropped` without files.
///
/// Reasons: `not-utf8`, `too-large` and `too-slow` (files); `syntax`, `too-deep`, `no-example`, `example-without-value` (the
/// comment calls the function, but no value can be read), `too-long`, `typed-constant`, `imports-file`, `imports-package`,
/// `nested`, `needs-too-much`, `secret`, `duplicate`, `repeats-row`. The first reason that applies counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProblemCounts {
    /// Functions with a body.
    pub functions: usize,
    /// Functions whose comment has an example that can be read.
    pub with_examples: usize,
    /// Number that runs without other files.
    pub self_contained: usize,
    pub dropped: BTreeMap<String, usize>,
    /// The files dropped because the parser was stopped.
    pub unread: Vec<UnreadFile>,
}

impl ProblemCounts {
    /// Counts one drop.
    pub fn drop(&mut self, reason: &str) {
        *self.dropped.entry(reason.to_string()).or_default() += 1;
    }
}

/// Makes the problems of the TypeScript sources under `paths`, in their order, with distinct names and solutions.
///
/// # Errors
/// No path, one that cannot be read or holds no TypeScript; a signal that wished for the end of the process.
pub fn make_problems(paths: &[PathBuf]) -> Result<(Vec<FunctionProblem>, ProblemCounts)> {
    if paths.is_empty() {
        return Err(Error::new("nothing to make problems of: give a folder, a .jsonl or a .jsonl.gz"));
    }
    let mut counts = ProblemCounts::default();
    let mut sources = Vec::new();
    for path in paths {
        let found = read(path, &[Language::TypeScript])?;
        (0..found.not_utf8).for_each(|_| counts.drop("not-utf8"));
        sources.extend(found.sources);
    }
    let of_files: Vec<Outcomes> = sources
        .par_iter()
        .map(|source| {
            interrupt::check("no problem was written")?;
            Ok(file_problems(source))
        })
        .collect::<Result<_>>()?;
    let (mut seen, mut taken) = (HashSet::new(), HashMap::new());
    let mut problems: Vec<FunctionProblem> = Vec::new();
    for outcome in of_files {
        let outcomes = match outcome {
            Ok(outcomes) => outcomes,
            Err(file) => {
                counts.drop(file.reason);
                counts.unread.push(file);
                continue;
            }
        };
        for outcome in outcomes {
            counts.functions += 1;
            counts.with_examples +=
                usize::from(!matches!(outcome, Err("no-example" | "example-without-value")));
            match outcome {
                Ok(problem) if !seen.insert(without_whitespace(&problem.prompt)) => counts.drop("duplicate"),
                Ok(problem) => problems.push(distinctly_named(problem, &mut taken)),
                Err(reason) => counts.drop(reason),
            }
        }
    }
    counts.self_contained = problems.len();
    Ok((problems, counts))
}

/// The problem of each function of a file, or the reason why there is none; or the file that the parser did not read.
type Outcomes = std::result::Result<Vec<std::result::Result<FunctionProblem, &'static str>>, UnreadFile>;

fn file_problems(source: &SourceFile) -> Outcomes {
    let text = source.content.replace("\r\n", "\n");
    let unread = |cause| UnreadFile::new(&source.path, cause);
    let items = extract_items(&text, Language::TypeScript, &source.path).map_err(unread)?;
    let tree: Tree = Language::TypeScript.parse(&text, &source.path).map_err(unread)?;
    let declarations = Declarations::read(&tree, &text);
    let functions = items.iter().filter(|item| item.kind == ItemKind::Function);
    Ok(functions.map(|item| problem(source, item, &declarations)).collect())
}

fn problem(
    source: &SourceFile,
    item: &Item,
    declarations: &Declarations,
) -> std::result::Result<FunctionProblem, &'static str> {
    let tsx = source.path.ends_with(".tsx");
    let comment = CommentExamples::read(&item.comment, &item.name, tsx);
    if comment.examples.is_empty() {
        return Err(if comment.calls { "example-without-value" } else { "no-example" });
    }
    if item.too_deep {
        return Err("too-deep");
    }
    if item.broken {
        return Err("syntax");
    }
    let (shown, held_back) = comment.examples.split_at(comment.examples.len().div_ceil(2));
    let lines = comment.lines_without(held_back);
    if item.code.len() > MAX_CODE || lines.len() > MAX_COMMENT_LINES {
        return Err("too-long");
    }
    let FunctionParts { head, body } = FunctionParts::split(&item.code, &item.name, tsx)?;
    let mut needed = declarations.needed_by(&item.name).map_err(|alone| alone.reason())?;
    if !needed.is_empty() {
        needed.push_str("\n\n");
    }
    let prompt = format!("{needed}{}{head}", written_comment(&item.comment, &lines));
    let tests = test_program(shown.iter().chain(held_back));
    let place = RowPlace::of(source, item);
    let is_secret = |text: &str| SecretRules::default().find(place.path, text).is_some();
    if [&prompt, &body, &tests].into_iter().any(|text| is_secret(text)) {
        return Err("secret");
    }
    let repository = source.repo.as_ref().map(|repo| format!("{repo}/")).unwrap_or_default();
    Ok(FunctionProblem {
        name: format!("{repository}{}:{}", source.path, item.name),
        language: "ts".into(),
        prompt,
        tests,
        stop_tokens: STOP_TOKENS.map(str::to_string).to_vec(),
        solution: body,
    })
}

/// Lines of a comment in the form that `original` has: a block, or a mark on each line.
fn written_comment(original: &str, lines: &[&str]) -> String {
    let is_blank = |line: &&&str| line.trim().is_empty();
    let lines: Vec<&str> = lines.iter().skip_while(is_blank).copied().collect();
    let end = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    let (open, mark, close) = match original.trim_start().starts_with("/*") {
        true => ("/**\n", " *", " */\n"),
        false => ("", "//", ""),
    };
    let lines = lines[..end].iter().map(|line| format!("{mark} {line}").trim_end().to_string() + "\n");
    format!("{open}{}{close}", lines.collect::<String>())
}

/// MultiPL-E's test program of the examples.
fn test_program<'a>(examples: impl Iterator<Item = &'a Example>) -> String {
    let asserts: Vec<String> = examples.map(|example| format!("  {}\n", example.assertion())).collect();
    let asserts = asserts.concat();
    let word = if asserts.contains("await ") { "async " } else { "" };
    format!(
        "declare var require: any;\nconst assert = require('node:assert');\n\n\n{word}function test() {{\n{asserts}}}\n\ntest();"
    )
}

/// The problem under a name that no other has.
fn distinctly_named(mut problem: FunctionProblem, taken: &mut HashMap<String, usize>) -> FunctionProblem {
    let uses = taken.entry(problem.name.clone()).or_default();
    *uses += 1;
    if *uses > 1 {
        // No function's name has such an end.
        problem.name = format!("{} #{uses}", problem.name);
    }
    problem
}

#[cfg(test)]
mod tests;
