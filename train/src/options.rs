//! The options of a training run: every flag of `codelsi train`, and the recipe that a resumed run must share.

use crate::data::Columns;
use codelsi_engine::{At, DType, Error, Result};
use codelsi_kernels::dropout::DropoutRate;
use codelsi_model::adapter::{AdapterConfig, Method};
use codelsi_model::checkpoint::PackWeights;
use codelsi_model::config::LinearName;
use codelsi_model::template::PromptTemplate;
use codelsi_model::trainable::Trainable;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

/// Range of the sequences in a step.
pub const SEQUENCES: RangeInclusive<usize> = 1..=1 << 16;

/// Range of the optimizer's steps.
pub const STEPS: RangeInclusive<usize> = 1..=1_000_000_000;

/// Range of the passes over the rows.
pub const EPOCHS: RangeInclusive<usize> = 1..=1_000_000;

/// Range of an adapter's rank.
pub const RANK: RangeInclusive<usize> = 1..=1 << 14;

/// Maximum tokens of an optimizer step.
const MAX_STEP_TOKENS: usize = 1 << 25;

/// The options of a training run, as the flags of `codelsi train`. The defaults are those of the CodeLSI paper
/// (arXiv 2509.14373).
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Folder of the base model.
    pub model: PathBuf,
    /// Files and folders of training rows, in the forms that [`crate::data::read`] reads.
    pub data: Vec<PathBuf>,
    /// The columns of `data` and `validation_data` that hold the text of rows, where they have other names.
    pub columns: Columns,
    /// Rows of an earlier stage, mixed in against forgetting: `replay_rows` of this file at even distances. They are
    /// trained on and never used for validation.
    pub replay: Option<PathBuf>,
    /// Number of rows taken from `replay` for an epoch.
    pub replay_rows: usize,
    /// Takes other rows of `replay` in every epoch, in a random order, until all have been taken.
    pub replay_fresh: bool,
    /// Weight of the distillation, 0 for none: on the labelled tokens of replayed rows the loss is this times the KL
    /// divergence of the model's distribution from that of the adapter `from`, in place of cross-entropy (learning without
    /// forgetting, arXiv 1606.09282).
    pub distill: f64,
    /// Output folder of the adapter (with `full`: the model), `metrics.jsonl`, `recipe.json` and the checkpoints.
    pub out: PathBuf,
    /// An adapter to start from, of the same method, rank, alpha and target linears.
    pub from: Option<PathBuf>,
    /// Adapters that become the frozen experts of a mixture, whose routers are trained (X-LoRA, arXiv 2402.07148).
    pub experts: Vec<PathBuf>,
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
    /// Modules of the base that are trained in full beside the adapter, PEFT's `modules_to_save`.
    pub modules_to_save: Vec<String>,
    /// Dropout probability of the adapters' inputs; masks realise the nearest multiple of 1/65536.
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
    /// Goes through the rows in a random order, another one in each epoch; otherwise in the file's.
    pub shuffle: bool,
    /// Packs several rows into a sequence; otherwise a sequence is one row.
    pub packing: bool,
    /// Rows held out for the validation loss.
    pub validation: usize,
    /// Share of the rows that is held out, instead of a number of them.
    pub validation_share: Option<f64>,
    /// A file or folder of validation rows; no training rows are held out then.
    pub validation_data: Option<PathBuf>,
    /// Steps between validations; 0 validates before the first and after the last step only.
    pub validate_every: usize,
    /// Ends the run after so many validations without a lower loss; the result is that of the lowest one.
    pub patience: Option<usize>,
    /// Steps between checkpoints; 0 saves after the last step only.
    pub save_every: usize,
    /// Resumes from the last checkpoint in `out`, if there is one.
    pub resume: bool,
    /// Activation checkpointing. Does not change the result.
    pub checkpointing: ActivationCheckpointing,
    /// Data type of activations.
    pub compute: DType,
    /// Packed copies of frozen weights on the CPU. Does not change the result.
    pub pack_weights: PackWeights,
    /// Train on rows whose answer is blank too, where rows are plain text and not answers: of these, the end is learned.
    pub blank_answers: bool,
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
            data: Vec::new(),
            columns: Columns::default(),
            replay: None,
            replay_rows: 0,
            replay_fresh: false,
            distill: 0.0,
            out: PathBuf::new(),
            from: None,
            experts: Vec::new(),
            full: false,
            method: Method::LORA,
            rank: 16,
            alpha: 32.0,
            targets: LinearName::ALL.to_vec(),
            modules_to_save: Vec::new(),
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
            shuffle: true,
            packing: true,
            validation: 16,
            validation_share: None,
            validation_data: None,
            validate_every: 0,
            patience: None,
            save_every: 50,
            resume: false,
            checkpointing: ActivationCheckpointing::Auto,
            compute: DType::BF16,
            pack_weights: PackWeights::Off,
            blank_answers: false,
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
        self.check_numbers()?;
        let rules = [
            (
                self.batch.saturating_mul(self.seq) > MAX_STEP_TOKENS || self.micro_batch > MAX_STEP_TOKENS,
                format!("a step has at most {MAX_STEP_TOKENS} tokens, batch times sequence"),
            ),
            (self.seq < 2 || self.seq > positions, format!("sequences have 2 to {positions} tokens here")),
            (
                self.validation_share.is_some_and(|share| !(share > 0.0 && share < 1.0)),
                "a share of rows to validate with is above 0 and below 1".to_string(),
            ),
            (
                self.replay.is_some() != (self.replay_rows > 0),
                "a replay is a file and a number of its rows".to_string(),
            ),
            (self.replay_fresh && self.replay.is_none(), "fresh rows need a replay to come from".to_string()),
            (
                self.patience.is_some() && (self.validate_every == 0 || !self.validates()),
                "early stopping needs validation rows and a number of steps between validations".to_string(),
            ),
            (
                self.distill > 0.0 && (self.replay.is_none() || self.from.is_none()),
                "distillation needs rows to replay and an adapter to start from, their teacher: give --replay and --from, or leave out --distill"
                    .to_string(),
            ),
            (
                !self.modules_to_save.is_empty() && (self.full || !self.experts.is_empty()),
                "the embedding and the head are trained beside an adapter: leave out --also".to_string(),
            ),
            (self.full && self.from.is_some(), "full training does not start from an adapter".to_string()),
            (
                !self.experts.is_empty() && (self.full || self.from.is_some()),
                "routers are trained between the experts: leave out --full and --from".to_string(),
            ),
            (
                !self.experts.is_empty() && self.method != Method::Mixture { experts: self.experts.len() },
                format!("{} frozen experts are a mixture of as many, not {}", self.experts.len(), self.method),
            ),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(Error::new(format!("training options: {rule}"))),
            None => DropoutRate::new(self.dropout).map(|_| ()).at("training options"),
        }
    }

    /// Returns these options without rows of an earlier stage.
    pub fn without_replay(&self) -> TrainOptions {
        TrainOptions { replay: None, replay_rows: 0, replay_fresh: false, distill: 0.0, ..self.clone() }
    }

    /// Returns true if the run has validation rows.
    fn validates(&self) -> bool {
        self.validation > 0 || self.validation_share.is_some() || self.validation_data.is_some()
    }

    /// Checks the range of every number.
    fn check_numbers(&self) -> Result<()> {
        let max_steps = self.max_steps.unwrap_or(1);
        for (name, value, range) in [
            ("batch", self.batch, SEQUENCES),
            ("micro-batch", self.micro_batch, SEQUENCES),
            ("epochs", self.epochs, EPOCHS),
            ("max-steps", max_steps, STEPS),
            ("rank", self.rank, RANK),
            ("patience", self.patience.unwrap_or(1), STEPS),
            ("warmup", self.warmup, 0..=*STEPS.end()),
        ] {
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                return Err(Error::new(format!(
                    "training options: --{name} is {value}, not from {least} to {most}"
                )));
            }
        }
        // Each is computed with as an f32, so it has to be one.
        let is_above_0 = |x: f64| x as f32 > 0.0 && (x as f32).is_finite();
        let (above_0, at_least_0) = ("a number above 0", "a number, at least 0");
        let TrainOptions { lr, alpha, dropout, weight_decay, distill, .. } = *self;
        let clip = self.clip.unwrap_or(1.0);
        for (name, value, in_range, range) in [
            ("lr", lr, is_above_0(lr), above_0),
            ("alpha", shortest_decimal(alpha), is_above_0(alpha.into()), above_0),
            ("dropout", shortest_decimal(dropout), (0.0..1.0).contains(&dropout), "at least 0 and below 1"),
            (
                "weight-decay",
                shortest_decimal(weight_decay),
                weight_decay >= 0.0 && weight_decay.is_finite(),
                at_least_0,
            ),
            ("clip", clip, is_above_0(clip), above_0),
            ("distill", distill, distill == 0.0 || is_above_0(distill), at_least_0),
        ] {
            if !in_range {
                return Err(Error::new(format!("training options: --{name} is {value:?}, not {range}")));
            }
        }
        Ok(())
    }

    /// The weights that the run changes.
    pub fn trainable(&self) -> Trainable {
        match (self.full, self.experts.is_empty()) {
            (true, _) => Trainable::AllWeights,
            (false, true) => Trainable::Adapter,
            (false, false) => Trainable::Routers,
        }
    }

    /// The settings of the adapter to train.
    pub fn adapter_settings(&self) -> AdapterConfig {
        let TrainOptions { method, rank, alpha, dropout, .. } = *self;
        AdapterConfig {
            method,
            modules_to_save: self.modules_to_save.clone(),
            ..AdapterConfig::lora(rank, alpha, dropout, &self.targets)
        }
    }
}

/// Converts an f32 through its shortest decimal form: 0.05, not 0.05000000074505806.
pub(crate) fn shortest_decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x as f64)
}
