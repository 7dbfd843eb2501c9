//! A teacher: a model that writes the instruction of each item and, optionally, harder tasks with their solutions.
//!
//! First the teacher writes the instruction of every row of style `write` (Self-Instruct). Then, in each round, it
//! evolves the task of each row into another one (Evol-Instruct); an answer passes the same filters as a source, and if
//! it fails, the next round continues from the previous row. Every answer is stored in a [`AnswerCache`], so that an
//! interrupted run asks only for the rest. The rows depend on the answers and not on their order.

mod cache;
mod prompts;
mod request;

pub use crate::options::TeacherSettings;
pub use cache::AnswerCache;
pub use prompts::hash as prompts_hash;
pub use request::{ChatMessage, OnAnswer, Teacher, TeacherRequest};

use crate::counts::{CurationCounts, DropReason};
use crate::duplicates::{near_duplicates, without_whitespace};
use crate::extract::{Item, extract_items};
use crate::filters::{Filters, RowPlace};
use crate::item_rng::ItemRng;
use crate::options::CurateOptions;
use crate::row::{CuratedRow, ItemKind};
use codelsi_engine::{Error, Result};
use std::collections::HashSet;

/// Sampling temperature of the requests, high enough for varied answers.
const TEMPERATURE: f32 = 0.7;
/// Maximum tokens of an answer.
const MAX_TOKENS: usize = 2048;

/// Minimum bytes of a line of code that an instruction does not contain by chance. The first line, the head, may be
/// quoted.
const MIN_QUOTED_BYTES: usize = 16;

/// A row with its length.
type MeasuredRow = (CuratedRow, usize);

/// Lets a teacher rewrite and evolve the rows of [`run`](crate::run). Calls `progress` with (new answers, all answers).
///
/// # Errors
/// When no row has style `write`; errors of the teacher and of the cache.
pub fn rewrite_with_teacher(
    options: &CurateOptions,
    rows: Vec<CuratedRow>,
    counts: &mut CurationCounts,
    teacher: &mut dyn Teacher,
    cache: &mut AnswerCache,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<CuratedRow>> {
    if !rows.iter().any(|row| row.style.is_write()) {
        return Err(Error::new("there is nothing to teach: no row is of style write"));
    }
    let rounds = options.teacher.as_ref().map_or(0, |lessons| lessons.evolve);
    let filters = Filters::open(options)?;
    // Evolved code must be new.
    let seen = rows.iter().map(|row| without_whitespace(&row.output)).collect();
    let mut rewriter = Rewriter { options, filters, counts, teacher, cache, progress, seen };
    let rows = rewriter.rewrite_instructions(rows)?;
    let mut latest: Vec<CuratedRow> =
        rows.iter().filter(|(row, _)| row.teacher.is_some()).map(|(row, _)| row.clone()).collect();
    let mut evolved = Vec::new();
    for round in 1..=rounds {
        rewriter.evolve(round, &mut latest, &mut evolved)?;
    }
    let rows = rewriter.remove_near_duplicates(rows, evolved);
    let (rows, lengths) = rows.into_iter().unzip();
    *counts = CurationCounts { lengths, ..std::mem::take(counts) };
    Ok(rows)
}

/// The state of a rewriting run.
struct Rewriter<'a> {
    options: &'a CurateOptions,
    filters: Filters,
    counts: &'a mut CurationCounts,
    teacher: &'a mut dyn Teacher,
    cache: &'a mut AnswerCache,
    progress: &'a (dyn Fn(usize, usize) + Sync),
    /// The code and the rewritten instructions so far, without white space.
    seen: HashSet<String>,
}

impl Rewriter<'_> {
    fn ask(&mut self, requests: &[TeacherRequest]) -> Result<Vec<String>> {
        let (progress, of) = (self.progress, requests.len());
        self.cache.ask(self.teacher, requests, &|new| progress(new, of))
    }

    /// The source of random choices for a row in a round.
    fn rng(&self, row: &CuratedRow, round: usize) -> ItemRng {
        let repo = row.repo.as_deref().unwrap_or_default();
        ItemRng::new(self.options.seed, &[repo, &row.path, &row.name, "teacher", &round.to_string()])
    }

    /// Replaces the instructions of style `write` by those of the teacher; other rows are unchanged.
    fn rewrite_instructions(&mut self, rows: Vec<CuratedRow>) -> Result<Vec<MeasuredRow>> {
        let to_rewrite = rows.iter().filter(|row| row.style.is_write());
        let requests = to_rewrite.map(|row| request(prompts::instruction_prompt(row), self.rng(row, 0)));
        let requests: Vec<TeacherRequest> = requests.collect();
        let mut answers = self.ask(&requests)?.into_iter();
        let lengths = std::mem::take(&mut self.counts.lengths);
        let mut kept = Vec::with_capacity(rows.len());
        for (row, length) in rows.into_iter().zip(lengths) {
            let row = match row.style.is_write() {
                true => self.rewritten(row, &answers.next().unwrap_or_default()),
                false => Ok((row, length)),
            };
            match row {
                // The same instruction must not have two answers.
                Ok((row, _))
                    if row.teacher.is_some() && !self.seen.insert(without_whitespace(&row.instruction)) =>
                {
                    self.counts.drop_kept("duplicate");
                }
                Ok(row) => kept.push(row),
                Err(reason) => self.counts.drop_kept(reason),
            }
        }
        Ok(kept)
    }

    /// The row with the instruction of an answer, or the reason to drop it.
    fn rewritten(&self, row: CuratedRow, answer: &str) -> Result<MeasuredRow, DropReason> {
        let instruction = prompts::parse_instruction(answer).ok_or("teacher-malformed")?;
        self.check_instruction(&instruction, &row.output)?;
        self.filters.check_secrets(&[&instruction], place_of(&row)).map_err(DropReason::Secret)?;
        if self.filters.benchmark_match(row.language, &row.name, &instruction, &row.output).is_some() {
            return Err("benchmark".into());
        }
        let length = self.filters.measure(&instruction, &row.output)?;
        Ok((CuratedRow { instruction, teacher: Some(self.teacher.name().to_string()), ..row }, length))
    }

    /// Runs one round: evolves the task of every latest row; an evolved row that passes becomes the latest.
    fn evolve(
        &mut self,
        round: usize,
        latest: &mut [CuratedRow],
        evolved: &mut Vec<MeasuredRow>,
    ) -> Result<()> {
        let requests = latest.iter().map(|row| {
            let rng = self.rng(row, round);
            request(prompts::evolution_prompt(row, rng.below(0, prompts::EVOLUTION_COUNT)), rng)
        });
        let requests: Vec<TeacherRequest> = requests.collect();
        let answers = self.ask(&requests)?;
        let rows: Vec<_> =
            latest.iter().zip(&answers).map(|(row, answer)| self.evolved_row(round, row, answer)).collect();
        for (latest, row) in latest.iter_mut().zip(rows) {
            match row {
                Err(reason) => self.counts.drop_one(reason),
                Ok((row, _)) if !self.is_new(&row) => self.counts.drop("duplicate", 1),
                Ok(row) => {
                    self.counts.read += 1;
                    self.counts.kept += 1;
                    *latest = row.0.clone();
                    evolved.push(row);
                }
            }
        }
        Ok(())
    }

    /// The row of an evolved task and its solution, or the reason to drop it.
    fn evolved_row(
        &self,
        round: usize,
        previous: &CuratedRow,
        answer: &str,
    ) -> Result<MeasuredRow, DropReason> {
        let (instruction, output) = prompts::parse_task(answer).ok_or("teacher-malformed")?;
        self.check_instruction(&instruction, &output)?;
        let items = extract_items(&output, previous.language, &previous.path).map_err(|_| "syntax")?;
        // The main item is the last function or class; those before it are helpers.
        let item = items
            .iter()
            .rfind(|item| item.kind != ItemKind::Method && previous.language.parses(&output, &previous.path))
            .ok_or("syntax")?;
        if items.iter().any(|item| item.too_deep) {
            return Err("too-deep".into());
        }
        self.filters.check_size(&output).map_or(Ok(()), Err)?;
        let texts = [instruction.as_str(), &output];
        self.filters.check_secrets(&texts, place_of(previous)).map_err(DropReason::Secret)?;
        let benchmark =
            |item: &Item| self.filters.benchmark_match(previous.language, &item.name, &instruction, &output);
        if items.iter().any(|item| benchmark(item).is_some()) {
            return Err("benchmark".into());
        }
        let length = self.filters.measure(&instruction, &output)?;
        let (name, kind) = (item.name.clone(), item.kind);
        let teacher = Some(self.teacher.name().to_string());
        Ok((
            CuratedRow { instruction, output, name, kind, teacher, evolved: round, ..previous.clone() },
            length,
        ))
    }

    /// Returns whether both the code and the instruction of a row are new, and records them.
    fn is_new(&mut self, row: &CuratedRow) -> bool {
        let code = self.seen.insert(without_whitespace(&row.output));
        self.seen.insert(without_whitespace(&row.instruction)) && code
    }

    /// Checks that an instruction has a proper length and does not quote the code.
    fn check_instruction(&self, instruction: &str, code: &str) -> Result<(), &'static str> {
        let limits = &self.filters.limits;
        let quotes = |line: &str| line.len() >= MIN_QUOTED_BYTES && instruction.contains(line);
        if instruction.chars().count() > limits.max_instruction {
            Err("too-long")
        } else if instruction.split_whitespace().count() < limits.min_words {
            Err("teacher-malformed")
        } else if code.lines().skip(1).map(str::trim).any(quotes) {
            Err("teacher-quotes")
        } else {
            Ok(())
        }
    }

    /// All rows, without the evolved ones whose code is a near-duplicate of an earlier row.
    fn remove_near_duplicates(
        &mut self,
        rows: Vec<MeasuredRow>,
        evolved: Vec<MeasuredRow>,
    ) -> Vec<MeasuredRow> {
        let before = rows.len();
        let mut all = [rows, evolved].concat();
        let Some(threshold) = self.options.near_duplicate_threshold else {
            return all;
        };
        let code: Vec<&str> = all.iter().map(|(row, _)| row.output.as_str()).collect();
        let mut repeated = near_duplicates(&code, threshold).into_iter().zip(0..);
        let counts = &mut *self.counts;
        all.retain(|_| {
            // The styles of one item repeat its code on purpose.
            let repeats = repeated.next().is_some_and(|(repeats, i)| repeats && i >= before);
            if repeats {
                counts.drop_kept("near-duplicate");
            }
            !repeats
        });
        all
    }
}

/// The place of the item that a row was made of; the text is the teacher's.
fn place_of(row: &CuratedRow) -> RowPlace<'_> {
    RowPlace { path: &row.path, content: None, name: &row.name, lines: row.lines }
}

fn request(messages: Vec<ChatMessage>, rng: ItemRng) -> TeacherRequest {
    TeacherRequest { messages, temperature: TEMPERATURE, max_tokens: MAX_TOKENS, seed: rng.seed() >> 1 }
}

#[cfg(test)]
mod tests;
