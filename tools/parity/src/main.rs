//! `parity DIR..`: compares the engine's results with reference outputs and names the first tensor that departs.

#![forbid(unsafe_code)]

use clap::Parser;
use codelsi_engine::{At, DType, Result};
use codelsi_launch::{DeviceChoice, RankOptions, help, title};
use codelsi_model::parallel::{Layout, RankLayout};
use codelsi_parity::{TensorComparison, check};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compare the engine with reference outputs, tensor by tensor.
#[derive(Parser)]
#[command(version, next_line_help = true, after_help = AFTER_HELP)]
struct ParityArgs {
    /// Reference cases: folders with model/, adapter/, reference.json and
    /// reference.safetensors; files are skipped, so that a glob will do.
    #[arg(value_name = "DIR", required = true, verbatim_doc_comment)]
    cases: Vec<PathBuf>,
    #[arg(long, help = help::DEVICE, default_value = "auto")]
    device: DeviceChoice,
    #[arg(long, help = format!("{}\n{}", help::RANKS, help::RANKS_DEFAULT), value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    #[arg(long, help = help::LAYOUT, default_value_t)]
    layout: Layout,
    #[arg(long, help = help::TIMEOUT, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// Storage type of activations: f32 is held to the float32 tolerances of
    /// the case, bf16 to twice the bf16 error that the case observed
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "bf16"], verbatim_doc_comment)]
    compute: String,
    /// Show every tensor, not only the worst of each case.
    #[arg(long)]
    verbose: bool,
    #[arg(long, help = help::JSON)]
    json: bool,
}

const AFTER_HELP: &str = "\
Exit status: 0 when all agree, 1 when a tensor departs or a case cannot be read,
2 for a wrong command line.";

fn main() -> ExitCode {
    match run(&ParityArgs::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("parity: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &ParityArgs) -> Result<bool> {
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
        return Err(codelsi_engine::Error::new(
            "no folder among the arguments: name folders with model/, adapter/ and reference.json",
        ));
    }
    if args.json {
        println!("{}", json!({ "ok": all_ok, "cases": cases }));
    }
    Ok(all_ok)
}

/// Prints a case's table and returns whether all agree.
fn show(folder: &Path, rows: &[TensorComparison], verbose: bool) -> bool {
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

fn worst(rows: &[TensorComparison]) -> &TensorComparison {
    let key = |r: &TensorComparison| if r.ratio().is_nan() { f64::INFINITY } else { r.ratio() };
    rows.iter().max_by(|a, b| key(a).total_cmp(&key(b))).expect("a case has tensors")
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}
