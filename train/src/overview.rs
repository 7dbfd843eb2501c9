//! What a run shows before its first step: a sample, the trainable share, the memory plan.

use crate::pack::{Document, IGNORED};
use crate::plan::StepPlan;
use codelsi_model::tokenizer::Tokenizer;
use std::fmt;

/// The facts of a run that is about to start. Displays as a few lines for people.
#[derive(Clone, Debug)]
pub struct Overview {
    /// One decoded row; its loss is on what stands between ⟦ and ⟧.
    pub sample: String,
    /// Parameters that are trained, and all there are.
    pub trainable: usize,
    pub total: usize,
    pub memory: StepPlan,
    /// GB a second at which weights came to a card.
    pub load_gb_per_s: Option<f64>,
    /// Optimizer steps of the whole run, and those done before a resume.
    pub steps: usize,
    pub done: usize,
    /// Training and validation rows.
    pub rows: [usize; 2],
    /// Rows cut to the sequence length, and rows whose prompt alone fills it.
    pub truncated: usize,
    pub dropped: usize,
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sample (the loss is on what stands between ⟦ and ⟧):")?;
        self.sample.lines().try_for_each(|line| writeln!(f, "  | {line}"))?;
        let share = 100.0 * self.trainable as f64 / self.total as f64;
        writeln!(f, "trainable: {} of {} parameters, {share:.4} %", self.trainable, self.total)?;
        let [training, validation] = self.rows;
        write!(f, "rows: {training} to train on, {validation} to validate")?;
        writeln!(f, "; {} cut, {} dropped as too long", self.truncated, self.dropped)?;
        write!(f, "steps: {}", self.steps)?;
        if self.done > 0 {
            write!(f, ", going on after step {}", self.done)?;
        }
        if let Some(rate) = self.load_gb_per_s {
            write!(f, "\nweights came at {rate:.1} GB/s")?;
        }
        write!(f, "\nmemory plan:\n{}", self.memory)
    }
}

/// A document as text with its loss mask: `<s>prompt⟦output</s>⟧`; long parts are shortened in the middle.
pub fn sample(tokenizer: &Tokenizer, document: &Document) -> String {
    let first =
        document.targets.iter().position(|&t| t != IGNORED).map_or(document.tokens.len(), |at| at + 1);
    let (prompt, output) = document.tokens.split_at(first);
    let end =
        if tokenizer.eos().is_some() && output.last().copied() == tokenizer.eos() { "</s>" } else { "" };
    let start =
        if tokenizer.bos().is_some() && prompt.first().copied() == tokenizer.bos() { "<s>" } else { "" };
    let (prompt, output) = (tokenizer.decode(prompt), tokenizer.decode_continuation(output));
    format!("{start}{}⟦{}{end}⟧", shortened(&prompt), shortened(&output))
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
