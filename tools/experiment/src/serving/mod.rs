//! The measurement of `bench --serve`: a load of requests, for several adapters, on one engine in this process.

mod arrivals;
mod replay;

pub use arrivals::{Arrival, ArrivalPattern};
pub use replay::{Percentiles, ServingReport, replay};

use crate::output::Output;
use crate::placement::Placement;
use crate::throughput::BenchModel;
use codelsi_engine::rng::RngKey;
use codelsi_engine::{Error, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::config::{LinearName, ModelConfig};
use codelsi_model::generate::{AdapterSlots, Engine, EngineConfig, SchedulerConfig};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::RankLayout;
use codelsi_model::trainable::Trainable;

/// Random numbers of adapters.
const ADAPTER_SITE: u32 = 0x5E23;

/// A load, and the engine that serves it.
pub struct ServingOptions {
    pub model: BenchModel,
    pub pattern: ArrivalPattern,
    /// Rank of the adapters.
    pub rank: usize,
    pub scheduler: SchedulerConfig,
    /// Pages of the KV cache; by default as many as a full batch of the longest requests takes.
    pub pages: Option<usize>,
    pub prefix_cache: bool,
}

/// Measures how a load is served.
///
/// # Errors
/// When there are several ranks, or the model does not load or fit.
pub fn measure(options: &ServingOptions, placement: Placement, out: &Output) -> Result<ServingReport> {
    if placement.ranks.world()? > 1 {
        return Err(Error::new("--serve measures one engine in this process: use --ranks 1"));
    }
    let device = placement.device.open()?;
    let layout = RankLayout::from(&device);
    let base = options.model.open()?;
    options.pattern.check(base.config())?;
    let packing = placement.pack_weights.decide(&base, &layout);
    packing.line().iter().for_each(|line| eprintln!("{line}"));
    let base = base.with_packing(packing.packed);
    let model = Llama::load(layout, &base, placement.compute(&base), Trainable::Nothing)?;
    let ArrivalPattern { requests, adapters, seed, .. } = options.pattern;
    let full = options.pattern.longest().div_ceil(options.scheduler.page_size) + 1;
    let pages = options.pages.unwrap_or(full * options.scheduler.max_sequences.min(requests));
    let config = EngineConfig {
        prefix_cache: options.prefix_cache,
        adapters: AdapterSlots { count: adapters, rank: options.rank },
        ..EngineConfig::new(options.scheduler, pages, options.pattern.longest())
    };
    let mut engine = Engine::new(&device, &model, None, config)?;
    let load = |i: usize| engine.load_adapter(&random_adapter(base.config(), options.rank, seed ^ i as u64)?);
    let adapters: Vec<_> = (1..=adapters).map(load).collect::<Result<_>>()?;
    let bar = out.bar("serve", requests);
    device.ledger().reset_peak();
    let report =
        replay(&mut engine, options.pattern.arrivals(base.config()), &adapters, |ended| bar.add(ended));
    bar.finish();
    Ok(ServingReport { peak_bytes: device.ledger().usage().peak, ..report? })
}

/// Makes a LoRA of rank `rank` on all seven linears that changes what a model says: its B is drawn from `seed` too.
///
/// # Errors
/// When the rank does not fit the model.
fn random_adapter(config: &ModelConfig, rank: usize, seed: u64) -> Result<Adapter> {
    let mut adapter = Adapter::init_lora(config, rank, 2.0 * rank as f32, 0.0, &LinearName::ALL, seed)?;
    for (site, tensors) in adapter.modules.values_mut().enumerate() {
        let key = RngKey { seed, step: site as u32, site: ADAPTER_SITE };
        for (i, b) in tensors.b.slice_mut::<f32>()?.iter_mut().enumerate() {
            *b = 0.02 * (key.uniform(i as u32, 0) - 0.5);
        }
    }
    Ok(adapter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_model::synthetic;

    #[test]
    fn an_adapter_of_a_seed_changes_something() {
        let config = synthetic::config("tiny").unwrap();
        let b = |seed| {
            let adapter = random_adapter(&config, 4, seed).unwrap();
            adapter.modules.values().next().unwrap().b.to_vec::<f32>().unwrap()
        };
        assert!(b(1).iter().filter(|&&x| x != 0.0).count() > b(1).len() / 2);
        assert_eq!(b(1), b(1));
        assert_ne!(b(1), b(2));
    }
}
