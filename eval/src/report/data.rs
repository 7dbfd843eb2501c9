//! The contents of a report: plain data, stored as JSON.

use crate::evaluate::ModelResult;
use crate::held_out::HeldOutResult;
use crate::infilling::InfillResult;
use crate::statistics::{PairedDifference, Verdict, verdicts};
use serde::{Deserialize, Serialize};

/// The contents of a report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub title: String,
    /// One sentence under the title: base model, data, device.
    pub subtitle: String,
    /// The rows of the paper's table, in order: base, general, specialized, …
    pub models: Vec<TrainingSummary>,
    /// Shows the paper's own figures next to those of this run.
    #[serde(default, rename = "beside_paper")]
    pub compare_with_paper: bool,
    /// The quantity that differs from model to model, if it is only one.
    #[serde(default)]
    pub sweep: Option<Sweep>,
    /// The models before and after the specialized stage, whose difference the report tells first.
    #[serde(default)]
    pub specialization: Option<(String, String)>,
    /// Draws what each model gains on the last set of problems against what it keeps on the first.
    #[serde(default)]
    pub shows_tradeoff: bool,
    /// Groups of problems, each with its own chart: general problems, private-API problems.
    pub sets: Vec<ProblemSet>,
    /// Results on rows of private repositories that no stage has trained on.
    #[serde(default)]
    pub held_out: Vec<RepositoryResult>,
    /// Results on holes in files that no model has trained on.
    #[serde(default)]
    pub infilling: Vec<InfillResult>,
    /// Exposure of random secrets in the training rows, by model.
    #[serde(default)]
    pub exposures: Vec<Exposure>,
    /// Loss curves of training, one per model.
    pub curves: Vec<LossCurve>,
    /// Rows that the curation read, kept and dropped, by source.
    pub curation: Vec<CurationSummary>,
    /// Wall time of the stages, in order.
    pub timings: Vec<StageTiming>,
    /// Bytes of requests that this process sent to servers.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Tokens that the same work would have sent to a hosted model.
    #[serde(default)]
    pub hosted: HostedTokens,
    /// Date, machine, device, program and command as name and value.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// The recipe and other settings as name and value.
    pub settings: Vec<(String, String)>,
    /// Notes for the interpretation of the figures.
    pub notes: Vec<String>,
}

/// The training of one model. Its results are in the problem sets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrainingSummary {
    pub name: String,
    /// Number of trainable parameters.
    pub trainable: Option<u64>,
    /// Number of all parameters.
    pub total: Option<u64>,
    pub steps: Option<usize>,
    pub tokens: Option<u64>,
    pub first_loss: Option<f64>,
    pub last_loss: Option<f64>,
    /// Before and after training.
    pub validation_loss: Option<(f64, f64)>,
    pub tokens_per_s: Option<f64>,
    /// Peak device memory in bytes.
    pub peak_bytes: Option<u64>,
}

/// The quantity in which the models differ.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sweep {
    pub name: String,
    /// Each value with the name of its model, in order.
    pub points: Vec<(String, String)>,
}

/// One set of problems, measured under one protocol.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProblemSet {
    pub name: String,
    pub results: Vec<ModelResult>,
    pub differences: Vec<ModelComparison>,
}

impl ProblemSet {
    /// Computes all intervals and differences again from the problems' counts, so that a report of an earlier version is
    /// judged by today's rule.
    pub fn recompute(&mut self) {
        for result in self.results.iter_mut().filter(|result| !result.per_problem.is_empty()) {
            let interval = result.interval();
            (result.low, result.high) = (interval.low, interval.high);
        }
        for compared in &mut self.differences {
            let result = |name: &str| self.results.iter().find(|result| result.name == name);
            let pair = result(&compared.from).zip(result(&compared.to));
            if let Some(difference) = pair.and_then(|(from, to)| to.difference_from(from).ok()) {
                compared.difference = difference;
            }
        }
    }

    /// Judges the set's differences together: each is significant or noise.
    pub fn verdicts(&self) -> Vec<Verdict> {
        verdicts(self.differences.iter().map(|compared| &compared.difference))
    }
}

/// The difference between two models.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelComparison {
    pub from: String,
    pub to: String,
    pub difference: PairedDifference,
}

/// The models' results on the rows that one private repository held out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RepositoryResult {
    pub repository: String,
    /// Number of rows that were trained on.
    pub trained: usize,
    /// Exported classes, methods and functions that these rows show, and their total.
    pub shown: (usize, usize),
    /// One per model, in order: before the specialized stage, after it.
    pub readings: Vec<HeldOutResult>,
    /// The last model against the first: share of answers that parse.
    pub valid: Option<PairedDifference>,
    /// The last model against the first: share of names used.
    pub names: Option<PairedDifference>,
}

/// Tokens that a hosted model would have been sent for the same work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedTokens {
    /// Tokens of the training rows, once per training.
    pub row_tokens: u64,
    /// Tokens of the prompts of the evaluated problems, once per sample and model.
    pub prompt_tokens: u64,
}

/// Exposure of the canaries by a model (arXiv 1802.08232).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exposure {
    pub model: String,
    /// Number of values among which each secret is ranked, itself included.
    pub candidates: usize,
    /// Exposure of each canary, in bits.
    pub bits: Vec<f64>,
}

/// The loss curve of one training run, as pairs of step and loss.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LossCurve {
    pub name: String,
    pub training: Vec<(f64, f64)>,
    pub validation: Vec<(f64, f64)>,
}

/// The curation of one source of data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CurationSummary {
    pub name: String,
    /// Number of rows read.
    pub read: usize,
    pub kept: usize,
    /// Reason and number of rows, in the order of the checks.
    pub dropped: Vec<(String, usize)>,
}

/// The wall time of one stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageTiming {
    pub name: String,
    pub seconds: f64,
}
