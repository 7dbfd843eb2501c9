//! The options of a training run: every flag of `codelsi train`, and the recipe that a resumed run must share.

use codelsi_engine::{DType, Error, Result};
use codelsi_model::adapter::{AdapterConfig, Method};
use codelsi_model::config::LinearName;
use codelsi_model::template::PromptTemplate;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::str::FromStr;

/// Maximum tokens of an optimizer step.
const MAX_STEP_TOKENS: usize = 1 << 25;

/// The options of a training run, as the flags of `codelsi train`. The defaults are those of the CodeLSI paper
/// (arXiv 2509.14373).
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Folder of the base model.
    pub model: PathBuf,
    /// Training rows: JSON Lines of `{instruction, output}`.
    pub data: PathBuf,
    /// Rows of an earlier stage, mixed in against forgetting: `replay_rows` of this file at even distances. They are
    /// trained on and never used for validation.
    pub replay: Option<PathBuf>,
    /// Number of rows taken from `replay`.
    pub replay_rows: usize,
    /// Output folder of the adapter (with `full`: the model), `metrics.jsonl`, `recipe.json` and the checkpoints.
    pub out: PathBuf,
    /// An adapter to start from; its method, rank, alpha and target linears are kept.
    pub from: Option<PathBuf>,
    /// Trains every weight instead of an adapter.
    pub full: bool,
    /// Adapter method: LoRA, DoRA, …
    pub method: Method,
    /// Rank of the adapter.
    pub rank: usize,
    /// Scale of the adapter: alpha / rank, or alpha / √rank with rsLoRA.
    pub alpha: f32,
    /// Linears that get an adapter.
    pub targets: Vec<LinearName>,
    /// Dropout probability of the adapters' inputs.
    pub dropout: f32,
    /// Peak learning rate.
    pub lr: f64,
    /// Warm-up steps until the peak.
    pub warmup: usize,
    /// Weight decay of AdamW.
    pub weight_decay: f32,
    /// Maximum global gradient norm; `None` does not clip.
    pub clip: Option<f64>,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Maximum number of steps; the learning-rate schedule ends there.
    pub max_steps: Option<usize>,
    /// Maximum tokens of a packed sequence.
    pub seq: usize,
    /// Sequences per step.
    pub batch: usize,
    /// Sequences per forward and backward pass.
    pub micro_batch: usize,
    /// Prompt template around each instruction.
    pub template: PromptTemplate,
    /// Rows held out for the validation loss.
    pub validation: usize,
    /// A file of validation rows; no training rows are held out then.
    pub validation_data: Option<PathBuf>,
    /// Steps between validations; 0 validates before the first and after the last step only.
    pub validate_every: usize,
    /// Steps between checkpoints; 0 saves after the last step only.
    pub save_every: usize,
    /// Resumes from the last checkpoint in `out`, if there is one.
    pub resume: bool,
    /// Activation checkpointing. Does not change the result.
    pub checkpointing: ActivationCheckpointing,
    /// Data type of activations.
    pub compute: DType,
    /// Seed of the adapter's initial values, the order of rows, the validation split and dropout.
    pub seed: u64,
}

/// Activation checkpointing: the number of layers that keep only their input and run forward again in backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationCheckpointing {
    /// The fewest layers that the memory plan allows; all of them without a plan.
    #[default]
    Auto,
    /// The first `n` layers, or all if there are fewer.
    Layers(usize),
}

impl ActivationCheckpointing {
    /// Recomputes every layer.
    pub const ALL: ActivationCheckpointing = ActivationCheckpointing::Layers(usize::MAX);
    /// Recomputes nothing.
    pub const NONE: ActivationCheckpointing = ActivationCheckpointing::Layers(0);

    /// The number of recomputed layers in a model of `layers` layers.
    pub fn recomputed_layers(self, layers: usize) -> usize {
        match self {
            ActivationCheckpointing::Auto => layers,
            ActivationCheckpointing::Layers(n) => n.min(layers),
        }
    }
}

impl FromStr for ActivationCheckpointing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.parse()) {
            ("auto", _) => Ok(ActivationCheckpointing::Auto),
            ("all", _) => Ok(ActivationCheckpointing::ALL),
            ("none", _) => Ok(ActivationCheckpointing::NONE),
            (_, Ok(layers)) => Ok(ActivationCheckpointing::Layers(layers)),
            _ => Err(Error::new(format!(
                "checkpointing is auto, all, none or a number of layers, not `{text}`"
            ))),
        }
    }
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions {
            model: PathBuf::new(),
            data: PathBuf::new(),
            replay: None,
            replay_rows: 0,
            out: PathBuf::new(),
            from: None,
            full: false,
            method: Method::LORA,
            rank: 16,
            alpha: 32.0,
            targets: LinearName::ALL.to_vec(),
            dropout: 0.05,
            lr: 2e-4,
            warmup: 10,
            weight_decay: 0.0,
            clip: Some(1.0),
            epochs: 1,
            max_steps: None,
            seq: 4096,
            batch: 16,
            micro_batch: 1,
            template: PromptTemplate::Paper,
            validation: 16,
            validation_data: None,
            validate_every: 0,
            save_every: 50,
            resume: false,
            checkpointing: ActivationCheckpointing::Auto,
            compute: DType::BF16,
            seed: 42,
        }
    }
}

impl TrainOptions {
    /// Checks the options. `positions` is the maximum sequence length of the model.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, positions: usize) -> Result<()> {
        let rules = [
            (self.batch == 0 || self.micro_batch == 0, "batch and micro-batch are at least 1".to_string()),
            (
                self.batch.saturating_mul(self.seq) > MAX_STEP_TOKENS || self.micro_batch > MAX_STEP_TOKENS,
                format!("a step has at most {MAX_STEP_TOKENS} tokens, batch times sequence"),
            ),
            (self.epochs == 0 || self.max_steps == Some(0), "at least one epoch and one step".to_string()),
            (self.seq < 2 || self.seq > positions, format!("sequences have 2 to {positions} tokens here")),
            (!(self.lr > 0.0 && self.lr.is_finite()), "the learning rate is above 0".to_string()),
            (!(0.0..1.0).contains(&self.dropout), "dropout is at least 0 and below 1".to_string()),
            (self.clip.is_some_and(|clip| clip.is_nan() || clip <= 0.0), "the clip is above 0".to_string()),
            (
                self.replay.is_some() != (self.replay_rows > 0),
                "a replay is a file and a number of its rows".to_string(),
            ),
            (self.full && self.from.is_some(), "full training does not start from an adapter".to_string()),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(Error::new(format!("training options: {rule}"))),
            None => Ok(()),
        }
    }

    /// The settings of the adapter to train.
    pub fn adapter_settings(&self) -> AdapterConfig {
        let TrainOptions { method, rank, alpha, dropout, .. } = *self;
        AdapterConfig { method, rank, alpha, dropout, targets: self.targets.iter().copied().collect() }
    }

    /// All options that determine the result, for `recipe.json` and for the comparison on resume.
    pub fn recipe(&self) -> Map<String, Value> {
        let recipe = json!({
            "model": self.model, "data": self.data,
            "replay": self.replay, "replay_rows": self.replay_rows, "from": self.from, "full": self.full,
            "rank": self.rank, "alpha": shortest_decimal(self.alpha), "method": self.method.to_string(), "dropout": shortest_decimal(self.dropout),
            "targets": self.targets.iter().map(|linear| linear.name()).collect::<Vec<_>>(),
            "lr": self.lr, "warmup": self.warmup, "weight_decay": shortest_decimal(self.weight_decay), "clip": self.clip,
            "epochs": self.epochs, "max_steps": self.max_steps,
            "seq": self.seq, "batch": self.batch, "micro_batch": self.micro_batch,
            "template": self.template.name(), "validation": self.validation, "validation_data": self.validation_data,
            "compute": format!("{:?}", self.compute).to_lowercase(),
            "seed": self.seed,
        });
        recipe.as_object().cloned().unwrap_or_default()
    }
}

/// Converts an f32 through its shortest decimal form: 0.05, not 0.05000000074505806.
fn shortest_decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x as f64)
}
