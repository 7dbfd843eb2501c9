//! `kernelcheck`: the CUDA kernels listed, checked on any device, accounted for, and timed on a card. One file to
//! carry: it needs nothing but NVRTC.

#![forbid(unsafe_code)]

mod check;
#[cfg(feature = "emulator")]
mod counters;
mod list;
#[cfg(feature = "emulator")]
mod predict;
mod roofline;
mod specs;

use clap::{Parser, Subcommand};
use codelsi_engine::Result;
#[cfg(feature = "emulator")]
use codelsi_engine::{DType, Error};
use codelsi_launch::{DeviceChoice, csv, help, title};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

/// List, check, count and time the CUDA kernels.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct KernelcheckArgs {
    #[command(subcommand)]
    command: KernelcheckCommand,
    #[arg(long, global = true, help = help::JSON)]
    json: bool,
    #[arg(long, global = true, help = help::CSV, value_name = "FILE")]
    csv: Option<PathBuf>,
}

#[derive(Subcommand)]
enum KernelcheckCommand {
    /// List every variant of every kernel, with its registers and memory.
    #[command(next_line_help = true)]
    List {
        /// The names of the ops alone, in one line
        #[arg(long)]
        names: bool,
        #[command(flatten)]
        compiled: CompileArgs,
    },
    /// Check every case of every op against float64 and its CPU twin.
    #[command(next_line_help = true)]
    Check {
        #[arg(long, help = help::DEVICE, default_value = "emulated")]
        device: DeviceChoice,
        /// Second device: run the same kernels there, and compare
        #[arg(long, value_name = "DEVICE")]
        against: Option<DeviceChoice>,
        /// Sizes instead of the op's cases, as 128,5120; fits one op
        #[arg(long, value_name = "SIZES")]
        shape: Option<String>,
        /// Ops to run [default: all]
        #[arg(value_name = "OP")]
        ops: Vec<String>,
    },
    /// List as `list` does, and fail on spills and local memory.
    #[command(next_line_help = true)]
    Resources(CompileArgs),
    /// Count instructions and memory traffic of an op on the software GPU.
    #[cfg(feature = "emulator")]
    #[command(next_line_help = true)]
    Counters {
        /// Op to run, forward and backward
        op: String,
        /// Sizes, as 128,5120 [default: Code Llama 13B's with few rows]
        #[arg(long, value_name = "SIZES")]
        shape: Option<String>,
        #[arg(long, help = help::DEVICE, default_value = "emulated")]
        device: DeviceChoice,
        /// Storage type of the tensors
        #[arg(long, value_name = "TYPE", default_value = "bf16", value_parser = ["bf16", "f32"])]
        dtype: String,
    },
    /// Model the time of an op on a chip, from counters of the software GPU and the chip's published rates.
    #[cfg(feature = "emulator")]
    #[command(next_line_help = true)]
    Predict(PredictArgs),
    /// Time every op on a GPU against the GPU's measured roofs.
    #[command(next_line_help = true)]
    Roofline {
        #[arg(long, help = help::DEVICE, default_value = "cuda")]
        device: DeviceChoice,
        /// Sizes, as 128,5120; fits one op [default: Code Llama 13B's]
        #[arg(long, value_name = "SIZES")]
        shape: Option<String>,
        /// Timed runs of each op; the figure is their median
        #[arg(long, value_name = "N", default_value_t = 20)]
        repeat: usize,
        /// Ops to run [default: all]
        #[arg(value_name = "OP")]
        ops: Vec<String>,
    },
}

#[cfg(feature = "emulator")]
#[derive(clap::Args)]
struct PredictArgs {
    /// Op to model, forward and backward; `adapter`: the whole cost of a layer's adapters in training;
    /// `step`, `decode`: a training or a decoding step of Code Llama 13B
    #[arg(required_unless_present_any = ["targets", "measured"])]
    op: Option<String>,
    /// Compare the model with published figures instead
    #[arg(long, conflicts_with_all = ["op", "shape", "tokens"])]
    targets: bool,
    /// Show the model beside times of a card: the JSON of `roofline --json`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["op", "targets", "shape", "tokens"])]
    measured: Option<PathBuf>,
    /// Chip: a100, h100 or h200
    #[arg(long, value_name = "CHIP", default_value = "h200")]
    chip: String,
    /// Sizes, as 2048,5120 [default: Code Llama 13B's]
    #[arg(long, value_name = "SIZES", conflicts_with = "tokens")]
    shape: Option<String>,
    /// With `adapter` and `step`: tokens of a step [default: 8192]; with `decode`: sequences [default: 1]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1 << 17))]
    tokens: Option<u32>,
    /// Storage type of the tensors
    #[arg(long, value_name = "TYPE", default_value = "bf16", value_parser = ["bf16", "f32"])]
    dtype: String,
}

#[derive(clap::Args)]
struct CompileArgs {
    /// Architectures to compile for, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "sm_80,sm_90a")]
    arch: Vec<String>,
    /// Ops to compile [default: all]
    #[arg(value_name = "OP")]
    ops: Vec<String>,
}

const AFTER_HELP: &str = "\
Examples:
  kernelcheck check rmsnorm                  on the software GPU
  kernelcheck check --device cuda --against emulated
  kernelcheck predict gemm --chip a100 --shape 8192,8192,8192

Exit status: 0 when nothing failed, 1 for a failure, 2 for a wrong command line.";

fn main() -> ExitCode {
    let args = KernelcheckArgs::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("kernelcheck: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "emulator")]
fn storage_type(name: &str) -> DType {
    if name == "bf16" { DType::BF16 } else { DType::F32 }
}

/// The result of a command.
struct Outcome {
    /// True when nothing failed.
    ok: bool,
    object: Value,
    /// The rows of the object, for a table.
    rows: Vec<Value>,
}

/// Runs the command and returns whether nothing failed.
fn run(args: &KernelcheckArgs) -> Result<bool> {
    let Outcome { ok, object, rows } = outcome(&args.command)?;
    if let Some(path) = &args.csv {
        csv::write(path, &rows)?;
    }
    if args.json {
        println!("{object}");
    }
    Ok(ok)
}

fn outcome(command: &KernelcheckCommand) -> Result<Outcome> {
    Ok(match command {
        KernelcheckCommand::List { names: true, compiled } => {
            let names: Vec<&str> = specs::specs(&compiled.ops)?.iter().map(|spec| spec.name).collect();
            println!("{}", names.join(" "));
            Outcome { ok: true, object: serde_json::json!({ "ops": names }), rows: Vec::new() }
        }
        KernelcheckCommand::List { compiled, .. } => {
            let all = list::rows(&compiled.ops, &compiled.arch)?;
            print!("{}", list::table(&all));
            Outcome { ok: true, object: list::object(&all), rows: list::kernel_rows(&all) }
        }
        KernelcheckCommand::Resources(compiled) => {
            let all = list::rows(&compiled.ops, &compiled.arch)?;
            let offenders = list::offenders(&all);
            print!("{}", list::table(&all));
            offenders.iter().for_each(|line| println!("FAILED {line}"));
            Outcome { ok: offenders.is_empty(), object: list::object(&all), rows: list::kernel_rows(&all) }
        }
        KernelcheckCommand::Check { device, against, shape, ops } => {
            let device = device.open()?;
            let against = against.map(DeviceChoice::open).transpose()?;
            println!("{}", title(&device));
            let request = check::CheckRequest {
                device: &device,
                against: against.as_ref(),
                ops,
                shape: shape.as_deref(),
            };
            let all = check::run(&request, |checked| println!("{}", check::line(checked)))?;
            Outcome {
                ok: all.iter().all(|c| c.report.is_ok()),
                object: check::object(&device, &all),
                rows: check::rows(&device, &all),
            }
        }
        #[cfg(feature = "emulator")]
        KernelcheckCommand::Counters { op, shape, device, dtype } => {
            let counted = counters::count(&device.open()?, op, shape.as_deref(), storage_type(dtype))?;
            print!("{}", counters::table(&counted));
            Outcome { ok: true, object: counters::object(&counted), rows: counters::rows(&counted) }
        }
        #[cfg(feature = "emulator")]
        KernelcheckCommand::Predict(request) => predicted(request)?,
        KernelcheckCommand::Roofline { device, shape, repeat, ops } => {
            let device = device.open()?;
            println!("{}", title(&device));
            let request = roofline::RooflineRequest { ops, shape: shape.as_deref(), repeat: *repeat };
            let (roofs, all) = roofline::run(&device, &request, |roofs, t| println!("{}", t.line(roofs)))?;
            println!("copy {:.0} GB/s, mma.sync {:.0} TFLOP/s", roofs.bytes / 1e9, roofs.flops / 1e12);
            let object = roofline::object(&title(&device), roofs, &all);
            Outcome { ok: true, object, rows: roofline::rows(roofs, &all) }
        }
    })
}

#[cfg(feature = "emulator")]
fn predicted(request: &PredictArgs) -> Result<Outcome> {
    let PredictArgs { op, targets, measured, chip, shape, tokens, dtype } = request;
    if *targets {
        let met = predict::meet("")?;
        print!("{}", predict::targets_table(&met));
        let ok = met.iter().all(predict::MetTarget::is_met);
        return Ok(Outcome { ok, object: predict::targets_object(&met), rows: predict::target_rows(&met) });
    }
    let (chip, rows) = (predict::Chip::find(chip)?, tokens.map(|t| t as usize));
    if let Some(file) = measured {
        let cases = predict::beside(&chip, file)?;
        print!("{}", predict::measured_table(&chip, &cases));
        let rows = predict::measured_rows(&chip, &cases);
        return Ok(Outcome { ok: true, object: serde_json::json!({ "cases": rows }), rows });
    }
    let step = |step| -> Result<Outcome> {
        let predicted = predict::predict_step(&chip, step, rows)?;
        print!("{}", predicted.table());
        Ok(Outcome { ok: true, object: predicted.object(), rows: predicted.rows() })
    };
    match op.as_deref().unwrap_or_default() {
        "adapter" => {
            let cost = predict::adapter_cost(&chip, rows.unwrap_or(8192))?;
            print!("{}", predict::adapter_table(&cost));
            Ok(Outcome {
                ok: true,
                object: predict::adapter_object(&cost),
                rows: predict::adapter_rows(&cost),
            })
        }
        "step" => step(&predict::TRAINING),
        "decode" => step(&predict::DECODING),
        _ if tokens.is_some() => {
            Err(Error::new("--tokens is for `predict adapter`, `step` and `decode`; an op takes --shape"))
        }
        op => {
            let predicted = predict::predict_op(&chip, op, shape.as_deref(), storage_type(dtype))?;
            print!("{}", predict::table(&chip, &predicted));
            Ok(Outcome {
                ok: true,
                object: predict::object(&chip, &predicted),
                rows: predict::rows(&chip, &predicted),
            })
        }
    }
}
