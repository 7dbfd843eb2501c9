//! Curation: sources to `{instruction, output}` rows, offline.
//!
//! Every function, method and class that a comment describes becomes a row: the instruction is made of the
//! comment and the signature, the output is the code. What is dropped is counted by reason. The result depends on
//! the sources alone: same bytes for any number of threads.

mod benchmark;
mod card;
mod comment;
mod extract;
mod fingerprint;
mod instruction;
mod language;
mod near;
mod origin;
mod secrets;
mod source;

pub use benchmark::{Benchmark, Match, Problem, Sign};
pub use card::card;
pub use comment::Doc;
pub use language::Language;
pub use source::Source;

use crate::jsonl;
use codelsi_engine::{At, Error, Result};
use extract::Item;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What to read and what to keep.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folders, `.jsonl` or `.jsonl.gz` corpora; their order is the order of the rows.
    pub paths: Vec<PathBuf>,
    /// Whose files count; none at all means TypeScript.
    pub languages: Vec<Language>,
    /// Problem files in MultiPL-E's form that training must not have seen.
    pub against: Vec<PathBuf>,
    /// A row that resembles an earlier one by this share or more of their token n-grams is dropped; `None` keeps it.
    pub resemblance: Option<f64>,
    pub limits: Limits,
}

/// The sizes a row may have. The defaults keep what a person would call a function worth asking for and
/// fit a sequence of 4096 tokens with room to spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Characters of code.
    pub min_chars: usize,
    pub max_chars: usize,
    /// Lines of code.
    pub min_lines: usize,
    pub max_lines: usize,
    /// Characters of the longest line; longer ones are data or minified.
    pub max_line: usize,
    /// Characters of the mean line; with more the code was minified.
    pub max_mean_line: usize,
    /// Percent of the code's characters that are comments.
    pub max_commented: usize,
    /// Words of the comment's description.
    pub min_words: usize,
    /// Characters of the instruction.
    pub max_instruction: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            min_chars: 60,
            max_chars: 6000,
            min_lines: 3,
            max_lines: 200,
            max_line: 400,
            max_mean_line: 120,
            max_commented: 60,
            min_words: 3,
            max_instruction: 2500,
        }
    }
}

/// What a row's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Function,
    Method,
    Class,
}

/// One line of the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub instruction: String,
    pub output: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    pub path: String,
    #[serde(default)]
    pub language: Language,
    pub name: String,
    pub kind: Kind,
    /// First and last line of the code in its file, counted from 1.
    #[serde(default)]
    pub lines: (usize, usize),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// What became of all that was found: `read` is `kept` and every `dropped` together.
///
/// Reasons: `not-utf8` (files), `syntax` (items, and stretches that hold none that can be read), `no-comment`, `generated`,
/// `licence`, `deprecated`, `too-short`, `too-long`, `minified`, `comment-heavy`, `secret`, `benchmark`, `duplicate`,
/// `near-duplicate`; the first that applies counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub read: usize,
    pub kept: usize,
    pub dropped: BTreeMap<&'static str, usize>,
    /// Every item that was dropped because it repeats a benchmark problem.
    pub repeats: Vec<Repeat>,
}

/// An item that repeats a benchmark problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repeat {
    #[serde(flatten)]
    pub of: Match,
    pub path: String,
    pub name: String,
}

impl Counts {
    fn drop(&mut self, reason: &'static str, n: usize) {
        self.read += n;
        *self.dropped.entry(reason).or_default() += n;
    }

    fn repeat(&mut self, repeat: Repeat) {
        self.drop("benchmark", 1);
        self.repeats.push(repeat);
    }
}

/// Reads every source and makes the rows. `progress` hears (files done, files in all), from any thread.
///
/// # Errors
/// A source or problem file that cannot be read, is malformed (file and line named) or empty.
pub fn run(options: &Options, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<(Vec<Row>, Counts)> {
    if options.paths.is_empty() {
        return Err(Error::new("nothing to curate: give a folder, a .jsonl or a .jsonl.gz"));
    }
    let benchmark = Benchmark::read(&options.against)?;
    let mut counts = Counts::default();
    let mut sources = Vec::new();
    let languages = match options.languages.is_empty() {
        true => &[Language::TypeScript],
        false => options.languages.as_slice(),
    };
    for path in &options.paths {
        let found = source::read(path, languages)?;
        if found.unreadable > 0 {
            counts.drop("not-utf8", found.unreadable);
        }
        sources.extend(found.sources);
    }
    let done = AtomicUsize::new(0);
    let candidates: Vec<Vec<Candidate>> = sources
        .par_iter()
        .map(|source| {
            let candidates = curate_file(source, &options.limits, &benchmark).at(&source.path);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, sources.len());
            candidates
        })
        .collect::<Result<_>>()?;

    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    for candidate in candidates.into_iter().flatten() {
        match candidate {
            Err(Dropped::Because(reason)) => counts.drop(reason, 1),
            Err(Dropped::Repeats(repeat)) => counts.repeat(repeat),
            Ok(row) if !seen.insert(unspaced(&row.output)) => counts.drop("duplicate", 1),
            Ok(row) => rows.push(row),
        }
    }
    if let Some(least) = options.resemblance {
        let code: Vec<&str> = rows.iter().map(|row| row.output.as_str()).collect();
        let mut repeats = near::repeats(&code, least).into_iter();
        let found = rows.len();
        rows.retain(|_| !repeats.next().unwrap_or(false));
        if rows.len() < found {
            counts.drop("near-duplicate", found - rows.len());
        }
    }
    counts.read += rows.len();
    counts.kept = rows.len();
    Ok((rows, counts))
}

/// Writes the rows as JSON Lines, whole or not at all.
pub fn write(path: impl AsRef<std::path::Path>, rows: &[Row]) -> Result<()> {
    jsonl::write(path, rows)
}

/// A row, or why there is none.
type Candidate = std::result::Result<Row, Dropped>;

enum Dropped {
    Because(&'static str),
    Repeats(Repeat),
}

fn curate_file(source: &Source, limits: &Limits, benchmark: &Benchmark) -> Result<Vec<Candidate>> {
    let text = source.content.replace("\r\n", "\n");
    let language = Language::of(&source.path).unwrap_or_default();
    let items = extract::items(&text, language, &source.path)?;
    let generated = is_generated(&text, language.table().line_comment);
    let by_method = classes_of_repeats(&items, benchmark);
    let one = |item: Item| match generated && !item.broken {
        true => Err(Dropped::Because("generated")),
        false => candidate(source, item, limits, benchmark, &by_method),
    };
    Ok(items.into_iter().map(one).collect())
}

/// Classes with a method that is a problem's by its head. Its other signs are in the text of the class as well.
fn classes_of_repeats(items: &[Item], benchmark: &Benchmark) -> HashMap<String, Match> {
    let methods = items.iter().filter(|item| item.kind == Kind::Method);
    let repeats = methods.filter_map(|method| {
        let (class, _) = method.name.split_once('.')?;
        Some((class.to_string(), benchmark.find_head(method.language, &method.name, &method.code)?))
    });
    repeats.collect()
}

/// Whether the head of a file says that a program wrote it.
fn is_generated(text: &str, line_comment: &str) -> bool {
    const LINES: usize = 12;
    let marks = [
        "@generated",
        "auto-generated",
        "autogenerated",
        "automatically generated",
        "code generated by",
        "do not edit",
    ];
    let head = text.lines().take(LINES).map(str::trim_start);
    let comments = head.filter(|line| [line_comment, "/*", "*"].iter().any(|mark| line.starts_with(mark)));
    let comments = comments.collect::<Vec<_>>().join("\n").to_lowercase();
    marks.iter().any(|mark| comments.contains(mark))
}

/// Whether a comment speaks of who may copy the code, and not of the code.
fn is_licence(comment: &str) -> bool {
    let comment = comment.to_lowercase();
    let marks = [
        "spdx-license-identifier",
        "copyright (c)",
        "copyright ©",
        "all rights reserved",
        "licensed under the",
    ];
    marks.iter().any(|mark| comment.contains(mark))
}

fn candidate(
    source: &Source,
    item: Item,
    limits: &Limits,
    benchmark: &Benchmark,
    by_method: &HashMap<String, Match>,
) -> Candidate {
    let doc = Doc::parse(&item.comment, item.language);
    let instruction = instruction::instruction(&item, &doc);
    if let Some(reason) = unfit(&item, &doc, &instruction, limits) {
        return Err(Dropped::Because(reason));
    }
    let found = benchmark.find(item.language, &item.name, &item.comment, &item.code);
    let within = by_method.get(&item.name).filter(|_| item.kind == Kind::Class).cloned();
    if let Some(of) = found.or(within) {
        return Err(Dropped::Repeats(Repeat { of, path: source.path.clone(), name: item.name }));
    }
    Ok(Row {
        instruction,
        output: item.code,
        repo: source.repo.clone(),
        path: source.path.clone(),
        language: item.language,
        name: item.name,
        kind: item.kind,
        lines: item.lines,
        license: source.license.clone(),
    })
}

/// The first reason for which an item is no row, whatever the benchmark.
fn unfit(item: &Item, doc: &Doc, instruction: &str, limits: &Limits) -> Option<&'static str> {
    let (chars, lines) = (item.code.chars().count(), item.code.lines().count());
    let longest = item.code.lines().map(str::len).max().unwrap_or(0);
    let too_long = chars > limits.max_chars
        || lines > limits.max_lines
        || longest > limits.max_line
        || instruction.chars().count() > limits.max_instruction;
    let secret = || secrets::holds_secret(instruction) || secrets::holds_secret(&item.code);
    if item.broken {
        Some("syntax")
    } else if doc.words() < limits.min_words {
        Some("no-comment")
    } else if is_licence(&item.comment) {
        Some("licence")
    } else if doc.deprecated {
        Some("deprecated")
    } else if chars < limits.min_chars || lines < limits.min_lines {
        Some("too-short")
    } else if too_long {
        Some("too-long")
    } else if chars > limits.max_mean_line * lines {
        Some("minified")
    } else if 100 * item.commented > limits.max_commented * chars {
        Some("comment-heavy")
    } else if secret() {
        Some("secret")
    } else {
        None
    }
}

/// Code without any white space: what an exact duplicate shares with its original.
fn unspaced(code: &str) -> String {
    code.split_whitespace().collect()
}

#[cfg(test)]
mod tests;
