//! The summary shown before the first step: a sample, the trainable share, the memory plan.

use crate::pack::{Document, IGNORE_INDEX};
use crate::plan::StepPlan;
use crate::row_counts::RowCounts;
use codelsi_model::tokenizer::Tokenizer;
use std::fmt;

/// The facts of a run that is about to start. `Display` prints them as a few lines of text.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// One decoded row; the loss is computed on the text between ⟦ and ⟧.
    pub sample: String,
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
    /// Options that have no effect in this run, each with the reason.
    pub notes: Vec<String>,
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sample (the loss is on the text between ⟦ and ⟧):")?;
        self.sample.lines().try_for_each(|line| writeln!(f, "  | {line}"))?;
        let share = 100.0 * self.trainable as f64 / self.total as f64;
        writeln!(f, "trainable: {} of {} parameters, {share:.4} %", self.trainable, self.total)?;
        writeln!(f, "{}", self.rows)?;
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

/// Renders a document with its loss mask, `<s>prompt⟦output</s>⟧`; long parts are shortened in the middle.
pub fn render_sample(tokenizer: &Tokenizer, document: &Document) -> String {
    let in_loss = |i: usize| i > 0 && document.targets[i - 1] != IGNORE_INDEX;
    let mut sample = String::new();
    let mut start = 0;
    while start < document.tokens.len() {
        let same = (start..document.tokens.len()).take_while(|&i| in_loss(i) == in_loss(start)).count();
        let part = &document.tokens[start..start + same];
        let text = shortened(&with_control_tokens(tokenizer, part, start == 0));
        sample += &if in_loss(start) { format!("⟦{text}⟧") } else { text };
        start += same;
    }
    sample
}

/// Decodes tokens, control tokens as their text. `first` is true at the start of a document, whose space in front is not
/// shown.
fn with_control_tokens(tokenizer: &Tokenizer, tokens: &[u32], mut first: bool) -> String {
    let is_text = |token: &u32| tokenizer.control_token(*token).is_none();
    let mut text = String::new();
    for group in tokens.chunk_by(|a, b| is_text(a) && is_text(b)) {
        text += &match tokenizer.control_token(group[0]) {
            Some(control) => control.to_string(),
            None if std::mem::take(&mut first) => tokenizer.decode(group),
            None => tokenizer.decode_continuation(group),
        };
    }
    text
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 400;
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 2 * SHOWN {
        return text.to_string();
    }
    let (head, tail) = (&chars[..SHOWN], &chars[chars.len() - SHOWN..]);
    format!("{} … {}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}
