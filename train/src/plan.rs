//! The memory plan: peak memory of a step, found by running the step on a device that allocates but does not compute.
//!
//! The same code allocates the same tensors in the same order, so the plan equals the ledger of the run. A plan takes
//! milliseconds, so the number of recomputed layers and the largest micro-batch are found by bisection over plans.

use crate::options::{ActivationCheckpointing, TrainOptions};
use crate::pack::{Document, PackedSequence};
use crate::train_step::TrainStep;
use codelsi_engine::memory::{Usage, available_bytes};
use codelsi_engine::{Device, Error, PlannedComm, Rank, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::ModelConfig;
use codelsi_model::generate::{GenerationRequest, SchedulerConfig, generate};
use codelsi_model::hub;
use codelsi_model::llama::Llama;
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::trainable::Trainable;
use safetensors::Dtype;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The inputs of a memory plan: a training run and its device.
pub struct Planner<'a> {
    pub device: &'a Device,
    pub options: &'a TrainOptions,
    pub base: &'a Checkpoint,
    /// The adapter to train; `None` trains every weight.
    pub adapter: Option<&'a Adapter>,
    pub rank: usize,
    pub world: usize,
    pub layout: Layout,
    /// Memory budget in bytes, if known.
    pub budget: Option<usize>,
}

/// The memory of a training step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// Bytes by label at the peak.
    pub usage: Usage,
    /// Number of layers that run forward again in backward.
    pub recompute: usize,
    /// Number of all layers.
    pub layers: usize,
    /// Number of ranks.
    pub world: usize,
    pub layout: Layout,
    /// Memory budget in bytes, if known.
    pub budget: Option<usize>,
    /// The largest micro-batches that fit the budget, in sequences: without recomputation, and with every layer
    /// recomputed. 0 if none fits.
    pub max_micro_batches: Option<[usize; 2]>,
}

impl Planner<'_> {
    /// Plans a step of these micro-batches. With [`ActivationCheckpointing::Auto`] it recomputes the fewest layers
    /// that fit the budget, or all of them if none fits.
    ///
    /// # Errors
    /// When the step fails on the planning device.
    pub fn plan_step(&self, micro_batches: &[PackedSequence]) -> Result<StepPlan> {
        let layers = self.base.config().layers;
        let recompute = match (self.options.checkpointing, self.budget) {
            (ActivationCheckpointing::Layers(n), _) => n.min(layers),
            (ActivationCheckpointing::Auto, None) => layers,
            (ActivationCheckpointing::Auto, Some(_)) => {
                first_true(0..layers, |n| self.fits(n, micro_batches))?.unwrap_or(layers)
            }
        };
        let usage = self.usage(recompute, micro_batches)?;
        let search = || Ok::<_, Error>([self.largest_micro_batch(0)?, self.largest_micro_batch(layers)?]);
        let largest = self.budget.map(|_| search()).transpose()?;
        let Planner { world, layout, budget, .. } = *self;
        Ok(StepPlan { usage, recompute, layers, world, layout, budget, max_micro_batches: largest })
    }

    /// Plans a step of full sequences with a loss on every token.
    ///
    /// # Errors
    /// When the step fails on the planning device.
    pub fn plan_full_step(&self) -> Result<StepPlan> {
        self.plan_step(&self.full_micro_batches(self.options.micro_batch))
    }

    /// Plans [`Planner::plan_full_step`] for every rank and returns the largest plan. All ranks recompute as many
    /// layers as the rank that has to recompute most.
    ///
    /// # Errors
    /// When the step fails on the planning device.
    pub fn plan_largest_rank(&self) -> Result<StepPlan> {
        // All ranks without micro-batches have the same plan, so one of them is enough.
        let micro_batches = self.options.batch.div_ceil(self.options.micro_batch);
        let plans = |options: &TrainOptions| -> Result<Vec<StepPlan>> {
            let ranks = 0..self.world.min(micro_batches + 1);
            ranks.map(|rank| Planner { options, rank, ..*self }.plan_full_step()).collect()
        };
        let mut all = plans(self.options)?;
        let recompute = all.iter().map(|plan| plan.recompute).max().unwrap_or(0);
        if all.iter().any(|plan| plan.recompute != recompute) {
            let checkpointing = ActivationCheckpointing::Layers(recompute);
            all = plans(&TrainOptions { checkpointing, ..self.options.clone() })?;
        }
        let largest = all.into_iter().max_by_key(|plan| plan.usage.peak);
        largest.ok_or_else(|| Error::new("a run has one rank at least"))
    }

    /// The micro-batches of a step, of `micro_batch` full sequences each. A rank adds the gradients of its second one to
    /// those of its first; further ones change no peak, and are left out.
    fn full_micro_batches(&self, micro_batch: usize) -> Vec<PackedSequence> {
        let n = self.options.seq;
        let document = Document { tokens: vec![0; n], targets: vec![0; n] };
        let mut sequence = PackedSequence::concat(vec![&document; micro_batch]);
        if self.options.distill > 0.0 {
            sequence = sequence.with_both_losses();
        }
        vec![sequence; self.options.batch.div_ceil(micro_batch).min(3 * self.world)]
    }

    /// The largest micro-batch that fits the budget with `recompute` layers recomputed, at most the batch of a step. None
    /// that is tried exceeds twice the result, since a plan takes time and memory for each sequence.
    fn largest_micro_batch(&self, recompute: usize) -> Result<usize> {
        let max = self.options.batch;
        let too_large = |n| Ok::<_, Error>(!self.fits(recompute, &self.full_micro_batches(n))?);
        let mut probe = 1;
        while probe < max && !too_large(probe)? {
            probe = (2 * probe).min(max);
        }
        Ok(first_true(probe / 2 + 1..probe + 1, too_large)?.map_or(probe, |n| n - 1))
    }

    fn fits(&self, recompute: usize, micro_batches: &[PackedSequence]) -> Result<bool> {
        Ok(self
            .budget
            .is_none_or(|budget| self.usage(recompute, micro_batches).is_ok_and(|u| u.peak <= budget)))
    }

    /// Runs a step on the planning device and returns the memory usage of its ledger.
    fn usage(&self, recompute: usize, micro_batches: &[PackedSequence]) -> Result<Usage> {
        let options = TrainOptions {
            checkpointing: ActivationCheckpointing::Layers(recompute),
            ..self.options.clone()
        };
        let device = self.device.planning();
        let comm = Arc::new(PlannedComm { rank: self.rank, world: self.world });
        let base = self.base.without_weights(matches!(self.device, Device::Cpu(_)));
        let rank = Rank { device: device.clone(), comm };
        // A teacher is an adapter of the same settings: the one that the run starts from.
        let teacher = self.adapter.filter(|_| options.distill > 0.0);
        TrainStep::new(RankLayout::new(rank, self.layout), &options, &base, self.adapter)?
            .with_teacher(teacher)?
            .run(micro_batches, options.lr)?;
        Ok(device.ledger().usage())
    }
}

/// Bisects `range` for the first value for which the monotonic predicate `holds` is true.
fn first_true(
    range: std::ops::Range<usize>,
    mut holds: impl FnMut(usize) -> Result<bool>,
) -> Result<Option<usize>> {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle)? { high = middle } else { low = middle + 1 }
    }
    Ok((low < range.end).then_some(low))
}

/// Plans the generation of the largest requests that run in one batch; returns the bytes by label at the peak of a
/// rank.
///
/// # Errors
/// When the generation fails on the planning device.
pub fn plan_generation(
    rank_layout: &RankLayout,
    base: &Checkpoint,
    compute: codelsi_engine::DType,
    adapter: Option<&Adapter>,
    requests: &[GenerationRequest],
    limits: SchedulerConfig,
) -> Result<Usage> {
    let base = base.without_weights(matches!(rank_layout.device(), Device::Cpu(_)));
    let rank_layout = rank_layout.planning();
    let planning = rank_layout.device().clone();
    let mut model = Llama::load(rank_layout, &base, compute, Trainable::Nothing)?;
    if let Some(adapter) = adapter {
        model.attach(adapter, Trainable::Nothing)?;
    }
    let mut largest: Vec<&GenerationRequest> = requests.iter().collect();
    largest
        .sort_by_key(|r| std::cmp::Reverse(r.prompt.len().saturating_add(r.n.saturating_mul(r.max_tokens))));
    let mut batch = Vec::new();
    let mut samples = 0;
    for request in largest {
        // One request more than fills the batch: its prompt is prefilled while the others decode.
        let full = samples >= limits.max_sequences;
        // Of more completions than fill two batches the rest changes no peak.
        let n = request.n.min(2 * limits.max_sequences.max(1));
        samples += n;
        batch.push(GenerationRequest { n, stop: Vec::new(), stop_at_eos: false, ..request.clone() });
        if full {
            break;
        }
    }
    generate(&planning, &model, None, &batch, limits, &mut |_| {})?;
    Ok(planning.ledger().usage())
}

/// Bytes that one of `sharing` ranks may use on `device`. On the CPU: available memory less the page cache of the
/// weights. On a GPU: free memory less what the driver keeps.
pub fn memory_budget(device: &Device, base: &Checkpoint, sharing: usize) -> Option<usize> {
    match device {
        Device::Cpu(_) => Some(available_bytes()?.saturating_sub(base.mapped_len()) / sharing),
        Device::Cuda(cuda) => cuda.memory_info().ok().map(|(free, _)| usable_gpu_memory(free)),
        Device::Plan(_) => None,
    }
}

/// Says that the mapped weights alone exceed the memory that is available, where they do; no flag helps against that.
pub fn weights_exceed_memory(device: &Device, base: &Checkpoint) -> Option<String> {
    let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
    let (weights, available) = (base.mapped_len(), available_bytes()?);
    (matches!(device, Device::Cpu(_)) && weights >= available).then(|| {
        format!(
            "the mapped weights alone take {:.1} GiB, and {:.1} GiB of memory is available: run it on a machine with more \
             memory, or take a smaller model",
            gib(weights),
            gib(available)
        )
    })
}

/// Opens a model for planning, which needs its sizes alone: a folder without weights is planned as if these were stored as
/// bf16.
///
/// # Errors
/// When the folder has no readable configuration, or its weights are broken.
pub fn open_for_planning(folder: &Path) -> Result<Checkpoint> {
    hub::check_folder(folder, "model")?;
    let has_weights =
        ["model.safetensors", "model.safetensors.index.json"].iter().any(|name| folder.join(name).exists());
    match has_weights {
        true => Checkpoint::open(folder),
        false => Ok(Checkpoint::shapes_only(ModelConfig::load(folder)?, Dtype::BF16)),
    }
}

/// The part of a GPU's memory that is left for tensors: the driver keeps some and rounds allocations up.
pub fn usable_gpu_memory(memory: usize) -> usize {
    memory - memory / 32
}

impl StepPlan {
    /// Returns whether the step fits the budget.
    pub fn fits(&self) -> bool {
        self.budget.is_none_or(|budget| self.usage.peak <= budget)
    }

    /// Adds advice about flags to an out-of-memory error; returns other errors unchanged.
    pub fn advise_if_out_of_memory(&self, error: Error, options: &TrainOptions) -> Error {
        match error.is_out_of_memory() {
            true => error.advise(&self.advice(options)),
            false => error,
        }
    }

    /// Checks that the step fits a GPU before anything is loaded.
    ///
    /// # Errors
    /// When it does not: the plan in one line, and the flags that would help.
    pub fn ensure_fits(&self, device: &Device, options: &TrainOptions) -> Result<()> {
        if self.fits() || !matches!(device, Device::Cuda(_)) {
            return Ok(());
        }
        let table = self.to_string();
        let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(Error::new(format!("a step takes more memory than is free: {table}; {}", self.advice(options))))
    }

    /// Flags that would lower the memory of a step.
    pub fn advice(&self, options: &TrainOptions) -> String {
        let mut flags = Vec::new();
        if self.recompute < self.layers {
            flags.push("give --checkpointing all".to_string());
        }
        if options.micro_batch > 1 {
            flags.push(format!("lower --micro-batch {}", options.micro_batch));
        }
        flags.push(format!("lower --seq {}", options.seq));
        // In full training every rank holds every weight.
        if !options.full && self.layout == Layout::Replicate {
            let ranks = if self.world > 1 { "" } else { "--ranks 2 " };
            flags.push(format!("spread the weights over cards with {ranks}--layout shard"));
        }
        flags.join(", or ")
    }
}

impl fmt::Display for StepPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        write!(f, "{}", self.usage)?;
        if let Some(budget) = self.budget {
            let verdict = if self.fits() { "fits" } else { "DOES NOT FIT" };
            write!(f, "\n  {:<12}{:>12.1} MiB: {verdict}", "available", mib(budget))?;
        }
        write!(f, "\n  {} of {} layers run again in backward", self.recompute, self.layers)?;
        if let Some([keeping, recomputing]) = self.max_micro_batches {
            write!(
                f,
                "\n  largest micro-batch that fits: {keeping} keeping every layer, {recomputing} recomputing all"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bisection_finds_the_first_value_that_holds() {
        for threshold in 0..9 {
            let found = first_true(2..7, |n| Ok(n >= threshold)).unwrap();
            assert_eq!(found, (threshold < 7).then_some(threshold.max(2)));
        }
    }
}
