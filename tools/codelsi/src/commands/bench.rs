//! `codelsi bench`: tokens per second, the share of the machine's measured roof, and the peak memory of prefill, decode
//! and LoRA training; with `--serve`, the service of a load of requests.

use crate::args::{DeviceArgs, RankArgs, folder, help, number};
use crate::commands::bench_serve::{self, Figures, ServeBenchArgs};
use crate::json::print_json;
use clap::{ArgGroup, Args};
use codelsi_engine::Result;
use codelsi_engine::op_times::{OpTime, OpTimes, Pass};
use codelsi_experiment::environment::environment;
use codelsi_experiment::throughput::{self, BenchModel, BenchOptions, Throughput, WorkloadThroughput};
use codelsi_launch::csv;
use codelsi_train::TrainOptions;
use codelsi_train::options::ActivationCheckpointing;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Measure speed and peak memory of prefill, decode and LoRA training, or of serving.
#[derive(Args)]
#[command(group(ArgGroup::new("base").required(true).args(["model", "shape"])))]
pub struct BenchArgs {
    #[arg(long, help = help::MODEL, value_name = "DIR", value_parser = folder())]
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
    #[arg(long, help = help::DROPOUT, value_name = "P")]
    dropout: Option<f32>,
    /// Timed runs of each; the figures are medians, with the slowest and the fastest run.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = number::repetitions())]
    repeat: usize,
    /// Print besides where the time of a run goes, by op.
    #[arg(long)]
    profile: bool,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[arg(long, help = help::CSV, value_name = "FILE")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    serving: ServeBenchArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    let placement = args.ranks.placement(args.device);
    if args.serving.serve {
        let figures = Figures { json: args.json, csv: args.csv.as_ref() };
        return bench_serve::run(&args.serving, args.base(), !args.no_graphs, placement, figures);
    }
    let options = BenchOptions {
        model: args.base(),
        prefill: args.prefill,
        decode: args.decode,
        cuda_graphs: !args.no_graphs,
        train: args.train,
        checkpointing: args.checkpointing,
        dropout: args.dropout.unwrap_or(TrainOptions::default().dropout),
        repeat: args.repeat,
        profile: args.profile,
    };
    let Some(Throughput { load_gb_per_s, workloads: measured }) = throughput::measure(&options, placement)?
    else {
        return Ok(());
    };
    let environment = environment(placement)?;
    if let Some(path) = &args.csv {
        let rows: Vec<Value> = measured.iter().map(|work| row(work, &environment)).collect();
        csv::write(path, &rows)?;
    }
    if !args.json {
        load_gb_per_s.iter().for_each(|rate| println!("load    {rate:>10.2} GB/s"));
        measured.iter().for_each(print_work);
    }
    let mut object = Map::from_iter([("load_gb_per_s".to_string(), json!(load_gb_per_s))]);
    for name in ["prefill", "decode", "train"] {
        object.insert(format!("{name}_tokens_per_s"), Value::Null);
    }
    object.insert("peak_bytes".into(), json!(measured.iter().map(|work| work.peak_bytes).max()));
    measured.iter().for_each(|work| add_to(&mut object, work));
    object.insert("environment".into(), json!(BTreeMap::from_iter(environment)));
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

fn print_work(work: &WorkloadThroughput) {
    let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    let share = work.roof_text().map_or(String::new(), |text| format!(", {text}"));
    let (peak, planned) = (mib(work.peak_bytes), mib(work.planned_bytes));
    let (name, rate, [low, high]) = (work.name, work.tokens_per_s, work.spread);
    println!("{name:<8}{rate:>10.1} tokens/s [{low:.1}, {high:.1}]{share}");
    println!("        peak {peak:.1} MiB, planned {planned:.1} MiB");
    work.profile.iter().for_each(|(seconds, times)| print_profile(*seconds, times));
}

/// Prints the ops by their time, the longest first, and what no op accounts for.
fn print_profile(seconds: f64, times: &OpTimes) {
    let share = |part: f64| format!("{:>9.2} ms {:>5.1} %", 1e3 * part, 100.0 * part / seconds);
    let mut ops: Vec<_> = times.iter().map(|(key, op)| (key, op.calls, op.time.as_secs_f64())).collect();
    ops.sort_by(|a, b| b.2.total_cmp(&a.2));
    for ((name, pass), calls, time) in &ops {
        let pass = format!("{pass:?}").to_lowercase();
        println!("        {name:<14}{pass:<9}{calls:>6} calls {}", share(*time));
    }
    let rest = seconds - ops.iter().map(|op| op.2).sum::<f64>();
    println!("        {:<35} {}", "outside of ops", share(rest));
}

/// A workload's figures with the machine that they were measured on, for a table.
fn row(work: &WorkloadThroughput, environment: &[(String, String)]) -> Value {
    let mut row = json!({
        "workload": work.name, "tokens_per_s": work.tokens_per_s, "slowest": work.spread[0],
        "fastest": work.spread[1], "runs": work.runs, "roof_share": work.roof_share(),
        "peak_bytes": work.peak_bytes, "planned_bytes": work.planned_bytes,
    });
    for (name, value) in environment {
        row[name] = json!(value);
    }
    row
}

fn add_to(object: &mut Map<String, Value>, work: &WorkloadThroughput) {
    let mut add = |key: &str, value: Value| object.insert(format!("{}_{key}", work.name), value);
    add("tokens_per_s", json!(work.tokens_per_s));
    add("tokens_per_s_slowest_fastest", json!(work.spread));
    add("runs", json!(work.runs));
    add("roof_share", json!(work.roof_share()));
    add("peak_bytes", json!(work.peak_bytes));
    add("planned_bytes", json!(work.planned_bytes));
    let op = |((name, pass), op): (&(&str, Pass), &OpTime)| {
        json!({"op": name, "pass": format!("{pass:?}").to_lowercase(), "calls": op.calls,
            "seconds": op.time.as_secs_f64()})
    };
    let profile = work.profile.as_ref().map(|(_, times)| times.iter().map(op).collect::<Vec<_>>());
    add("profile", json!(profile));
}
