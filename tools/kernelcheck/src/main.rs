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
use codelsi_launch::{DeviceChoice, help, title};
use serde_json::json;
use std::process::ExitCode;

/// List, check, count and time the CUDA kernels.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct KernelcheckArgs {
    #[command(subcommand)]
    command: KernelcheckCommand,
    #[arg(long, global = true, help = help::JSON)]
    json: bool,
}

#[derive(Subcommand)]
enum KernelcheckCommand {
    /// List every variant of every kernel, with its registers and memory.
    #[command(next_line_help = true)]
    List(CompileArgs),
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
    Predict {
        /// Op to model, forward and backward; `adapter`: the whole cost of a layer's adapters in training
        #[arg(required_unless_present = "targets")]
        op: Option<String>,
        /// Compare the model with published figures instead
        #[arg(long, conflicts_with_all = ["op", "shape", "tokens"])]
        targets: bool,
        /// Chip: a100, h100 or h200
        #[arg(long, value_name = "CHIP", default_value = "h200")]
        chip: String,
        /// Sizes, as 2048,5120 [default: Code Llama 13B's]
        #[arg(long, value_name = "SIZES", conflicts_with = "tokens")]
        shape: Option<String>,
        /// With `adapter`: tokens of a step [default: 8192]
        #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1 << 17))]
        tokens: Option<u32>,
        /// Storage type of the tensors
        #[arg(long, value_name = "TYPE", default_value = "bf16", value_parser = ["bf16", "f32"])]
        dtype: String,
    },
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

/// Runs the command and returns whether nothing failed.
fn run(args: &KernelcheckArgs) -> Result<bool> {
    let (ok, object) = match &args.command {
        KernelcheckCommand::List(compiled) => {
            let rows = list::rows(&compiled.ops, &compiled.arch)?;
            print!("{}", list::table(&rows));
            (true, list::object(&rows))
        }
        KernelcheckCommand::Resources(compiled) => {
            let rows = list::rows(&compiled.ops, &compiled.arch)?;
            let offenders = list::offenders(&rows);
            print!("{}", list::table(&rows));
            offenders.iter().for_each(|line| println!("FAILED {line}"));
            (offenders.is_empty(), list::object(&rows))
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
            (all.iter().all(|c| c.report.is_ok()), check::object(&device, &all))
        }
        #[cfg(feature = "emulator")]
        KernelcheckCommand::Counters { op, shape, device, dtype } => {
            let counted = counters::count(&device.open()?, op, shape.as_deref(), storage_type(dtype))?;
            print!("{}", counters::table(&counted));
            (true, counters::object(op, &counted))
        }
        #[cfg(feature = "emulator")]
        KernelcheckCommand::Predict { targets: true, .. } => {
            let met = predict::meet("")?;
            print!("{}", predict::targets_table(&met));
            (met.iter().all(predict::MetTarget::is_met), predict::targets_object(&met))
        }
        #[cfg(feature = "emulator")]
        KernelcheckCommand::Predict { op: Some(op), chip, tokens, .. } if op == "adapter" => {
            let cost = predict::adapter_cost(&predict::Chip::find(chip)?, tokens.unwrap_or(8192) as usize)?;
            print!("{}", predict::adapter_table(&cost));
            (true, predict::adapter_object(&cost))
        }
        #[cfg(feature = "emulator")]
        KernelcheckCommand::Predict { op, chip, shape, tokens, dtype, .. } => {
            if tokens.is_some() {
                return Err(Error::new("--tokens is for `predict adapter`; an op takes --shape"));
            }
            let chip = predict::Chip::find(chip)?;
            let op = op.as_deref().unwrap_or_default();
            let predicted = predict::predict_op(&chip, op, shape.as_deref(), storage_type(dtype))?;
            print!("{}", predict::table(&chip, &predicted));
            (true, predict::object(&chip, &predicted))
        }
        KernelcheckCommand::Roofline { device, shape, repeat, ops } => {
            let device = device.open()?;
            println!("{}", title(&device));
            let request = roofline::RooflineRequest { ops, shape: shape.as_deref(), repeat: *repeat };
            let (roofs, all) = roofline::run(&device, &request, |roofs, t| println!("{}", t.line(roofs)))?;
            println!("copy {:.0} GB/s, mma.sync {:.0} TFLOP/s", roofs.bytes / 1e9, roofs.flops / 1e12);
            (true, roofline::object(&title(&device), roofs, &all))
        }
    };
    if args.json {
        println!("{}", json!(object));
    }
    Ok(ok)
}
