//! A teacher: a model that writes the instruction of each item and, where wanted, harder tasks with their solutions.
//!
//! First the instruction of every row of style `write` becomes the teacher's. Then, round by round, each row's task is
//! evolved into another; an answer is filtered as any source is, and where it does not pass, the next round goes on
//! from the row before it. Every answer is kept in a [`Cache`], so a run that was cut short asks for the rest alone. The
//! rows depend on the answers, not on the order in which they come.

mod cache;
mod prompts;
mod request;

pub use crate::options::Lessons;
pub use cache::Cache;
pub use prompts::hash as prompts_hash;
pub use request::{Answered, Message, Request, Teacher};

use crate::counts::Counts;
use crate::draw::Draw;
use crate::duplicates::{repeats, unspaced};
use crate::extract::{self, Item};
use crate::filters::{Filters, secret};
use crate::options::Options;
use crate::row::{Kind, Row};
use codelsi_engine::{Error, Result};
use std::collections::HashSet;

/// Softmax temperature of what is asked: answers are to differ.
const TEMPERATURE: f32 = 0.7;
/// Tokens of an answer at most.
const MAX_TOKENS: usize = 2048;

/// Bytes of a line of code that nobody repeats by chance. The first line is the head, which may be named.
const QUOTATION: usize = 16;

/// A row with its length.
type Measured = (Row, usize);

/// Lets a teacher rewrite and evolve the rows of [`run`](crate::run). `progress` hears of (answers new, answers in all).
///
/// # Errors
/// When no row is of style `write`; the teacher's and the cache's.
pub fn teach(
    options: &Options,
    rows: Vec<Row>,
    counts: &mut Counts,
    teacher: &mut dyn Teacher,
    cache: &mut Cache,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Row>> {
    if !rows.iter().any(|row| row.style.is_write()) {
        return Err(Error::new("there is nothing to teach: no row is of style write"));
    }
    let rounds = options.lessons.as_ref().map_or(0, |lessons| lessons.evolve);
    let filters = Filters::open(options)?;
    // Evolved code must be new.
    let seen = rows.iter().map(|row| unspaced(&row.output)).collect();
    let mut class = Class { options, filters, counts, teacher, cache, progress, seen };
    let rows = class.instructed(rows)?;
    let mut heads: Vec<Row> =
        rows.iter().filter(|(row, _)| row.teacher.is_some()).map(|(row, _)| row.clone()).collect();
    let mut evolved = Vec::new();
    for round in 1..=rounds {
        class.evolved(round, &mut heads, &mut evolved)?;
    }
    let rows = class.unlike(rows, evolved);
    let (rows, lengths) = rows.into_iter().unzip();
    *counts = Counts { lengths, ..std::mem::take(counts) };
    Ok(rows)
}

/// A teacher at work.
struct Class<'a> {
    options: &'a Options,
    filters: Filters,
    counts: &'a mut Counts,
    teacher: &'a mut dyn Teacher,
    cache: &'a mut Cache,
    progress: &'a (dyn Fn(usize, usize) + Sync),
    /// Code and taught instructions so far, without white space.
    seen: HashSet<String>,
}

impl Class<'_> {
    fn ask(&mut self, requests: &[Request]) -> Result<Vec<String>> {
        let (progress, of) = (self.progress, requests.len());
        self.cache.ask(self.teacher, requests, &|new| progress(new, of))
    }

    /// Everything that a request's answer and choices are keyed by.
    fn draw(&self, row: &Row, round: usize) -> Draw {
        let repo = row.repo.as_deref().unwrap_or_default();
        Draw::new(self.options.seed, &[repo, &row.path, &row.name, "teacher", &round.to_string()])
    }

    /// Rows of style `write` with the teacher's instruction, others as they are.
    fn instructed(&mut self, rows: Vec<Row>) -> Result<Vec<Measured>> {
        let taught = rows.iter().filter(|row| row.style.is_write());
        let requests = taught.map(|row| request(prompts::instruct(row), self.draw(row, 0)));
        let requests: Vec<Request> = requests.collect();
        let mut answers = self.ask(&requests)?.into_iter();
        let lengths = std::mem::take(&mut self.counts.lengths);
        let mut kept = Vec::with_capacity(rows.len());
        for (row, length) in rows.into_iter().zip(lengths) {
            let row = match row.style.is_write() {
                true => self.reworded(row, &answers.next().unwrap_or_default()),
                false => Ok((row, length)),
            };
            match row {
                // One instruction for two programs would teach neither.
                Ok((row, _)) if row.teacher.is_some() && !self.seen.insert(unspaced(&row.instruction)) => {
                    self.counts.lose("duplicate");
                }
                Ok(row) => kept.push(row),
                Err(reason) => self.counts.lose(reason),
            }
        }
        Ok(kept)
    }

    /// The row under the instruction of an answer, or what is wrong with that.
    fn reworded(&self, row: Row, answer: &str) -> Result<Measured, &'static str> {
        let instruction = prompts::instruction(answer).ok_or("teacher-malformed")?;
        self.check(&instruction, &row.output)?;
        let objection = secret(&[&instruction]);
        let repeats = || self.filters.repeats(row.language, &row.name, &instruction, &row.output);
        let objection = objection.or_else(|| repeats().map(|_| "benchmark"));
        objection.map_or(Ok(()), Err)?;
        let length = self.filters.length(&instruction, &row.output)?;
        Ok((Row { instruction, teacher: Some(self.teacher.name().to_string()), ..row }, length))
    }

    /// One round: every head's task becomes another, and the head where it passes.
    fn evolved(&mut self, round: usize, heads: &mut [Row], evolved: &mut Vec<Measured>) -> Result<()> {
        let requests = heads.iter().map(|row| {
            let draw = self.draw(row, round);
            request(prompts::evolve(row, draw.below(0, prompts::WAYS)), draw)
        });
        let requests: Vec<Request> = requests.collect();
        let answers = self.ask(&requests)?;
        let rows: Vec<_> =
            heads.iter().zip(&answers).map(|(head, answer)| self.another(round, head, answer)).collect();
        for (head, row) in heads.iter_mut().zip(rows) {
            match row {
                Err(reason) => self.counts.drop(reason, 1),
                Ok((row, _)) if !self.is_new(&row) => self.counts.drop("duplicate", 1),
                Ok(row) => {
                    self.counts.read += 1;
                    self.counts.kept += 1;
                    *head = row.0.clone();
                    evolved.push(row);
                }
            }
        }
        Ok(())
    }

    /// The row of a task and a solution that are the teacher's own, or what is wrong with them.
    fn another(&self, round: usize, head: &Row, answer: &str) -> Result<Measured, &'static str> {
        let (instruction, output) = prompts::task(answer).ok_or("teacher-malformed")?;
        self.check(&instruction, &output)?;
        let items = extract::items(&output, head.language, &head.path).map_err(|_| "syntax")?;
        // What the code is about: its last function or class, for what comes before helps it.
        let item = items
            .iter()
            .rfind(|item| item.kind != Kind::Method && head.language.parses(&output, &head.path))
            .ok_or("syntax")?;
        let objection = self.filters.size(&output).or_else(|| secret(&[&instruction, &output]));
        let named = |item: &Item| {
            let repeat = self.filters.repeats(head.language, &item.name, &instruction, &output);
            repeat.map(|_| "benchmark")
        };
        let objection = objection.or_else(|| items.iter().find_map(named));
        objection.map_or(Ok(()), Err)?;
        let length = self.filters.length(&instruction, &output)?;
        let (name, kind) = (item.name.clone(), item.kind);
        let teacher = Some(self.teacher.name().to_string());
        Ok((Row { instruction, output, name, kind, teacher, evolved: round, ..head.clone() }, length))
    }

    /// Whether neither the code nor the instruction of a row was there before.
    fn is_new(&mut self, row: &Row) -> bool {
        let code = self.seen.insert(unspaced(&row.output));
        self.seen.insert(unspaced(&row.instruction)) && code
    }

    /// Whether an instruction asks in a few words of its own for code, and does not give it away.
    fn check(&self, instruction: &str, code: &str) -> Result<(), &'static str> {
        let limits = &self.filters.limits;
        let quotes = |line: &str| line.len() >= QUOTATION && instruction.contains(line);
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

    /// All rows, without evolved ones whose code resembles an earlier one's.
    fn unlike(&mut self, rows: Vec<Measured>, evolved: Vec<Measured>) -> Vec<Measured> {
        let before = rows.len();
        let mut all = [rows, evolved].concat();
        let Some(least) = self.options.resemblance else {
            return all;
        };
        let code: Vec<&str> = all.iter().map(|(row, _)| row.output.as_str()).collect();
        let mut repeated = repeats(&code, least).into_iter().zip(0..);
        let counts = &mut *self.counts;
        all.retain(|_| {
            // Styles of one item repeat its code on purpose.
            let repeats = repeated.next().is_some_and(|(repeats, i)| repeats && i >= before);
            if repeats {
                counts.lose("near-duplicate");
            }
            !repeats
        });
        all
    }
}

fn request(messages: Vec<Message>, draw: Draw) -> Request {
    Request { messages, temperature: TEMPERATURE, max_tokens: MAX_TOKENS, seed: draw.seed() >> 1 }
}

#[cfg(test)]
mod tests;
