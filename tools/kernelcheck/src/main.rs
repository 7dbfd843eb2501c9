//! `kernelcheck`: the CUDA kernels listed, checked on any device, accounted for, and timed on a card. One file to
//! carry: it needs nothing but NVRTC.

#![forbid(unsafe_code)]

mod check;
#[cfg(feature = "emulator")]
mod counters;
mod list;
mod roofline;
mod specs;

use clap::{Parser, Subcommand};
use codelsi_engine::{DType, Result};
use codelsi_launch::{DeviceChoice, title};
use serde_json::json;
use std::process::ExitCode;

/// List, check, account for and time every CUDA kernel.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// End with one JSON object on stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Every variant of every kernel: registers, shared memory, source.
    List(Compiled),
    /// Every case of every op against its float64 reference and its CPU twin.
    Check {
        /// cpu, emulated, emulated:sm_90a, cuda or cuda:N.
        #[arg(long, default_value = "emulated")]
        device: DeviceChoice,
        /// Run the same kernels there too, and compare the results.
        #[arg(long)]
        against: Option<DeviceChoice>,
        /// Sizes of one's own instead of the cases, e.g. 128,5120; needs one op.
        #[arg(long)]
        shape: Option<String>,
        /// Ops; all by default.
        ops: Vec<String>,
    },
    /// What kernels take of a multiprocessor; spills and local memory are failures.
    Resources(Compiled),
    /// What the software GPU counts in an op's kernels, forward and backward.
    #[cfg(feature = "emulator")]
    Counters {
        op: String,
        /// Sizes of one's own; by default Code Llama 13B's with few rows.
        #[arg(long)]
        shape: Option<String>,
        #[arg(long, default_value = "emulated")]
        device: DeviceChoice,
        /// Storage type.
        #[arg(long, default_value = "bf16", value_parser = ["bf16", "f32"])]
        dtype: String,
    },
    /// Time every op on a card against its measured roofs.
    Roofline {
        #[arg(long, default_value = "cuda")]
        device: DeviceChoice,
        /// Sizes of one's own; needs one op.
        #[arg(long)]
        shape: Option<String>,
        /// Timed runs of each; the figure is their median.
        #[arg(long, default_value_t = 20)]
        repeat: usize,
        /// Ops; all by default.
        ops: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Compiled {
    /// Architectures.
    #[arg(long, value_delimiter = ',', default_value = "sm_80,sm_90a")]
    arch: Vec<String>,
    /// Ops; all by default.
    ops: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("kernelcheck: {e}");
            ExitCode::FAILURE
        }
    }
}

/// True when nothing failed.
fn run(args: &Args) -> Result<bool> {
    let (ok, object) = match &args.command {
        Command::List(compiled) => {
            let rows = list::rows(&compiled.ops, &compiled.arch)?;
            print!("{}", list::table(&rows));
            (true, list::object(&rows))
        }
        Command::Resources(compiled) => {
            let rows = list::rows(&compiled.ops, &compiled.arch)?;
            let offenders = list::offenders(&rows);
            print!("{}", list::table(&rows));
            offenders.iter().for_each(|line| println!("FAILED {line}"));
            (offenders.is_empty(), list::object(&rows))
        }
        Command::Check { device, against, shape, ops } => {
            let device = device.open()?;
            let against = against.map(DeviceChoice::open).transpose()?;
            println!("{}", title(&device));
            let request =
                check::Request { device: &device, against: against.as_ref(), ops, shape: shape.as_deref() };
            let all = check::run(&request, |checked| println!("{}", check::line(checked)))?;
            (all.iter().all(|c| c.report.is_ok()), check::object(&device, &all))
        }
        #[cfg(feature = "emulator")]
        Command::Counters { op, shape, device, dtype } => {
            let dtype = if dtype == "bf16" { DType::BF16 } else { DType::F32 };
            let counted = counters::count(&device.open()?, op, shape.as_deref(), dtype)?;
            print!("{}", counters::table(&counted));
            (true, counters::object(op, &counted))
        }
        Command::Roofline { device, shape, repeat, ops } => {
            let device = device.open()?;
            println!("{}", title(&device));
            let request = roofline::Request { ops, shape: shape.as_deref(), repeat: *repeat };
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
