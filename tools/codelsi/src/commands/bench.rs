//! `codelsi bench`: tokens per second, the share of the machine's measured roof, and the peak memory of prefill, decode
//! and LoRA training.

use crate::args::{DeviceArgs, RankArgs, help, number};
use crate::json::print_json;
use clap::{ArgGroup, Args};
use codelsi_engine::Result;
use codelsi_experiment::throughput::{self, BenchModel, BenchOptions, Throughput, WorkloadThroughput};
use codelsi_train::options::ActivationCheckpointing;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Measure speed and peak memory of prefill, decode and LoRA training.
#[derive(Args)]
#[command(group(ArgGroup::new("base").required(true).args(["model", "shape"])))]
pub struct BenchArgs {
    #[arg(long, help = help::MODEL, value_name = "DIR")]
    model: Option<PathBuf>,
    #[arg(long, help = help::SHAPE)]
    shape: Option<String>,
    /// Layers of the shape, from the first on, instead of all.
    #[arg(long, value_name = "N", requires = "shape", value_parser = number::layers())]
    layers: Option<usize>,
    /// Tokens of the prompt; 0 leaves prefill out.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = number::tokens_or_none())]
    prefill: usize,
    /// Tokens to generate one by one; 0 leaves decode out.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number::tokens_or_none())]
    decode: usize,
    /// Launch every kernel of a decode step by itself, instead of replaying a recorded CUDA graph.
    #[arg(long)]
    no_graphs: bool,
    /// Tokens of the sequence that each rank trains on in a LoRA step; 0 leaves training out.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = number::tokens_or_none())]
    train: usize,
    #[arg(long, help = help::CHECKPOINTING, value_name = "LAYERS", default_value = "auto")]
    checkpointing: ActivationCheckpointing,
    /// Timed runs of each; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = number::repetitions())]
    repeat: usize,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    let placement = args.ranks.placement(args.device);
    let options = BenchOptions {
        model: args.base(),
        prefill: args.prefill,
        decode: args.decode,
        cuda_graphs: !args.no_graphs,
        train: args.train,
        checkpointing: args.checkpointing,
        repeat: args.repeat,
    };
    let Some(Throughput { load_gb_per_s, workloads: measured }) = throughput::measure(&options, placement)?
    else {
        return Ok(());
    };
    if !args.json {
        load_gb_per_s.iter().for_each(|rate| println!("load    {rate:>10.2} GB/s"));
        measured.iter().for_each(|work| println!("{}", line(work)));
    }
    let mut object = Map::from_iter([("load_gb_per_s".to_string(), json!(load_gb_per_s))]);
    for name in ["prefill", "decode", "train"] {
        object.insert(format!("{name}_tokens_per_s"), Value::Null);
    }
    object.insert("peak_bytes".into(), json!(measured.iter().map(|work| work.peak_bytes).max()));
    measured.iter().for_each(|work| add_to(&mut object, work));
    print_json(args.json, &Value::Object(object));
    Ok(())
}

impl BenchArgs {
    /// The model: clap has seen to it that one of both is there.
    fn base(&self) -> BenchModel {
        match (&self.model, &self.shape) {
            (Some(folder), _) => BenchModel::Folder(folder.clone()),
            (None, shape) => {
                BenchModel::Random { shape: shape.clone().unwrap_or_default(), layers: self.layers }
            }
        }
    }
}

fn line(work: &WorkloadThroughput) -> String {
    let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    let share = work.roof_text().map_or(String::new(), |text| format!(", {text}"));
    let (peak, planned) = (mib(work.peak_bytes), mib(work.planned_bytes));
    let (name, rate) = (work.name, work.tokens_per_s);
    format!("{name:<8}{rate:>10.1} tokens/s{share}, peak {peak:.1} MiB, planned {planned:.1} MiB")
}

fn add_to(object: &mut Map<String, Value>, work: &WorkloadThroughput) {
    let mut add = |key: &str, value: Value| object.insert(format!("{}_{key}", work.name), value);
    add("tokens_per_s", json!(work.tokens_per_s));
    add("roof_share", json!(work.roof_share()));
    add("peak_bytes", json!(work.peak_bytes));
    add("planned_bytes", json!(work.planned_bytes));
}
