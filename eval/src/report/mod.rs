//! `report.html`: one self-contained page, drawn as SVG, with no script and no network.
//!
//! The page says what was measured and how. It is filled from plain data, so it knows no other crate; what a run has
//! not measured is left out rather than shown empty.

mod bars;
mod chart;
mod curves;
mod failures;
mod held_out;
mod markdown;
mod matrix;
mod page;
mod paper;
mod sweep;
mod table;

pub use held_out::differences as held_out_differences;

use crate::evaluate::ModelResult;
use crate::held_out::Reading;
use crate::statistics::Difference;
use codelsi_engine::Result;
use codelsi_engine::files::write_atomic;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// All that a report can show.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub title: String,
    /// One sentence under the title: base model, data, device.
    pub subtitle: String,
    /// The rows of the paper's table, in order: base, general, specialized, …
    pub models: Vec<Row>,
    /// Whether the paper's own figures stand beside them.
    #[serde(default)]
    pub beside_paper: bool,
    /// What was varied from model to model, where that is one quantity.
    #[serde(default)]
    pub sweep: Option<Sweep>,
    /// Groups of problems, each with its own chart: general problems, private-API problems.
    pub sets: Vec<ProblemSet>,
    /// Rows of private repositories that no stage has trained on, answered and read.
    #[serde(default)]
    pub held_out: Vec<HeldOut>,
    /// Loss over training, one line a model.
    pub curves: Vec<Curve>,
    /// What the curation read, kept and dropped.
    pub curation: Vec<Curation>,
    /// Wall time of the stages, in order.
    pub timings: Vec<Timing>,
    /// The recipe and other settings as name and value.
    pub settings: Vec<(String, String)>,
    /// Sentences that a reader must know to read the figures right.
    pub notes: Vec<String>,
}

/// A model's row: how it was trained. What it earned stands in the sets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub trainable: Option<u64>,
    pub total: Option<u64>,
    pub steps: Option<usize>,
    pub tokens: Option<u64>,
    pub first_loss: Option<f64>,
    pub last_loss: Option<f64>,
    /// Before and after training.
    pub validation_loss: Option<(f64, f64)>,
    pub tokens_per_s: Option<f64>,
    pub peak_bytes: Option<u64>,
}

/// A quantity that models differ in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sweep {
    pub name: String,
    /// Each value with the model that has it, in order.
    pub points: Vec<(String, String)>,
}

/// One set of problems, measured under one protocol.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProblemSet {
    pub name: String,
    pub results: Vec<ModelResult>,
    pub differences: Vec<Compared>,
}

/// The difference of two models.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    pub from: String,
    pub to: String,
    pub difference: Difference,
}

/// What models made of the rows that one private repository held out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HeldOut {
    pub repository: String,
    /// Rows that were trained on, and how many of the exported classes, methods and functions they show.
    pub trained: usize,
    pub shown: (usize, usize),
    /// One for each model, in order: before the specialized stage, after it.
    pub readings: Vec<Reading>,
    /// The last model against the first: answers that parse, and names found.
    pub valid: Option<Difference>,
    pub names: Option<Difference>,
}

/// The points of a loss curve.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Curve {
    pub name: String,
    /// Step and loss.
    pub training: Vec<(f64, f64)>,
    pub validation: Vec<(f64, f64)>,
}

/// What became of one source of data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Curation {
    pub name: String,
    pub read: usize,
    pub kept: usize,
    /// Reason and number, in the order of the checks.
    pub dropped: Vec<(String, usize)>,
}

/// How long a stage took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Timing {
    pub name: String,
    pub seconds: f64,
}

impl Report {
    /// The page.
    pub fn html(&self) -> String {
        page::html(self)
    }

    /// The same figures as Markdown.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// Writes the page whole or not at all.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path, self.html().as_bytes())
    }
}

#[cfg(test)]
mod tests;
