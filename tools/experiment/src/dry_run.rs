//! What a pipeline would take: steps, tokens, time, memory, disk; from the model's sizes and the device, before any
//! of it is begun.

use crate::placement::Placement;
use crate::recipe::Recipe;
use codelsi_engine::{DType, Device, Result};
use codelsi_kernels::roof;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::generate::{GenerationRequest, SchedulerConfig};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_train::TrainOptions;
use codelsi_train::flops::step_flops;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::plan::{Planner, StepPlan, memory_budget, plan_generation};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;

/// The paper's general stage: 20,000 rows are 9.2 million tokens, and its specialized stage has 40 rows.
const PAPER_TOKENS: usize = 9_200_000;
const PAPER_ROWS: usize = 20_000;
/// Of MultiPL-E's HumanEval in TypeScript.
const PAPER_PROBLEMS: usize = 159;
/// Base, general, specialized.
const MODELS: usize = 3;

/// Steps and tokens of one stage, and the time that it takes at the device's roof.
struct Stage {
    name: &'static str,
    steps: usize,
    tokens: usize,
    seconds: Option<f64>,
}

/// What a run takes.
struct Estimate {
    stages: [Stage; 2],
    answers: usize,
    max_tokens: usize,
    /// Of decoding all answers, at the roof.
    decode_seconds: Option<f64>,
    training: StepPlan,
    /// At the peak of answering.
    generate_bytes: usize,
    disk_bytes: usize,
}

/// The plan of a run of `recipe` over the paper's amounts of data, as text and as JSON.
///
/// # Errors
/// When the model's sizes cannot be read, or the device is not there.
pub fn plan(recipe: &Recipe, model: &Path, placement: Placement) -> Result<(String, Value)> {
    let base = Checkpoint::open(model)?;
    let device = placement.device.open()?;
    let estimate = Estimate::new(recipe, &base, &device, placement.compute(&base))?;
    let parameters = base.config().parameters();
    let text =
        format!("the {} recipe on {} ({parameters} parameters)\n{estimate}", recipe.name, model.display());
    Ok((text, estimate.to_json()))
}

impl Estimate {
    fn new(recipe: &Recipe, base: &Checkpoint, device: &Device, compute: DType) -> Result<Self> {
        let (config, p) = (base.config(), &recipe.protocol);
        let seq = recipe.general.seq.min(config.max_positions);
        let options = TrainOptions { compute, seq, ..recipe.general.clone() };
        let adapter = Adapter::allocate(&Device::plan(), config, &options.adapter_settings())?;
        let planner = Planner {
            device,
            options: &options,
            base,
            adapter: Some(&adapter),
            rank: 0,
            world: 1,
            layout: Layout::Replicate,
            budget: memory_budget(device, base, 1),
        };
        let (flops, bytes) = (roof::flops(device, compute)?, roof::bytes(device)?);
        let answers = p.limit.unwrap_or(PAPER_PROBLEMS) * p.n * MODELS;
        // A decode step reads every weight once for the whole batch.
        let passes = (answers * p.max_tokens).div_ceil(SchedulerConfig::default().max_sequences);
        let private = PAPER_TOKENS / PAPER_ROWS * recipe.private_rows;
        Ok(Estimate {
            stages: [
                stage("general", &options, base, PAPER_TOKENS, flops),
                stage("specialized", &recipe.specialized, base, private, flops),
            ],
            answers,
            max_tokens: p.max_tokens,
            decode_seconds: bytes.map(|roof| passes as f64 * base.byte_len() as f64 / roof),
            training: planner.plan_full_step()?,
            generate_bytes: answering(recipe, base, device, compute, &adapter)?,
            // Adapter, last checkpoint and its two moments, of both stages; four bytes a token of the answers.
            disk_bytes: 2 * 4 * adapter.parameters() * DType::F32.size() + answers * p.max_tokens * 4,
        })
    }

    fn to_json(&self) -> Value {
        let stage = |s: &Stage| json!({"name": s.name, "steps": s.steps, "tokens": s.tokens, "seconds_at_roof": s.seconds});
        json!({
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
            "answers": self.answers, "decode_seconds_at_roof": self.decode_seconds,
            "train_bytes": self.training.usage.peak, "fits": self.training.fits(),
            "generate_bytes": self.generate_bytes, "disk_bytes": self.disk_bytes,
        })
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        for Stage { name, steps, tokens, seconds } in &self.stages {
            writeln!(f, "  {name:<12}{steps:>6} steps {tokens:>12} tokens   {}", at_roof(*seconds))?;
        }
        let decode = at_roof(self.decode_seconds);
        writeln!(
            f,
            "  evaluation  {:>6} answers of at most {} tokens   {decode}",
            self.answers, self.max_tokens
        )?;
        let (plan, fits) = (&self.training, if self.training.fits() { "" } else { "; DOES NOT FIT" });
        let (train, answer) = (gib(plan.usage.peak), gib(self.generate_bytes));
        let again = format!("{} of {} layers run again{fits}", plan.recompute, plan.layers);
        writeln!(f, "  memory      {train:.1} GiB to train ({again}), {answer:.1} GiB to answer")?;
        writeln!(f, "  disk        {:.2} GiB in the run's folder", gib(self.disk_bytes))?;
        f.write_str("amounts of data are the paper's; times are at the device's measured roofs: count on twice as much")
    }
}

/// Bytes at the peak of answering, with as many prompts as fill a batch.
fn answering(
    recipe: &Recipe,
    base: &Checkpoint,
    device: &Device,
    compute: DType,
    adapter: &Adapter,
) -> Result<usize> {
    const PROMPT: usize = 512;
    let (p, positions) = (&recipe.protocol, base.config().max_positions);
    let max_tokens = p.max_tokens.min(positions / 2).max(1);
    let prompt = vec![0; PROMPT.min(positions - max_tokens).max(1)];
    let ask = GenerationRequest { n: p.n, ..GenerationRequest::greedy(prompt, max_tokens) };
    let asks = vec![ask; SchedulerConfig::default().max_sequences.div_ceil(p.n.max(1))];
    let split = RankLayout::from(device);
    Ok(plan_generation(&split, base, compute, Some(adapter), &asks, SchedulerConfig::default())?.peak)
}

/// A stage over `tokens` tokens in full sequences, an epoch's many times.
fn stage(
    name: &'static str,
    options: &TrainOptions,
    base: &Checkpoint,
    tokens: usize,
    roof: Option<f64>,
) -> Stage {
    let seq = options.seq.min(base.config().max_positions);
    let sequences = tokens.div_ceil(seq);
    let all = sequences.div_ceil(options.batch) * options.epochs;
    let steps = all.min(options.max_steps.unwrap_or(usize::MAX));
    let sequences = (sequences * options.epochs).min(steps * options.batch);
    let document = Document { tokens: vec![0; seq], targets: vec![0; seq] };
    let one = step_flops(base.config(), &[PackedSequence::concat([&document])], options.full);
    let seconds = roof.map(|roof| one * sequences as f64 / roof);
    Stage { name, steps, tokens: (sequences * seq).min(tokens * options.epochs), seconds }
}

fn at_roof(seconds: Option<f64>) -> String {
    match seconds {
        None => String::new(),
        Some(s) if s < 90.0 => format!("{s:.1} s at least"),
        Some(s) if s < 5400.0 => format!("{:.0} min at least", s / 60.0),
        Some(s) => format!("{:.1} h at least", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_launch::DeviceChoice;
    use codelsi_model::synthetic;

    #[test]
    fn the_paper_s_steps_tokens_and_answers_are_planned_without_a_row_of_data() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            codelsi_model::config::ModelConfig { max_positions: 4096, ..synthetic::config("tiny").unwrap() };
        synthetic::write_random_model(folder.path(), &config, 7, &mut |_, _| {}).unwrap();
        let placement = Placement { device: DeviceChoice::Cpu, ..Placement::default() };
        let (text, object) = plan(&Recipe::paper(42), folder.path(), placement).unwrap();
        // 9.2 million tokens in sequences of 4096, sixteen a step: the paper's "about 140".
        assert_eq!(
            (&object["stages"][0]["steps"], &object["stages"][0]["tokens"]),
            (&json!(141), &json!(PAPER_TOKENS))
        );
        assert_eq!(object["answers"], json!(159 * 20 * 3));
        for line in ["   141 steps", "9540 answers", "layers run again", "GiB in the run's folder"] {
            assert!(text.contains(line), "no `{line}` in {text}");
        }
    }
}
