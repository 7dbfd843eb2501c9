//! `codelsi report`: writes a run's report.html again from what the run kept.

use crate::commands::evaluate::{Pairs, set};
use crate::output::Output;
use crate::table;
use clap::Args;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::report::{Curation, Curve, Report as Page, Row, Timing};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Write report.html of finished runs again, and print their tables.
#[derive(Args)]
pub struct Report {
    /// Folders of finished runs.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder of one more report that has all runs in it, side by side where they solved the same problems.
    #[arg(long)]
    out: Option<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Report, out: &Output) -> Result<()> {
    let (mut pages, mut reports) = (Vec::new(), Vec::new());
    for run in &args.runs {
        let path = run.join("report.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let report: Page = serde_json::from_str(&text).map_err(|e| Error::io(&path, e))?;
        save(&report, run)?;
        if !args.json {
            println!("{}\n{}", run.join("report.html").display(), table::whole(&report));
        }
        pages.push(run.join("report.html"));
        reports.push((name(run), report));
    }
    if let Some(folder) = &args.out {
        let all = together(reports)?;
        save(&all, folder)?;
        if !args.json {
            println!("{}\n{}", folder.join("report.html").display(), table::whole(&all));
        }
        pages.push(folder.join("report.html"));
    }
    out.json(args.json, &json!({ "reports": pages }));
    Ok(())
}

/// One report of several runs: each model under its run's name. Sets of the same problems under the same protocol become
/// one, whose models are compared.
fn together(runs: Vec<(String, Page)>) -> Result<Page> {
    let titles = runs.iter().map(|(run, _)| run.clone()).collect::<Vec<_>>();
    let mut all =
        Page { title: "CodeLSI: runs compared".into(), subtitle: titles.join(", "), ..Page::default() };
    let mut groups: Vec<(String, Vec<ModelResult>)> = Vec::new();
    for (run, page) in runs {
        let named = |name: &str| format!("{run} {name}");
        all.models.extend(page.models.into_iter().map(|row| Row { name: named(&row.name), ..row }));
        all.curves.extend(page.curves.into_iter().map(|curve| Curve { name: named(&curve.name), ..curve }));
        all.curation.extend(page.curation.into_iter().map(|c| Curation { name: named(&c.name), ..c }));
        all.timings.extend(page.timings.into_iter().map(|t| Timing { name: named(&t.name), ..t }));
        all.settings.extend(page.settings.into_iter().map(|(name, value)| (named(&name), value)));
        all.notes.extend(page.notes.into_iter().filter(|note| !all.notes.contains(note)).collect::<Vec<_>>());
        for set in page.sets {
            let results = set.results.into_iter().map(|r| ModelResult { name: named(&r.name), ..r });
            for result in results {
                let same = |(name, others): &&mut (String, Vec<ModelResult>)| {
                    *name == set.name && others[0].protocol_hash == result.protocol_hash
                };
                match groups.iter_mut().find(same) {
                    Some((_, others)) => others.push(result),
                    None => groups.push((set.name.clone(), vec![result])),
                }
            }
        }
    }
    all.sets =
        groups.into_iter().map(|(name, results)| set(&name, results, Pairs::Steps)).collect::<Result<_>>()?;
    Ok(all)
}

fn name(run: &Path) -> String {
    run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned()
}

/// Writes `report.json`, `report.html` and `report.md` into a run's folder.
pub fn save(report: &Page, run: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(|e| Error::new(e.to_string()))?;
    write_atomic(run.join("report.json"), text.as_bytes())?;
    write_atomic(run.join("report.md"), report.markdown().as_bytes())?;
    report.write(run.join("report.html"))
}
