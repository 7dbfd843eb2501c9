//! Curation: sources to `{instruction, output}` rows, offline.
//!
//! Every function, method and class that a comment describes becomes a row: the instruction is made of the
//! comment and the signature, the output is the code. What is dropped is counted by reason. The result depends on
//! the sources alone: same bytes for any number of threads.

mod benchmark;
mod card;
mod comment;
mod extract;
mod filters;
mod fingerprint;
mod instruction;
mod language;
mod near;
mod origin;
mod rows;
mod secrets;
mod source;
mod styles;
pub mod teacher;

pub use benchmark::{Benchmark, Match, Problem, Sign};
pub use card::card;
pub use comment::Doc;
pub(crate) use fingerprint::is_word;
pub use language::Language;
pub use source::{Source, holds, repositories};
pub use styles::Style;

use crate::jsonl;
use codelsi_engine::{At, Error, Result};
use extract::Item;
use filters::Filters;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use teacher::Lessons;

/// What to read and what to keep.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folders, `.jsonl` or `.jsonl.gz` corpora; their order is the order of the rows.
    pub paths: Vec<PathBuf>,
    /// Whose files count.
    pub languages: Vec<Language>,
    /// Problem files in MultiPL-E's form that training must not have seen.
    pub against: Vec<PathBuf>,
    /// A row that resembles an earlier one by this share or more of their token n-grams is dropped; `None` keeps it.
    pub resemblance: Option<f64>,
    pub limits: Limits,
    /// A `tokenizer.json` or its folder: rows are measured in the tokens of its model.
    pub tokenizer: Option<PathBuf>,
    /// The rows of an item, in this order.
    pub styles: Vec<Style>,
    /// Whether instructions tell the imports and signatures that an item uses.
    pub context: bool,
    /// Keys every choice of the styles and of a teacher.
    pub seed: u64,
    /// Who rewrites rows after [`run`]; see [`teacher::teach`].
    pub lessons: Option<Lessons>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            paths: Vec::new(),
            languages: vec![Language::TypeScript],
            against: Vec::new(),
            resemblance: None,
            limits: Limits::default(),
            tokenizer: None,
            styles: vec![Style::Write],
            context: false,
            seed: 42,
            lessons: None,
        }
    }
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
    /// Characters of the instruction, code aside.
    pub max_instruction: usize,
    /// Tokens of instruction and answer, where a tokenizer is given.
    pub max_tokens: usize,
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
            max_tokens: 4096,
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
    /// How it asks; not written for [`Style::Write`].
    #[serde(default, skip_serializing_if = "Style::is_write")]
    pub style: Style,
    /// The model that wrote the instruction, and the code where it is evolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// In which round of evolution it was made; not written for what comes from a source.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub evolved: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// What became of all that was found: `read` is `kept` and every `dropped` together.
///
/// An item that is dropped counts once; of one that is kept every style counts.
///
/// Reasons: `not-utf8` (files), `syntax` (items, and stretches that hold none that can be read), `no-comment`, `generated`, `licence`, `deprecated`, `too-short`,
/// `too-long`, `minified`, `comment-heavy`, `secret`, `benchmark`, `duplicate`, `near-duplicate`, `too-many-tokens`,
/// `unspellable`, `other-language` (styles), `teacher-malformed`, `teacher-quotes`, and for each style [`Style::lacking`]; the first that
/// applies counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub read: usize,
    pub kept: usize,
    pub dropped: BTreeMap<&'static str, usize>,
    /// Every item that was dropped because it repeats a benchmark problem.
    pub repeats: Vec<Repeat>,
    /// The length of each row: tokens of instruction and answer where there is a tokenizer, else lexical tokens of the
    /// answer.
    #[serde(skip)]
    pub lengths: Vec<usize>,
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
    /// A row that was kept is not any more.
    fn lose(&mut self, reason: &'static str) {
        self.kept -= 1;
        *self.dropped.entry(reason).or_default() += 1;
    }

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
    let twice = (1..).zip(&options.styles).find(|(after, style)| options.styles[*after..].contains(style));
    if let Some((_, style)) = twice {
        return Err(Error::new(format!("style {} is asked for twice", style.name())));
    }
    let filters = Filters::open(options)?;
    let mut counts = Counts::default();
    let mut sources = Vec::new();
    for path in &options.paths {
        let found = source::read(path, &options.languages)?;
        if found.unreadable > 0 {
            counts.drop("not-utf8", found.unreadable);
        }
        sources.extend(found.sources);
    }
    let done = AtomicUsize::new(0);
    let candidates: Vec<Vec<Candidate>> = sources
        .par_iter()
        .map(|source| {
            let candidates = curate_file(source, &filters).at(&source.path);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, sources.len());
            candidates
        })
        .collect::<Result<_>>()?;

    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for candidate in candidates.into_iter().flatten() {
        match candidate {
            Err(Dropped::Because(reason)) => counts.drop(reason, 1),
            Err(Dropped::Repeats(repeat)) => counts.repeat(repeat),
            Ok(found) if !seen.insert(unspaced(&found.item.code)) => counts.drop("duplicate", 1),
            Ok(found) => kept.push(found),
        }
    }
    if let Some(least) = options.resemblance {
        let code: Vec<&str> = kept.iter().map(|found| found.item.code.as_str()).collect();
        let mut repeats = near::repeats(&code, least).into_iter();
        let found = kept.len();
        kept.retain(|_| !repeats.next().unwrap_or(false));
        if kept.len() < found {
            counts.drop("near-duplicate", found - kept.len());
        }
    }
    let rows = rows::styled(&kept, options, &filters, &mut counts);
    counts.read += rows.len();
    counts.kept = rows.len();
    Ok((rows, counts))
}

/// Every TypeScript source that lies under `paths`, in their order.
///
/// # Errors
/// A place that cannot be read or holds none.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        sources.extend(source::read(path, &[Language::TypeScript])?.sources);
    }
    Ok(sources)
}

/// Writes the rows as JSON Lines, whole or not at all.
pub fn write(path: impl AsRef<std::path::Path>, rows: &[Row]) -> Result<()> {
    jsonl::write(path, rows)
}

/// An item that is worth rows.
struct Found<'a> {
    source: &'a Source,
    item: Item,
    doc: Doc,
}

/// An item, or why it gives no row.
type Candidate<'a> = std::result::Result<Found<'a>, Dropped>;

enum Dropped {
    Because(&'static str),
    Repeats(Repeat),
}

fn curate_file<'a>(source: &'a Source, filters: &Filters) -> Result<Vec<Candidate<'a>>> {
    let text = source.content.replace("\r\n", "\n");
    let language = Language::of(&source.path).unwrap_or_default();
    let items = extract::items(&text, language, &source.path)?;
    let generated = is_generated(&text, language.table().line_comment);
    let by_method = classes_of_repeats(&items, filters);
    let one = |item: Item| match generated && !item.broken {
        true => Err(Dropped::Because("generated")),
        false => candidate(source, item, filters, &by_method),
    };
    Ok(items.into_iter().map(one).collect())
}

/// Classes with a method that is a problem's by its head. Its other signs are in the text of the class as well.
fn classes_of_repeats(items: &[Item], filters: &Filters) -> HashMap<String, Match> {
    let methods = items.iter().filter(|item| item.kind == Kind::Method);
    let repeats = methods.filter_map(|method| {
        let (class, _) = method.name.split_once('.')?;
        Some((class.to_string(), filters.repeats_by_head(method)?))
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

fn candidate<'a>(
    source: &'a Source,
    item: Item,
    filters: &Filters,
    by_method: &HashMap<String, Match>,
) -> Candidate<'a> {
    let doc = Doc::parse(&item.comment, item.language);
    if let Some(reason) = unfit(&item, &doc, filters) {
        return Err(Dropped::Because(reason));
    }
    let found = filters.repeats(item.language, &item.name, &item.comment, &item.code);
    let within = by_method.get(&item.name).filter(|_| item.kind == Kind::Class).cloned();
    match found.or(within) {
        Some(of) => Err(Dropped::Repeats(Repeat { of, path: source.path.clone(), name: item.name })),
        None => Ok(Found { source, item, doc }),
    }
}

/// The first reason for which an item is no row, whatever the benchmark.
fn unfit(item: &Item, doc: &Doc, filters: &Filters) -> Option<&'static str> {
    let instruction = instruction::instruction(item, doc);
    if item.broken {
        return Some("syntax");
    }
    if doc.words() < filters.limits.min_words {
        return Some("no-comment");
    }
    if is_licence(&item.comment) {
        return Some("licence");
    }
    if doc.deprecated {
        return Some("deprecated");
    }
    let too_long = instruction.chars().count() > filters.limits.max_instruction;
    filters
        .size(&item.code)
        .or(too_long.then_some("too-long"))
        .or_else(|| filters.comments(&item.code, item.commented))
        .or_else(|| filters::secret(&[&instruction, &item.code]))
}

/// Code without any white space: what an exact duplicate shares with its original.
fn unspaced(code: &str) -> String {
    code.split_whitespace().collect()
}

#[cfg(test)]
mod tests;
