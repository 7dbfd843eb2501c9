//! What a pipeline would take: steps, tokens, time, memory, disk; from the model's sizes and the device, before any of it
//! is begun.

use crate::model_args::PlaceArgs;
use crate::recipe::Recipe;
use codelsi_engine::{DType, Result};
use codelsi_kernels::roof;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::generate::{Limits, Request};
use codelsi_model::parallel::{Layout, Split};
use codelsi_train::TrainOptions;
use codelsi_train::pack::{Document, Sequence};
use codelsi_train::plan::{Planner, budget, generation};
use codelsi_train::work::step_flops;
use serde_json::{Value, json};
use std::path::Path;

/// The paper's general stage: 20,000 rows are 9.2 million tokens, and its specialized stage has 40 rows.
const PAPER_TOKENS: usize = 9_200_000;
const PAPER_ROWS: usize = 20_000;
/// Of MultiPL-E's HumanEval in TypeScript.
const PAPER_PROBLEMS: usize = 159;
/// Base, general, specialized.
const MODELS: usize = 3;
const GIB: f64 = (1u64 << 30) as f64;

/// Steps and tokens of one stage.
struct Stage {
    name: &'static str,
    steps: usize,
    tokens: usize,
    flops: f64,
}

/// The plan of a run of `recipe` over the paper's amounts of data, as text and as JSON.
///
/// # Errors
/// When the model's sizes cannot be read, or the device is not there.
pub fn plan(recipe: &Recipe, model: &Path, place: PlaceArgs) -> Result<(String, Value)> {
    let base = Checkpoint::open(model)?;
    let (device, compute, config) = (place.device.open()?, place.compute(&base), base.config());
    let options =
        TrainOptions { seq: recipe.general.seq.min(config.max_positions), ..recipe.general.clone() };
    let private = PAPER_TOKENS / PAPER_ROWS * recipe.private_rows;
    let stages = [
        stage("general", &options, &base, PAPER_TOKENS),
        stage("specialized", &recipe.specialized, &base, private),
    ];
    let adapter = Adapter::sized(
        &codelsi_engine::Device::plan(),
        config,
        options.rank,
        options.alpha,
        options.dropout,
        &options.targets,
    )?;
    let options = TrainOptions { compute, ..options };
    let training = Planner {
        device: &device,
        options: &options,
        base: &base,
        adapter: Some(&adapter),
        rank: 0,
        world: 1,
        layout: Layout::Replicate,
        budget: budget(&device, &base, 1),
    }
    .full_step()?;
    let p = &recipe.protocol;
    let room = config.max_positions.saturating_sub(p.max_tokens).clamp(1, 512);
    let ask =
        Request { n: p.n, ..Request::greedy(vec![0; room], p.max_tokens.min(config.max_positions / 2)) };
    let asks = vec![ask; PAPER_PROBLEMS.div_ceil(p.n)];
    let serving =
        generation(&Split::from(&device), &base, compute, Some(&adapter), &asks, Limits::default())?;

    let answers = p.limit.unwrap_or(PAPER_PROBLEMS) * p.n * MODELS;
    let (flops, bytes) = (roof::flops(&device, compute)?, roof::bytes(&device)?);
    // A decode step reads every weight once for the whole batch.
    let passes = (answers * p.max_tokens).div_ceil(Limits::default().batch);
    let decode = bytes.map(|roof| passes as f64 * base.byte_len() as f64 / roof);
    let adapter_bytes = adapter.parameters() * DType::F32.size();
    // Adapter and last checkpoint of both stages: weights and two moments; answers of four bytes a token.
    let disk = 2 * 4 * adapter_bytes + answers * p.max_tokens * 4;

    let mut text =
        format!("the {} recipe on {} ({} parameters)\n", recipe.name, model.display(), config.parameters());
    for stage in &stages {
        let time = flops.map(|roof| stage.flops / roof);
        text += &format!(
            "  {:<12}{:>6} steps {:>12} tokens   {}\n",
            stage.name,
            stage.steps,
            stage.tokens,
            at_roof(time)
        );
    }
    text += &format!(
        "  {:<12}{answers:>6} answers of at most {} tokens   {}\n",
        "evaluation",
        p.max_tokens,
        at_roof(decode)
    );
    text += &format!(
        "  {:<12}{:.1} GiB to train ({} of {} layers run again{}), {:.1} GiB to answer\n",
        "memory",
        training.usage.peak as f64 / GIB,
        training.recompute,
        training.layers,
        if training.fits() { "" } else { "; DOES NOT FIT" },
        serving.peak as f64 / GIB
    );
    text += &format!("  {:<12}{:.2} GiB in the run's folder\n", "disk", disk as f64 / GIB);
    text += "amounts of data are the paper's; times are what the device's measured roofs allow: count on twice as much";
    let stages = stages.map(|s| {
        json!({ "name": s.name, "steps": s.steps, "tokens": s.tokens, "seconds_at_roof": flops.map(|roof| s.flops / roof) })
    });
    let object = json!({
        "stages": stages, "answers": answers, "decode_seconds_at_roof": decode,
        "train_bytes": training.usage.peak, "fits": training.fits(), "generate_bytes": serving.peak, "disk_bytes": disk,
    });
    Ok((text, object))
}

/// A stage over `tokens` tokens in full sequences, an epoch's many times.
fn stage(name: &'static str, options: &TrainOptions, base: &Checkpoint, tokens: usize) -> Stage {
    let seq = options.seq.min(base.config().max_positions);
    let sequences = tokens.div_ceil(seq);
    let steps =
        (sequences.div_ceil(options.batch) * options.epochs).min(options.max_steps.unwrap_or(usize::MAX));
    let document = Document { tokens: vec![0; seq], targets: vec![0; seq] };
    let one = step_flops(base.config(), &[Sequence::of([&document])], options.full);
    let sequences = (sequences * options.epochs).min(steps * options.batch);
    Stage {
        name,
        steps,
        tokens: (sequences * seq).min(tokens * options.epochs),
        flops: one * sequences as f64,
    }
}

fn at_roof(seconds: Option<f64>) -> String {
    match seconds {
        None => String::new(),
        Some(s) if s < 90.0 => format!("{s:.1} s at least"),
        Some(s) if s < 5400.0 => format!("{:.0} min at least", s / 60.0),
        Some(s) => format!("{:.1} h at least", s / 3600.0),
    }
}
