//! `codelsi plan`: the memory of a training step or a generation, planned without the weights' data.

use crate::args::{DeviceArgs, MethodArgs, StepArgs, folder, help, number};
use crate::json::print_json;
use clap::{ArgGroup, Args};
use codelsi_engine::cuda::{Cuda, DeviceProperties};
use codelsi_engine::memory::Usage;
use codelsi_engine::{DType, Device, Error, Label, PlannedComm, Rank, Result};
use codelsi_launch::DeviceChoice;
use codelsi_model::adapter::{Adapter, AdapterConfig};
use codelsi_model::checkpoint::{Checkpoint, PackWeights};
use codelsi_model::generate::{GenerationRequest, SchedulerConfig};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_model::synthetic;
use codelsi_train::TrainOptions;
use codelsi_train::plan::{
    Planner, memory_budget, open_for_planning, plan_generation, usable_gpu_memory, weights_exceed_memory,
};
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Plan the memory of a training step or of a generation; exit status 1 if it does not fit.
#[derive(Args)]
#[command(group(ArgGroup::new("base").required(true).args(["model", "shape"])))]
pub struct PlanArgs {
    #[arg(long, help = help::MODEL, value_name = "DIR", value_parser = folder())]
    model: Option<PathBuf>,
    #[arg(long, help = help::SHAPE)]
    shape: Option<String>,
    /// Memory of the device, as 80GB, 40GiB, 512MiB or bytes, instead of what is free on it; --device auto then is a GPU.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[arg(long, help = help::RANKS, value_name = "N", default_value_t = 1, help_heading = "Device and ranks")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    ranks: u16,
    #[arg(long, help = help::LAYOUT, default_value_t, help_heading = "Device and ranks")]
    layout: Layout,
    #[arg(long, help = help::PACK_WEIGHTS, value_name = "WHEN", default_value_t)]
    #[arg(help_heading = "Device and ranks")]
    pack_weights: PackWeights,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    method: MethodArgs,
    /// Plan a generation instead of a training step.
    #[arg(long, help_heading = "Generation")]
    generate: bool,
    #[arg(long, help = help::SEQUENCES, help_heading = "Generation", value_name = "N")]
    #[arg(default_value_t = 64, requires = "generate")]
    #[arg(value_parser = number::sequences())]
    sequences: usize,
    #[arg(long, help = help::CONTEXT_LENGTH, alias = "context", help_heading = "Generation", value_name = "N")]
    #[arg(default_value_t = 1024, requires = "generate", value_parser = number::tokens())]
    context_length: usize,
    #[arg(long, help = help::PAGE_SIZE, help_heading = "Generation", value_name = "N")]
    #[arg(default_value_t = 16, requires = "generate", value_parser = clap::value_parser!(u16).range(1..=4096))]
    page_size: u16,
}

/// A number of bytes: digits with an optional unit, decimal (MB, GB) or binary (MiB, GiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes(usize);

impl FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let factor = match unit.trim() {
            "" | "B" => 1.0,
            "MB" => 1e6,
            "GB" => 1e9,
            "MiB" => 2f64.powi(20),
            "GiB" => 2f64.powi(30),
            _ => {
                return Err(Error::new(format!(
                    "`{text}` is no size: give it as 80GB, 40GiB, 512MiB or bytes"
                )));
            }
        };
        let number = text[..text.len() - unit.len()].parse::<f64>().ok().filter(|&n| n > 0.0);
        let number = number.ok_or_else(|| {
            Error::new(format!("`{text}` is no size above 0: give it as 80GB, 40GiB, 512MiB or bytes"))
        })?;
        let bytes = Some(number * factor).filter(|bytes| (1.0..=1e18).contains(bytes));
        let bytes = bytes.ok_or_else(|| Error::new(format!("`{text}` is not from 1 byte to 10^18 bytes")))?;
        Ok(Bytes(bytes as usize))
    }
}

/// Runs the command.
pub fn run(args: &PlanArgs) -> Result<()> {
    let base = base(args)?;
    let device = args.target()?;
    let packing = args.pack_weights.decide(&base, &args.rank_layout(&device));
    packing.line().iter().for_each(|line| eprintln!("{line}"));
    let base = base.with_packing(packing.packed);
    let compute = args.device.compute.map_or(base.dtype(), Into::into);
    let stated =
        args.memory.map(|Bytes(n)| if matches!(device, Device::Cpu(_)) { n } else { usable_gpu_memory(n) });
    let budget = stated.or_else(|| memory_budget(&device, &base, args.ranks.into()));
    let Plan { text, object, advice } = match args.generate {
        true => generating(args, &base, &device, compute, budget)?,
        false => training(args, &base, &device, compute, budget)?,
    };
    if !args.json {
        println!("{text}");
    }
    print_json(args.json, &object);
    let alone = || args.memory.is_none().then(|| weights_exceed_memory(&device, &base)).flatten();
    match advice {
        None => Ok(()),
        Some(advice) => Err(Error::new(format!("does not fit: {}", alone().unwrap_or(advice)))),
    }
}

/// A plan as text and as JSON.
struct Plan {
    text: String,
    object: Value,
    /// The flags that would help, if the plan does not fit.
    advice: Option<String>,
}

/// Returns the model's shapes; without weights, as if these were stored as bf16.
fn base(args: &PlanArgs) -> Result<Checkpoint> {
    match (&args.shape, &args.model) {
        (Some(shape), _) => Ok(Checkpoint::shapes_only(synthetic::config(shape)?, Dtype::BF16)),
        (None, Some(folder)) => open_for_planning(folder),
        (None, None) => Err(Error::new("give --model DIR or --shape NAME")),
    }
}

impl PlanArgs {
    /// Returns the device to plan for; a GPU need not be present when `--memory` states its size.
    fn target(&self) -> Result<Device> {
        match (self.device.device, self.memory) {
            (DeviceChoice::Cpu, _) => Ok(Device::cpu()),
            (DeviceChoice::Auto, None) => self.device.device.open(),
            (DeviceChoice::Auto | DeviceChoice::Cuda(_), Some(_)) if Cuda::card_count().unwrap_or(0) == 0 => {
                Ok(Device::plan_card(DeviceProperties::a100()))
            }
            (DeviceChoice::Auto, Some(_)) => DeviceChoice::Cuda(0).open(),
            _ => self.device.device.open(),
        }
    }

    /// Returns the ranks to plan for, seen from the first.
    fn rank_layout(&self, device: &Device) -> RankLayout {
        let comm = Arc::new(PlannedComm { rank: 0, world: self.ranks.into() });
        RankLayout::new(Rank { device: device.clone(), comm }, self.layout)
    }
}

fn training(
    args: &PlanArgs,
    base: &Checkpoint,
    device: &Device,
    compute: DType,
    budget: Option<usize>,
) -> Result<Plan> {
    let config = base.config();
    let AdapterConfig { method, rank, alpha, modules_to_save, .. } =
        args.method.settings(TrainOptions::default().adapter_settings());
    let options = TrainOptions {
        full: args.method.full,
        method,
        rank,
        alpha,
        modules_to_save,
        seq: args.step.seq(config.max_positions)?,
        batch: args.step.batch,
        micro_batch: args.step.micro_batch,
        checkpointing: args.step.checkpointing,
        compute,
        ..TrainOptions::default()
    };
    options.check(config.max_positions)?;
    let adapter = Adapter::allocate(&Device::plan(), config, &options.adapter_settings())?;
    let adapter = (!args.method.full).then_some(&adapter);
    let world = args.ranks.into();
    let plan =
        Planner { device, options: &options, base, adapter, rank: 0, world, layout: args.layout, budget }
            .plan_largest_rank()?;
    let adapter_text = || format!("{} of rank {}", options.method, options.rank);
    let trained = if options.full { "every weight".to_string() } else { adapter_text() };
    let text = format!(
        "a training step of {trained}: {} sequences of {} tokens, {} at a time, {compute:?}{}\n{plan}",
        options.batch,
        options.seq,
        options.micro_batch,
        if world > 1 { format!(", the most that one of {world} ranks holds") } else { String::new() }
    );
    let object = json!({
        "bytes": labels(&plan.usage), "peak_bytes": plan.usage.peak, "available_bytes": plan.budget,
        "fits": plan.fits(), "recomputed_layers": plan.recompute, "layers": plan.layers,
        "largest_micro_batch": plan.max_micro_batches.map(|[keeping, recomputing]| {
            json!({"keeping_every_layer": keeping, "recomputing_every_layer": recomputing})
        }),
    });
    Ok(Plan { text, object, advice: (!plan.fits()).then(|| plan.advice(&options)) })
}

fn generating(
    args: &PlanArgs,
    base: &Checkpoint,
    device: &Device,
    compute: DType,
    budget: Option<usize>,
) -> Result<Plan> {
    let config = base.config();
    let context = args.context_length.min(config.max_positions);
    let limits = SchedulerConfig {
        max_sequences: args.sequences,
        page_size: args.page_size.into(),
        ..SchedulerConfig::default()
    };
    // Half of each sequence is its prompt.
    let request = GenerationRequest::greedy(vec![0; context.div_ceil(2)], (context / 2).max(1));
    let requests = vec![request; args.sequences];
    let settings = args.method.settings(TrainOptions::default().adapter_settings());
    let adapter = Adapter::allocate(&Device::plan(), config, &settings)?;
    let usage = plan_generation(&args.rank_layout(device), base, compute, Some(&adapter), &requests, limits)?;
    let fits = budget.is_none_or(|budget| usage.peak <= budget);
    let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    let available = budget.map(|b| {
        format!("\n  {:<12}{:>12.1} MiB: {}", "available", mib(b), if fits { "fits" } else { "DOES NOT FIT" })
    });
    let text = format!(
        "{} sequences of {context} tokens, in pages of {}, {compute:?}\n{usage}{}",
        args.sequences,
        args.page_size,
        available.unwrap_or_default()
    );
    let object = json!({
        "bytes": labels(&usage), "peak_bytes": usage.peak, "available_bytes": budget, "fits": fits,
    });
    let advice = format!(
        "lower --sequences {} or --context-length {context}{}",
        args.sequences,
        match args.layout {
            Layout::Replicate => ", or spread the weights over cards with --ranks 2 --layout shard",
            _ => "",
        }
    );
    Ok(Plan { text, object, advice: (!fits).then_some(advice) })
}

/// Returns the bytes at the peak by label.
fn labels(usage: &Usage) -> Value {
    let pairs = Label::ALL.iter().map(|&label| (label.name().to_string(), usage.at_peak_of(label).into()));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|b| b.0);
        assert_eq!(bytes("80GB").unwrap(), 80_000_000_000);
        assert_eq!(bytes("1.5GiB").unwrap(), 3 << 29);
        assert_eq!((bytes("512 MiB").unwrap(), bytes("7").unwrap()), (512 << 20, 7));
        for bad in ["", "GB", "80 parsecs", "-3GB", "0MB", "0.1B", "1e400", "nan", "9999999999999999999GB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
