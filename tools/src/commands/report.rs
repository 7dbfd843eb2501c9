//! `codelsi report`: writes a run's report.html again from what the run kept.

use crate::output::Output;
use crate::table;
use clap::Args;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_eval::report::Report as Page;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Write report.html of finished runs again, and print their tables.
#[derive(Args)]
pub struct Report {
    /// Folders of finished runs.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Report, out: &Output) -> Result<()> {
    let mut pages = Vec::new();
    for run in &args.runs {
        let path = run.join("report.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let report: Page = serde_json::from_str(&text).map_err(|e| Error::io(&path, e))?;
        save(&report, run)?;
        if !args.json {
            println!("{}\n{}", run.join("report.html").display(), table::whole(&report));
        }
        pages.push(run.join("report.html"));
    }
    out.json(args.json, &json!({ "reports": pages }));
    Ok(())
}

/// Writes `report.json` and `report.html` into a run's folder.
pub fn save(report: &Page, run: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(|e| Error::new(e.to_string()))?;
    write_atomic(run.join("report.json"), text.as_bytes())?;
    report.write(run.join("report.html"))
}
