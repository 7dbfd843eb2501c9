//! Estimates of a pipeline's steps, tokens, time, memory and disk space, from the model's sizes and the device.

use crate::placement::Placement;
use crate::protocol::ProtocolOptions;
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
use codelsi_train::plan::{
    Planner, StepPlan, memory_budget, open_for_planning, plan_generation, weights_exceed_memory,
};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;

/// Tokens and rows of the paper's general stage; its specialized stage has 40 rows.
const PAPER_TOKENS: usize = 9_200_000;
const PAPER_ROWS: usize = 20_000;
/// Problems of MultiPL-E's HumanEval in TypeScript.
const PAPER_PROBLEMS: usize = 159;
/// Evaluated models: base, general, specialized.
const MODELS: usize = 3;

/// Estimate of a training stage; its time is that at the device's roof.
struct StageEstimate {
    name: &'static str,
    steps: usize,
    tokens: usize,
    seconds: Option<f64>,
}

/// Estimate of a pipeline.
struct PipelineEstimate {
    stages: [StageEstimate; 2],
    answers: usize,
    max_tokens: usize,
    /// Seconds to decode all answers, at the device's memory bandwidth.
    decode_seconds: Option<f64>,
    training: StepPlan,
    /// Peak memory of generation.
    generate_bytes: usize,
    disk_bytes: usize,
}

/// An estimate as text and as JSON.
pub struct Estimate {
    pub text: String,
    pub object: Value,
    /// Advice, if the run does not fit the device.
    pub advice: Option<String>,
}

/// Estimates a run of `recipe` over the paper's amounts of data; needs the sizes of `model` alone, not its weights.
///
/// # Errors
/// When the model's sizes cannot be read or the device is not available.
pub fn estimate(recipe: &Recipe, model: &Path, placement: Placement) -> Result<Estimate> {
    let base = open_for_planning(model)?;
    let device = placement.device.open()?;
    let estimate = PipelineEstimate::new(recipe, &base, &device, placement.compute(&base))?;
    let parameters = base.config().parameters();
    let text =
        format!("the {} recipe on {} ({parameters} parameters)\n{estimate}", recipe.name, model.display());
    let advice = (!estimate.fits()).then(|| {
        weights_exceed_memory(&device, &base).unwrap_or_else(|| {
            format!(
                "lower --seq {}, or spread the weights over cards with --ranks 2 --layout shard",
                recipe.general.seq
            )
        })
    });
    Ok(Estimate { text, object: estimate.to_json(), advice })
}

impl PipelineEstimate {
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
        let row = PAPER_TOKENS / PAPER_ROWS;
        let general = PAPER_TOKENS * recipe.general_styles.len();
        let private_rows = recipe.private_rows * recipe.specialized_styles.len();
        let private = row * (private_rows + recipe.specialized.replay_rows);
        Ok(PipelineEstimate {
            stages: [
                estimate_stage("general", &options, base, general, flops),
                estimate_stage("specialized", &recipe.specialized, base, private, flops),
            ],
            answers,
            max_tokens: p.max_tokens,
            decode_seconds: bytes.map(|roof| passes as f64 * base.byte_len() as f64 / roof),
            training: planner.plan_full_step()?,
            generate_bytes: peak_generation_bytes(&recipe.protocol, base, device, compute, &adapter)?,
            // Adapter, last checkpoint and its two moments, for both stages; four bytes per token of the answers.
            disk_bytes: 2 * 4 * adapter.parameters() * DType::F32.size() + answers * p.max_tokens * 4,
        })
    }

    /// Returns true if both training and generation fit.
    fn fits(&self) -> bool {
        self.training.fits() && self.training.budget.is_none_or(|budget| self.generate_bytes <= budget)
    }

    fn to_json(&self) -> Value {
        let stage = |s: &StageEstimate| json!({"name": s.name, "steps": s.steps, "tokens": s.tokens, "seconds_at_roof": s.seconds});
        json!({
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
            "answers": self.answers, "decode_seconds_at_roof": self.decode_seconds,
            "train_bytes": self.training.usage.peak, "fits": self.fits(),
            "generate_bytes": self.generate_bytes, "disk_bytes": self.disk_bytes,
        })
    }
}

impl fmt::Display for PipelineEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        for StageEstimate { name, steps, tokens, seconds } in &self.stages {
            writeln!(f, "  {name:<12}{steps:>6} steps {tokens:>12} tokens   {}", at_roof(*seconds))?;
        }
        let decode = at_roof(self.decode_seconds);
        writeln!(
            f,
            "  evaluation  {:>6} answers of at most {} tokens   {decode}",
            self.answers, self.max_tokens
        )?;
        let (plan, verdict) = (&self.training, if self.fits() { "" } else { "; DOES NOT FIT" });
        let (train, answer) = (gib(plan.usage.peak), gib(self.generate_bytes));
        let recompute = format!("{} of {} layers run again{verdict}", plan.recompute, plan.layers);
        writeln!(f, "  memory      {train:.1} GiB to train ({recompute}), {answer:.1} GiB to answer")?;
        writeln!(f, "  disk        {:.2} GiB in the run's folder", gib(self.disk_bytes))?;
        f.write_str("amounts of data are the paper's; times are at the device's measured roofs: count on twice as much")
    }
}

/// Returns the peak memory in bytes of generation, with as many prompts as fill a batch.
fn peak_generation_bytes(
    protocol: &ProtocolOptions,
    base: &Checkpoint,
    device: &Device,
    compute: DType,
    adapter: &Adapter,
) -> Result<usize> {
    const PROMPT: usize = 512;
    let (n, positions) = (protocol.n, base.config().max_positions);
    let max_tokens = protocol.max_tokens.min(positions / 2).max(1);
    let prompt = vec![0; PROMPT.min(positions - max_tokens).max(1)];
    let request = GenerationRequest { n, ..GenerationRequest::greedy(prompt, max_tokens) };
    let requests = vec![request; SchedulerConfig::default().max_sequences.div_ceil(n.max(1))];
    let rank_layout = RankLayout::from(device);
    Ok(plan_generation(&rank_layout, base, compute, Some(adapter), &requests, SchedulerConfig::default())?
        .peak)
}

/// Estimates a stage over `tokens` tokens per epoch, in full sequences.
fn estimate_stage(
    name: &'static str,
    options: &TrainOptions,
    base: &Checkpoint,
    tokens: usize,
    roof: Option<f64>,
) -> StageEstimate {
    let seq = options.seq.min(base.config().max_positions);
    let sequences = tokens.div_ceil(seq);
    let epoch_steps = sequences.div_ceil(options.batch) * options.epochs;
    let steps = epoch_steps.min(options.max_steps.unwrap_or(usize::MAX));
    let sequences = (sequences * options.epochs).min(steps * options.batch);
    let document = Document { tokens: vec![0; seq], targets: vec![0; seq] };
    let sequence_flops = step_flops(base.config(), &[PackedSequence::concat([&document])], options.full);
    let seconds = roof.map(|roof| sequence_flops * sequences as f64 / roof);
    StageEstimate { name, steps, tokens: (sequences * seq).min(tokens * options.epochs), seconds }
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
        let weights = folder.path().join("model.safetensors");
        std::fs::remove_file(weights).expect("the plan needs no weights");
        let Estimate { text, object, .. } = estimate(&Recipe::paper(42), folder.path(), placement).unwrap();
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
