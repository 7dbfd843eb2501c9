//! `codelsi train`: instruction tuning with adapters, or full training of small models.

use crate::args::{MethodArgs, ModelArgs, RankArgs, StepArgs, folder, help, number};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::Result;
use codelsi_experiment::output::Output;
use codelsi_experiment::training::train;
use codelsi_model::adapter::{Adapter, AdapterConfig};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::LinearName;
use codelsi_model::template::PromptTemplate;
use codelsi_train::data::Columns;
use codelsi_train::options::{ActivationCheckpointing, TrainOptions};
use codelsi_train::trainer::TrainReport;
use serde_json::to_value;
use std::path::PathBuf;

/// Fine-tune a model on instruction rows; the defaults are the paper's.
#[derive(Args)]
pub struct TrainArgs {
    #[arg(long, help = help::DATA, value_name = "PATH", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// Folder for the adapter, metrics.jsonl, order.jsonl, recipe.json and the checkpoints.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Adapter folder to start from, instead of a fresh adapter; its method, rank, alpha, targets and --also are kept,
    /// and others are refused.
    #[arg(long, value_name = "DIR", conflicts_with = "full", value_parser = folder())]
    from: Option<PathBuf>,
    /// LoRA adapter folders, separated by commas, that become the experts of a mixture: they stay as they are, and its
    /// routers are trained to weigh them for each token (X-LoRA). They have one rank, one scale and the same linears.
    #[arg(
        long,
        value_name = "DIRS",
        value_parser = folder(),
        help_heading = "Method (LoRA by default)",
        value_delimiter = ',',
        conflicts_with_all = ["from", "full", "rslora", "dora", "experts", "bottleneck", "rank", "alpha", "targets", "also"]
    )]
    frozen_experts: Vec<PathBuf>,
    /// Linears to adapt, separated by commas [default: all seven, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
    #[arg(
        long,
        value_name = "LINEARS",
        help_heading = "Method (LoRA by default)",
        value_delimiter = ',',
        conflicts_with_all = ["full", "bottleneck"]
    )]
    targets: Option<Vec<LinearName>>,
    #[arg(long, help = help::DROPOUT, value_name = "P", help_heading = "Method (LoRA by default)")]
    #[arg(conflicts_with = "full")]
    dropout: Option<f32>,
    /// Resume from the last checkpoint in --out.
    #[arg(long)]
    resume: bool,
    #[arg(long, help = help::SEED, default_value_t = 42)]
    seed: u64,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[arg(long, help = help::COLUMNS, value_name = "MAP", help_heading = "Data")]
    columns: Option<Columns>,
    /// File or folder of an earlier stage's rows, of which --replay-rows are trained on again against forgetting.
    #[arg(long, value_name = "PATH", help_heading = "Data", requires = "replay_rows")]
    replay: Option<PathBuf>,
    #[arg(long, help = help::REPLAY_ROWS, value_name = "N", help_heading = "Data", requires = "replay")]
    #[arg(value_parser = number::rows_or_none())]
    replay_rows: Option<usize>,
    /// Replay other rows in every epoch, until all of the file have been.
    #[arg(long, help_heading = "Data", requires = "replay")]
    replay_fresh: bool,
    /// Weight of distillation against forgetting: on replayed rows the loss is this times the KL divergence from the adapter
    /// of --from, in place of cross-entropy; 0 turns it off.
    #[arg(long, value_name = "WEIGHT", help_heading = "Data", requires_all = ["replay", "from"], default_value_t = 0.0)]
    distill: f64,
    #[command(flatten)]
    method: MethodArgs,
    /// Peak learning rate LR. Step t = 1 .. P has LR t/W while t <= W, the warm-up, then LR (1 + cos(pi (t-W)/(P-W)))/2,
    /// which is 0 in the last step.
    #[arg(long, help_heading = "Optimization", default_value_t = 2e-4)]
    lr: f64,
    /// Steps of linear warm-up, W in the formula of --lr.
    #[arg(long, value_name = "STEPS", help_heading = "Optimization", default_value_t = 10)]
    #[arg(value_parser = number::steps_or_none())]
    warmup: usize,
    /// Decoupled weight decay (AdamW), at least 0.
    #[arg(long, help_heading = "Optimization", default_value_t = 0.0)]
    weight_decay: f32,
    /// Maximum global norm of the gradient; 0 clips nothing.
    #[arg(long, value_name = "NORM", help_heading = "Optimization", default_value_t = 1.0)]
    clip: f64,
    /// Passes over the training rows.
    #[arg(long, value_name = "N", help_heading = "Optimization", default_value_t = 1)]
    #[arg(value_parser = number::epochs())]
    epochs: usize,
    /// Maximum optimizer steps; P of the schedule is at most this [default: all of the epochs]
    #[arg(long, value_name = "N", help_heading = "Optimization", value_parser = number::steps())]
    max_steps: Option<usize>,
    #[command(flatten)]
    step: StepArgs,
    /// Shorthand for --checkpointing none.
    #[arg(long, help_heading = "Step size and memory", conflicts_with = "checkpointing")]
    no_checkpointing: bool,
    #[arg(long, help = help::TEMPLATE, help_heading = "Data", default_value = "paper")]
    template: PromptTemplate,
    /// Take the rows in the file's order, instead of a random one for each epoch.
    #[arg(long, help_heading = "Data")]
    no_shuffle: bool,
    /// Put one row into a sequence, instead of as many as fit; --batch then counts rows.
    #[arg(long, help_heading = "Data")]
    no_packing: bool,
    /// Rows of --data to hold out for the validation loss.
    #[arg(long, value_name = "N", help_heading = "Data", default_value_t = 16)]
    #[arg(value_parser = number::rows_or_none())]
    validation: usize,
    /// Share of the rows of --data to hold out instead, above 0 and below 1. The seed draws the rows.
    #[arg(long, value_name = "P", help_heading = "Data", conflicts_with = "validation", value_parser = number::fraction)]
    validation_share: Option<f64>,
    /// File or folder of validation rows, instead of rows of --data.
    #[arg(long, value_name = "PATH", help_heading = "Data", conflicts_with_all = ["validation", "validation_share"])]
    validation_data: Option<PathBuf>,
    /// Steps between validations; 0 validates at the start and at the end only.
    #[arg(long, value_name = "STEPS", help_heading = "Optimization", default_value_t = 0)]
    #[arg(value_parser = number::steps_or_none())]
    validate_every: usize,
    /// Stop after N validations without a lower loss, and keep the weights of the lowest; needs --validate-every.
    #[arg(long, value_name = "N", help_heading = "Optimization", requires = "validate_every")]
    #[arg(value_parser = number::steps())]
    patience: Option<usize>,
    /// Steps between checkpoints; 0 saves at the end only.
    #[arg(long, value_name = "STEPS", help_heading = "Optimization", default_value_t = 50)]
    #[arg(value_parser = number::steps_or_none())]
    save_every: usize,
    #[command(flatten)]
    ranks: RankArgs,
}

/// Runs the command.
pub fn run(args: &TrainArgs, out: &Output) -> Result<()> {
    let checkpoint = Checkpoint::open(&args.model.model)?;
    let placement = args.ranks.placement(args.model.device);
    let settings = adapter_settings(args, &checkpoint)?;
    let options = TrainOptions {
        blank_answers: false,
        model: args.model.model.clone(),
        data: args.data.clone(),
        columns: args.columns.clone().unwrap_or_default(),
        replay: args.replay.clone(),
        replay_rows: args.replay_rows.unwrap_or(0),
        replay_fresh: args.replay_fresh,
        distill: args.distill,
        out: args.out.clone(),
        from: args.from.clone(),
        experts: args.frozen_experts.clone(),
        full: args.method.full,
        method: settings.method,
        rank: settings.rank,
        alpha: settings.alpha,
        targets: settings.targets.into_iter().collect(),
        modules_to_save: settings.modules_to_save,
        dropout: settings.dropout,
        lr: args.lr,
        warmup: args.warmup,
        weight_decay: args.weight_decay,
        clip: (args.clip != 0.0).then_some(args.clip),
        epochs: args.epochs,
        max_steps: args.max_steps,
        seq: args.step.seq(checkpoint.config().max_positions)?,
        batch: args.step.batch,
        micro_batch: args.step.micro_batch,
        template: args.template,
        shuffle: !args.no_shuffle,
        packing: !args.no_packing,
        validation: args.validation,
        validation_share: args.validation_share,
        validation_data: args.validation_data.clone(),
        validate_every: args.validate_every,
        patience: args.patience,
        save_every: args.save_every,
        resume: args.resume,
        checkpointing: if args.no_checkpointing {
            ActivationCheckpointing::NONE
        } else {
            args.step.checkpointing
        },
        compute: placement.compute(&checkpoint),
        pack_weights: placement.pack_weights,
        seed: args.seed,
    };
    let Some(report) = train(&options, placement, out)? else { return Ok(()) };
    if !args.json {
        println!("{}", summary(&report));
    }
    print_json(args.json, &to_value(&report).expect("plain numbers"));
    Ok(())
}

/// Returns the settings of the adapter: those of the one to start from or of the mixture of frozen experts, or the defaults,
/// with what the flags ask for.
fn adapter_settings(args: &TrainArgs, checkpoint: &Checkpoint) -> Result<AdapterConfig> {
    let defaults = TrainOptions::default().adapter_settings();
    let load = |folder: &PathBuf| Adapter::load(folder, checkpoint.config());
    let from = match &args.frozen_experts[..] {
        [] => args.from.as_ref().map(load).transpose()?,
        experts => Some(Adapter::mixture_of(&experts.iter().map(load).collect::<Result<Vec<_>>>()?)?),
    };
    let mut settings = from.map_or_else(|| defaults.clone(), |adapter| adapter.config);
    settings.dropout = args.dropout.unwrap_or(defaults.dropout);
    if let Some(targets) = &args.targets {
        settings.targets = targets.iter().copied().collect();
    }
    Ok(args.method.settings(settings))
}

fn summary(r: &TrainReport) -> String {
    let share = 100.0 * r.trainable as f64 / r.total as f64;
    let validation = match (r.validation_before, r.validation_loss) {
        (Some(before), Some(after)) => format!(", validation loss {before:.4} -> {after:.4}"),
        _ => String::new(),
    };
    let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    let anonymous = r.anonymous_bytes.map(|n| format!(", the process {:.1} MiB", mib(n))).unwrap_or_default();
    format!(
        "{} steps, {} tokens at {:.0} tokens/s; loss {:.4} -> {:.4}{validation}; {share:.4} % trainable; peak {:.1} MiB, planned {:.1} MiB{anonymous}",
        r.steps,
        r.tokens,
        r.tokens_per_s,
        r.first_loss,
        r.last_loss,
        mib(r.peak_bytes),
        mib(r.planned_bytes),
    )
}
