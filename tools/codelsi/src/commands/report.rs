//! `codelsi report`: writes a run's report.html again from the run's report.json.

use crate::args::help;
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Result, RunLock};
use codelsi_experiment::{report, table};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write the reports of finished runs again, and put runs side by side.
#[derive(Args)]
pub struct ReportArgs {
    /// Folders of finished runs.
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
    /// Folder for one more report of all runs, side by side where they solved the same problems.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[arg(long, help = help::JSON)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &ReportArgs) -> Result<()> {
    let (mut pages, mut reports) = (Vec::new(), Vec::new());
    for run in &args.runs {
        let page = report::read(run)?;
        report::save(&page, run)?;
        if !args.json {
            println!("{}\n{}", run.join("report.html").display(), table::render(&page));
        }
        pages.push(run.join("report.html"));
        reports.push((name(run), page));
    }
    if let Some(folder) = &args.out {
        let _lock = RunLock::folder(folder)?;
        let all = report::combine(reports)?;
        report::save(&all, folder)?;
        if !args.json {
            println!("{}\n{}", folder.join("report.html").display(), table::render(&all));
        }
        pages.push(folder.join("report.html"));
    }
    print_json(args.json, &json!({ "reports": pages }));
    Ok(())
}

fn name(run: &Path) -> String {
    run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned()
}
