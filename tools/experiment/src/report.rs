//! Reports of runs: saved, read again, and several in one.

use crate::evaluation::{Pairs, problem_set};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::report::{CurationSummary, LossCurve, Report, StageTiming, TrainingSummary};
use std::fs;
use std::path::Path;

/// Writes `report.json`, `report.html` and `report.md` into a run's folder.
///
/// # Errors
/// When a file cannot be written.
pub fn save(report: &Report, run: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(|e| Error::new(e.to_string()))?;
    write_atomic(run.join("report.json"), text.as_bytes())?;
    write_atomic(run.join("report.md"), report.markdown().as_bytes())?;
    report.write(run.join("report.html"))
}

/// Reads the report of a finished run.
///
/// # Errors
/// When the folder has none that can be read.
pub fn read(run: &Path) -> Result<Report> {
    let path = run.join("report.json");
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::io(&path, e))
}

/// One report of several runs: each model under its run's name. Sets of the same problems under the same protocol become
/// one, whose models are compared.
pub fn combine(runs: Vec<(String, Report)>) -> Result<Report> {
    let titles = runs.iter().map(|(run, _)| run.clone()).collect::<Vec<_>>();
    let mut all =
        Report { title: "CodeLSI: runs compared".into(), subtitle: titles.join(", "), ..Report::default() };
    let mut groups: Vec<(String, Vec<ModelResult>)> = Vec::new();
    for (run, page) in runs {
        let named = |name: &str| format!("{run} {name}");
        all.models
            .extend(page.models.into_iter().map(|row| TrainingSummary { name: named(&row.name), ..row }));
        all.curves
            .extend(page.curves.into_iter().map(|curve| LossCurve { name: named(&curve.name), ..curve }));
        all.curation.extend(page.curation.into_iter().map(|c| CurationSummary { name: named(&c.name), ..c }));
        all.timings.extend(page.timings.into_iter().map(|t| StageTiming { name: named(&t.name), ..t }));
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
    all.sets = groups
        .into_iter()
        .map(|(name, results)| problem_set(&name, results, Pairs::Steps))
        .collect::<Result<_>>()?;
    Ok(all)
}
