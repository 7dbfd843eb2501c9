//! `codelsi train`: instruction tuning with adapters, or full training of small models.

use crate::args::{MethodArgs, ModelArgs, RankArgs};
use clap::Args;
use codelsi_engine::Result;
use codelsi_experiment::output::Output;
use codelsi_experiment::training::train;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::Linear;
use codelsi_model::template::PromptTemplate;
use codelsi_train::options::{ActivationCheckpointing, TrainOptions};
use codelsi_train::trainer::TrainReport;
use serde_json::to_value;
use std::path::PathBuf;

/// Tune a model on instructions; the defaults are the paper's.
#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    ranks: RankArgs,
    /// JSON Lines of {"instruction": …, "output": …}.
    #[arg(long)]
    data: PathBuf,
    /// Rows of an earlier stage to train on again, against forgetting: this file's …
    #[arg(long, requires = "replay_rows")]
    replay: Option<PathBuf>,
    /// … evenly spread, this many of them.
    #[arg(long, requires = "replay")]
    replay_rows: Option<usize>,
    /// Folder for the adapter, metrics.jsonl, recipe.json and checkpoints.
    #[arg(long)]
    out: PathBuf,
    /// An adapter to go on from.
    #[arg(long)]
    from: Option<PathBuf>,
    #[command(flatten)]
    method: MethodArgs,
    /// The adapted linears.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    )]
    targets: Vec<Linear>,
    /// Of the adapter's inputs.
    #[arg(long, default_value_t = 0.05)]
    dropout: f32,
    /// Highest learning rate, reached after the warm-up; a cosine leads down to 0.
    #[arg(long, default_value_t = 2e-4)]
    lr: f64,
    /// Steps of linear warm-up.
    #[arg(long, default_value_t = 10)]
    warmup: usize,
    /// Decoupled weight decay (AdamW).
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f32,
    /// Largest global gradient norm; 0 does not clip.
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Passes over the training rows.
    #[arg(long, default_value_t = 1)]
    epochs: usize,
    /// End after this many steps, and plan the schedule for that end.
    #[arg(long)]
    max_steps: Option<usize>,
    /// Tokens of a packed sequence, at most the model's positions.
    #[arg(long, default_value_t = 4096)]
    seq: usize,
    /// Sequences a step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Sequences that pass through the model together.
    #[arg(long, default_value_t = 1)]
    micro_batch: usize,
    /// Prompt template: paper, inst or plain.
    #[arg(long, default_value = "paper")]
    template: PromptTemplate,
    /// Rows set aside for the validation loss.
    #[arg(long, default_value_t = 16)]
    validation: usize,
    /// Rows to measure the validation loss on, instead of setting some of --data aside.
    #[arg(long, conflicts_with = "validation")]
    validation_data: Option<PathBuf>,
    /// Steps between validations; 0 validates at the start and the end.
    #[arg(long, default_value_t = 0)]
    validate_every: usize,
    /// Steps between checkpoints; 0 saves at the end only.
    #[arg(long, default_value_t = 50)]
    save_every: usize,
    /// Go on from the last checkpoint in --out.
    #[arg(long)]
    resume: bool,
    /// Layers that keep only their input and run again in backward: auto (as few as the memory allows), all, none, or a
    /// number. Each costs a third of its own work, and changes no result.
    #[arg(long, default_value = "auto")]
    checkpointing: ActivationCheckpointing,
    /// The same as --checkpointing none.
    #[arg(long, conflicts_with = "checkpointing")]
    no_checkpointing: bool,
    /// Decides order, split, fresh adapter and dropout.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Train, out: &Output) -> Result<()> {
    let checkpoint = Checkpoint::open(&args.model.model)?;
    let placement = args.ranks.placement(args.model.place);
    let options = TrainOptions {
        model: args.model.model.clone(),
        data: args.data.clone(),
        replay: args.replay.clone(),
        replay_rows: args.replay_rows.unwrap_or(0),
        out: args.out.clone(),
        from: args.from.clone(),
        full: args.method.full,
        method: args.method.method(),
        rank: args.method.rank(),
        alpha: args.method.alpha,
        targets: args.targets.clone(),
        dropout: args.dropout,
        lr: args.lr,
        warmup: args.warmup,
        weight_decay: args.weight_decay,
        clip: (args.clip > 0.0).then_some(args.clip),
        epochs: args.epochs,
        max_steps: args.max_steps,
        seq: args.seq.min(checkpoint.config().max_positions),
        batch: args.batch,
        micro_batch: args.micro_batch,
        template: args.template,
        validation: args.validation,
        validation_data: args.validation_data.clone(),
        validate_every: args.validate_every,
        save_every: args.save_every,
        resume: args.resume,
        checkpointing: if args.no_checkpointing { ActivationCheckpointing::NONE } else { args.checkpointing },
        compute: placement.compute(&checkpoint),
        seed: args.seed,
    };
    let Some(report) = train(&options, placement, out)? else { return Ok(()) };
    if !args.json {
        println!("{}", summary(&report));
    }
    out.json(args.json, &to_value(&report).expect("plain numbers"));
    Ok(())
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
