//! The memory plan: what a step holds at its peak, found by running it where nothing is computed.
//!
//! The same code allocates the same tensors in the same order, so its books are those of the run. A plan takes
//! milliseconds: what a step should keep, and how large a micro-batch may be, is found by planning again and again.

use crate::learner::Learner;
use crate::options::{Checkpointing, TrainOptions};
use crate::pack::{Document, Sequence};
use codelsi_engine::memory::{Usage, available_bytes};
use codelsi_engine::{Device, Error, Planned, Rank, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::generate::{Limits, Request, generate};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::{Layout, Split};
use codelsi_model::trainable::Train;
use std::fmt;
use std::sync::Arc;

/// A training run that is planned for a device.
pub struct Planner<'a> {
    pub device: &'a Device,
    pub options: &'a TrainOptions,
    pub base: &'a Checkpoint,
    /// What is trained; without one it is every weight.
    pub adapter: Option<&'a Adapter>,
    pub rank: usize,
    pub world: usize,
    pub layout: Layout,
    /// Bytes that may be in use at once, where that is known.
    pub budget: Option<usize>,
}

/// What a training step takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// Bytes by label at the peak.
    pub usage: Usage,
    /// Layers that run again in backward, of all.
    pub recompute: usize,
    pub layers: usize,
    /// Ranks of the run, and how they share the model.
    pub world: usize,
    pub layout: Layout,
    /// Bytes that may be in use.
    pub budget: Option<usize>,
    /// The largest micro-batches that fit the budget with nothing and with every layer recomputed; 0 when none does.
    pub largest: Option<[usize; 2]>,
}

impl Planner<'_> {
    /// The plan of a step of these micro-batches, with the layers recomputed that the options say: when they leave it
    /// open, the fewest that fit, or all.
    ///
    /// # Errors
    /// The run's own.
    pub fn step(&self, micro_batches: &[Sequence]) -> Result<StepPlan> {
        let layers = self.base.config().layers;
        let recompute = match (self.options.checkpointing, self.budget) {
            (Checkpointing::Layers(n), _) => n.min(layers),
            (Checkpointing::Auto, None) => layers,
            (Checkpointing::Auto, Some(_)) => {
                first(0..layers, |n| self.fits(n, micro_batches))?.unwrap_or(layers)
            }
        };
        let usage = self.usage(recompute, micro_batches)?;
        let largest = || Ok::<_, Error>([self.largest(0)?, self.largest(layers)?]);
        let largest = self.budget.map(|_| largest()).transpose()?;
        let Planner { world, layout, budget, .. } = *self;
        Ok(StepPlan { usage, recompute, layers, world, layout, budget, largest })
    }

    /// The plan of a step of full sequences, every token of which is learned.
    ///
    /// # Errors
    /// The run's own.
    pub fn full_step(&self) -> Result<StepPlan> {
        self.step(&self.full(self.options.micro_batch))
    }

    /// [`Planner::full_step`] of the rank that holds most, all recomputing as many layers as the neediest must.
    ///
    /// # Errors
    /// The run's own.
    pub fn largest_rank(&self) -> Result<StepPlan> {
        // Every rank beyond the micro-batches is like the first of them: without work.
        let micro_batches = self.options.batch.div_ceil(self.options.micro_batch);
        let plans = |options: &TrainOptions| -> Result<Vec<StepPlan>> {
            let ranks = 0..self.world.min(micro_batches + 1);
            ranks.map(|rank| Planner { options, rank, ..*self }.full_step()).collect()
        };
        let mut all = plans(self.options)?;
        let most = all.iter().map(|plan| plan.recompute).max().unwrap_or(0);
        if all.iter().any(|plan| plan.recompute != most) {
            let checkpointing = Checkpointing::Layers(most);
            all = plans(&TrainOptions { checkpointing, ..self.options.clone() })?;
        }
        let largest = all.into_iter().max_by_key(|plan| plan.usage.peak);
        largest.ok_or_else(|| Error::new("a run has one rank at least"))
    }

    /// A step's micro-batches of `micro_batch` full sequences each.
    fn full(&self, micro_batch: usize) -> Vec<Sequence> {
        let n = self.options.seq;
        let document = Document { tokens: vec![0; n], targets: vec![0; n] };
        let sequence = Sequence::of(vec![&document; micro_batch]);
        vec![sequence; self.options.batch.div_ceil(micro_batch)]
    }

    /// The most sequences of a micro-batch, at most those of a step, with the first `recompute` layers recomputed.
    fn largest(&self, recompute: usize) -> Result<usize> {
        let most = self.options.batch;
        let too_large = first(1..most + 1, |n| Ok(!self.fits(recompute, &self.full(n))?))?;
        Ok(too_large.map_or(most, |n| n - 1))
    }

    fn fits(&self, recompute: usize, micro_batches: &[Sequence]) -> Result<bool> {
        Ok(self
            .budget
            .is_none_or(|budget| self.usage(recompute, micro_batches).is_ok_and(|u| u.peak <= budget)))
    }

    /// A step on the planning device; its books.
    fn usage(&self, recompute: usize, micro_batches: &[Sequence]) -> Result<Usage> {
        let options =
            TrainOptions { checkpointing: Checkpointing::Layers(recompute), ..self.options.clone() };
        let device = self.device.planning();
        let comm = Arc::new(Planned { rank: self.rank, world: self.world });
        let base = self.base.without_weights(matches!(self.device, Device::Cpu(_)));
        let rank = Rank { device: device.clone(), comm };
        Learner::new(Split::new(rank, self.layout), &options, &base, self.adapter)?
            .step(micro_batches, options.lr)?;
        Ok(device.ledger().usage())
    }
}

/// The first of `range` for which `holds`, which goes on to hold once it does.
fn first(
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

/// Bytes by label at the peak of a generation on one rank: of as many of the largest requests as run together.
///
/// # Errors
/// The run's own.
pub fn generation(
    split: &Split,
    base: &Checkpoint,
    compute: codelsi_engine::DType,
    adapter: Option<&Adapter>,
    requests: &[Request],
    limits: Limits,
) -> Result<Usage> {
    let base = base.without_weights(matches!(split.device(), Device::Cpu(_)));
    let split = split.planning();
    let planning = split.device().clone();
    let mut model = Llama::load(split, &base, compute, Train::Nothing)?;
    if let Some(adapter) = adapter {
        model.attach(adapter, Train::Nothing)?;
    }
    let mut largest: Vec<&Request> = requests.iter().collect();
    largest.sort_by_key(|r| std::cmp::Reverse(r.prompt.len() + r.n * r.max_tokens));
    let mut wave = Vec::new();
    let mut samples = 0;
    for request in largest {
        // One more than fills the batch: its prompt is computed beside it.
        let full = samples >= limits.batch;
        samples += request.n;
        wave.push(Request { stop: Vec::new(), stop_at_eos: false, ..request.clone() });
        if full {
            break;
        }
    }
    generate(&planning, &model, None, &wave, limits, &mut |_| {})?;
    Ok(planning.ledger().usage())
}

/// Bytes that a run may use on `device`, one of `sharing` ranks there: what is free, less the weights that the host
/// should keep cached, or less what a card's driver keeps.
pub fn budget(device: &Device, base: &Checkpoint, sharing: usize) -> Option<usize> {
    match device {
        Device::Cpu(_) => Some(available_bytes()?.saturating_sub(base.byte_len()) / sharing),
        Device::Cuda(cuda) => cuda.memory().ok().map(|(free, _)| usable(free)),
        Device::Plan(_) => None,
    }
}

/// Of a card's memory, what tensors can have: a driver keeps some, and rounds up.
pub fn usable(memory: usize) -> usize {
    memory - memory / 32
}

impl StepPlan {
    /// Whether the step fits.
    pub fn fits(&self) -> bool {
        self.budget.is_none_or(|budget| self.usage.peak <= budget)
    }

    /// Says of a device that had no memory left which flag would help.
    pub fn explain(&self, error: Error, options: &TrainOptions) -> Error {
        match error.is_out_of_memory() {
            true => error.advise(&self.advice(options)),
            false => error,
        }
    }

    /// Refuses to begin what a card has no room for.
    ///
    /// # Errors
    /// The plan in one line, and what would help.
    pub fn check(&self, device: &Device, options: &TrainOptions) -> Result<()> {
        if self.fits() || !matches!(device, Device::Cuda(_)) {
            return Ok(());
        }
        let table = self.to_string();
        let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(Error::new(format!("a step takes more memory than is free: {table}; {}", self.advice(options))))
    }

    /// What would make a step smaller.
    pub fn advice(&self, options: &TrainOptions) -> String {
        let mut flags = Vec::new();
        if self.recompute < self.layers {
            flags.push("give --checkpointing all".to_string());
        }
        if options.micro_batch > 1 {
            flags.push(format!("lower --micro-batch {}", options.micro_batch));
        }
        flags.push(format!("lower --seq {}", options.seq));
        // What is trained whole, every rank needs whole.
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
        if let Some([keeping, recomputing]) = self.largest {
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
    fn bisection_finds_where_it_begins_to_hold() {
        for threshold in 0..9 {
            let found = first(2..7, |n| Ok(n >= threshold)).unwrap();
            assert_eq!(found, (threshold < 7).then_some(threshold.max(2)));
        }
    }
}
