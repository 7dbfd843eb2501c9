//! What a training run is told: every flag of `codelsi train`, and the recipe that a resumed run must share.

use codelsi_engine::{DType, Error, Result};
use codelsi_model::adapter::{Method, Settings};
use codelsi_model::config::Linear;
use codelsi_model::template::Template;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::str::FromStr;

/// The flags of `codelsi train`. The defaults are the paper's.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Folder of the base model.
    pub model: PathBuf,
    /// JSON Lines of `{instruction, output}`.
    pub data: PathBuf,
    /// Rows of an earlier stage, seen again so that it is not forgotten: `replay_rows` of this file, evenly spread.
    /// They are trained on and never validated.
    pub replay: Option<PathBuf>,
    pub replay_rows: usize,
    /// Where the adapter (or, with `full`, the model), `metrics.jsonl`, `recipe.json` and checkpoints go.
    pub out: PathBuf,
    /// An adapter to go on from; its method, rank, alpha and linears are kept.
    pub from: Option<PathBuf>,
    /// Train every weight instead of an adapter.
    pub full: bool,
    /// What the adapter is.
    pub method: Method,
    pub rank: usize,
    pub alpha: f32,
    /// The adapted linears.
    pub targets: Vec<Linear>,
    /// Of the adapters' inputs.
    pub dropout: f32,
    /// The highest learning rate.
    pub lr: f64,
    /// Steps until it is reached.
    pub warmup: usize,
    pub weight_decay: f32,
    /// The largest global gradient norm; `None` does not clip.
    pub clip: Option<f64>,
    pub epochs: usize,
    /// Ends earlier, and plans the schedule for that end.
    pub max_steps: Option<usize>,
    /// Tokens of a packed sequence, at most.
    pub seq: usize,
    /// Sequences a step.
    pub batch: usize,
    /// Sequences that pass through the model together.
    pub micro_batch: usize,
    pub template: Template,
    /// Rows set aside for the validation loss.
    pub validation: usize,
    /// Rows of a file of their own that the validation loss is measured on instead; none is set aside then.
    pub validation_data: Option<PathBuf>,
    /// Steps between validations; 0 measures before the first and after the last step only.
    pub validate_every: usize,
    /// Steps between checkpoints; 0 saves after the last step only.
    pub save_every: usize,
    /// Go on from the last checkpoint in `out`, if there is one.
    pub resume: bool,
    /// What layers keep for backward. Changes no bit of the result.
    pub checkpointing: Checkpointing,
    /// Storage of activations.
    pub compute: DType,
    pub seed: u64,
}

/// How many layers keep only their input and run again in backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpointing {
    /// As few as the memory allows; all of them where no plan was made.
    #[default]
    Auto,
    /// The first ones, at most all.
    Layers(usize),
}

impl Checkpointing {
    /// Every layer runs again.
    pub const ALL: Checkpointing = Checkpointing::Layers(usize::MAX);
    /// Everything is kept.
    pub const NONE: Checkpointing = Checkpointing::Layers(0);

    /// Of `layers`, those that run again.
    pub fn of(self, layers: usize) -> usize {
        match self {
            Checkpointing::Auto => layers,
            Checkpointing::Layers(n) => n.min(layers),
        }
    }
}

impl FromStr for Checkpointing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Checkpointing::Auto),
            ("all", _) => Ok(Checkpointing::ALL),
            ("none", _) => Ok(Checkpointing::NONE),
            (_, Ok(layers)) => Ok(Checkpointing::Layers(layers)),
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
            targets: Linear::ALL.to_vec(),
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
            template: Template::Paper,
            validation: 16,
            validation_data: None,
            validate_every: 0,
            save_every: 50,
            resume: false,
            checkpointing: Checkpointing::Auto,
            compute: DType::BF16,
            seed: 42,
        }
    }
}

impl TrainOptions {
    /// Refuses what no run can be made of. `positions` is the longest sequence the model knows.
    pub fn check(&self, positions: usize) -> Result<()> {
        let wrong = [
            (self.batch == 0 || self.micro_batch == 0, "batch and micro-batch are at least 1".to_string()),
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
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, rule)) => Err(Error::new(format!("training options: {rule}"))),
            None => Ok(()),
        }
    }

    /// The adapter that is to be trained, but its values.
    pub fn adapter(&self) -> Settings {
        let TrainOptions { method, rank, alpha, dropout, .. } = *self;
        Settings { method, rank, alpha, dropout, targets: self.targets.iter().copied().collect() }
    }

    /// Everything that decides the result, for `recipe.json` and to be compared on resume.
    pub fn recipe(&self) -> Map<String, Value> {
        let recipe = json!({
            "model": self.model, "data": self.data,
            "replay": self.replay, "replay_rows": self.replay_rows, "from": self.from, "full": self.full,
            "rank": self.rank, "alpha": written(self.alpha), "method": self.method.to_string(), "dropout": written(self.dropout),
            "targets": self.targets.iter().map(|linear| linear.name()).collect::<Vec<_>>(),
            "lr": self.lr, "warmup": self.warmup, "weight_decay": written(self.weight_decay), "clip": self.clip,
            "epochs": self.epochs, "max_steps": self.max_steps,
            "seq": self.seq, "batch": self.batch, "micro_batch": self.micro_batch,
            "template": self.template.name(), "validation": self.validation, "validation_data": self.validation_data,
            "compute": format!("{:?}", self.compute).to_lowercase(),
            "seed": self.seed,
        });
        recipe.as_object().cloned().unwrap_or_default()
    }
}

/// An f32 as it was written: 0.05, not 0.05000000074505806.
fn written(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x as f64)
}
