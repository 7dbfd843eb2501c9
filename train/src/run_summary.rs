//! The summary shown before the first step: a sample, the trainable share, the memory plan.

use crate::pack::{Document, IGNORE_INDEX};
use crate::plan::StepPlan;
use crate::row_counts::RowCounts;
use codelsi_engine::printable;
use codelsi_model::tokenizer::{DecodeStream, Tokenizer};
use std::fmt;

/// The facts of a run that is about to start. `Display` prints them as a few lines of text.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// One decoded row; the loss is computed on the text between ⟦ and ⟧.
    pub sample: String,
    /// The tokens that end a text, in words.
    pub end_tokens: String,
    /// Number of trained parameters.
    pub trainable: usize,
    /// Number of all parameters.
    pub total: usize,
    pub memory: StepPlan,
    /// Rate at which the weights were loaded to a GPU, in GB/s.
    pub load_gb_per_s: Option<f64>,
    /// Optimizer steps of the whole run.
    pub steps: usize,
    /// Steps done before a resume.
    pub completed_steps: usize,
    pub rows: RowCounts,
    /// Description of the loss of a step, where that is not cross-entropy alone.
    pub loss: Option<String>,
    /// Options that have no effect in this run, each with the reason.
    pub notes: Vec<String>,
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sample (the loss is on the text between ⟦ and ⟧):")?;
        self.sample.lines().try_for_each(|line| writeln!(f, "  | {line}"))?;
        writeln!(f, "{}", self.end_tokens)?;
        let share = 100.0 * self.trainable as f64 / self.total as f64;
        writeln!(f, "trainable: {} of {} parameters, {share:.4} %", self.trainable, self.total)?;
        writeln!(f, "{}", self.rows)?;
        self.loss.iter().try_for_each(|loss| writeln!(f, "loss: {loss}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        write!(f, "steps: {}", self.steps)?;
        if self.completed_steps > 0 {
            write!(f, ", going on after step {}", self.completed_steps)?;
        }
        if let Some(rate) = self.load_gb_per_s {
            write!(f, "\nweights were loaded at {rate:.1} GB/s")?;
        }
        write!(f, "\nmemory plan:\n{}", self.memory)
    }
}

/// Characters of a part of a document that are shown.
const SHOWN: usize = 800;

/// Renders a document with its loss mask, `<s>prompt⟦output</s>⟧`; long parts are shortened in the middle.
pub fn render_sample(tokenizer: &Tokenizer, document: &Document) -> String {
    // A position's target is the next token.
    let in_loss = document.targets.iter().map(|&target| target != IGNORE_INDEX);
    let in_loss: Vec<bool> = std::iter::once(false).chain(in_loss).collect();
    let tokens: Vec<(u32, bool)> = document.tokens.iter().copied().zip(in_loss).collect();
    let part = |part: &[(u32, bool)]| {
        let text = printable(&spell(tokenizer, part.iter().map(|(id, _)| *id)), SHOWN);
        if part[0].1 { format!("⟦{text}⟧") } else { text }
    };
    let text: String = tokens.chunk_by(|a, b| a.1 == b.1).map(part).collect();
    // The dummy space at the start is no part of the text.
    let start: String = document.tokens.iter().map_while(|&id| tokenizer.control_token(id)).collect();
    match text.strip_prefix(&start).and_then(|text| text.strip_prefix(' ')) {
        Some(rest) => start + rest,
        None => text,
    }
}

/// Decodes tokens, control tokens as they are spelled.
fn spell(tokenizer: &Tokenizer, ids: impl Iterator<Item = u32>) -> String {
    let mut text = DecodeStream::default();
    let spell = |id| {
        let decoded = text.push(tokenizer, id);
        decoded + tokenizer.control_token(id).unwrap_or_default()
    };
    ids.map(spell).collect()
}
