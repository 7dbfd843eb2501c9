//! `parity DIR..`: holds the engine to reference outputs and names the first tensor that departs.

#![forbid(unsafe_code)]

use clap::Parser;
use codelsi_engine::{At, DType, Result};
use codelsi_launch::{DeviceChoice, RankOptions, title};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_parity::{Compared, check};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Hold the engine to reference outputs: folders with model/, adapter/, reference.json and reference.safetensors.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Reference cases; files among them are skipped, so that a glob will do.
    #[arg(required = true)]
    cases: Vec<PathBuf>,
    /// auto, cpu, cuda, cuda:N, emulated or emulated:sm_90a.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Workers, each with a device of its own: on cards, those from --device on [default: 1, or a launcher's processes]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// How they share a model: replicate, shard or tensor.
    #[arg(long, default_value_t)]
    layout: Layout,
    /// Seconds that a rank waits for the others before the run ends [default: CODELSI_TIMEOUT, or 600]
    #[arg(long)]
    timeout: Option<f64>,
    /// Storage of activations: f32 is held to the stated float32 tolerances, bf16 to twice the observed bf16 error.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    compute: String,
    /// Show every tensor, not only the worst of each case.
    #[arg(long)]
    verbose: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("parity: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let compute = if args.compute == "bf16" { DType::BF16 } else { DType::F32 };
    println!("{}", title(&args.device.open()?));
    let ranks = RankOptions { count: args.ranks, timeout: args.timeout };
    let (mut all_ok, mut cases) = (true, Vec::new());
    for folder in args.cases.iter().filter(|c| c.is_dir() || !c.exists()) {
        let rows = ranks.run(args.device, |rank| check(folder, RankLayout::new(rank, args.layout), compute));
        let Some(rows) = rows.at(folder.display().to_string())? else { continue };
        let ok = show(folder, &rows, args.verbose);
        let worst = worst(&rows);
        all_ok &= ok;
        cases.push(json!({
            "name": name(folder),
            "ok": ok,
            "tensors": rows.len(),
            "worst": { "tensor": worst.tensor, "rel_l2": worst.error, "limit": worst.limit },
        }));
    }
    if cases.is_empty() {
        return Err(codelsi_engine::Error::new("no folder among the arguments is a reference case"));
    }
    if args.json {
        println!("{}", json!({ "ok": all_ok, "cases": cases }));
    }
    Ok(all_ok)
}

/// Prints a case's table; true when nothing departs.
fn show(folder: &Path, rows: &[Compared], verbose: bool) -> bool {
    let first = rows.iter().find(|r| !r.ok());
    let verdict = match first {
        None => format!("ok, {} tensors", rows.len()),
        Some(row) => format!("departs first at {}", row.tensor),
    };
    println!("{}: {verdict}", name(folder));
    let worst = worst(rows);
    for row in rows.iter().filter(|r| verbose || !r.ok() || r.tensor == worst.tensor) {
        println!(
            "  {:<64} error {:.2e} of {:.2e}   max {:.2e} of {:.2e}{}",
            row.tensor,
            row.error,
            row.limit,
            row.max_abs,
            row.max_abs_limit,
            if row.ok() { "" } else { "   DEPARTS" }
        );
    }
    first.is_none()
}

fn worst(rows: &[Compared]) -> &Compared {
    let key = |r: &Compared| if r.ratio().is_nan() { f64::INFINITY } else { r.ratio() };
    rows.iter().max_by(|a, b| key(a).total_cmp(&key(b))).expect("a case has tensors")
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}
