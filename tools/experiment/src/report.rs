//! Reports of runs: saving, reading, and combining.

use crate::evaluation::{ModelPairs, problem_set};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::infilling::InfillResult;
use codelsi_eval::report::{CurationSummary, LossCurve, ProblemSet, Report, StageTiming, TrainingSummary};
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

/// Reads the report of a finished run; its intervals are computed again from its counts.
///
/// # Errors
/// When the folder has no readable report.
pub fn read(run: &Path) -> Result<Report> {
    let path = run.join("report.json");
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let mut report: Report = serde_json::from_str(&text).map_err(|e| Error::io(&path, e))?;
    report.sets.iter_mut().for_each(ProblemSet::recompute);
    Ok(report)
}

/// Combines the reports of several runs. Model names are prefixed with the run's name, and sets of the same problems
/// under the same protocol are merged, with their models compared.
///
/// # Errors
/// When two results of a set cannot be compared.
pub fn combine(runs: Vec<(String, Report)>) -> Result<Report> {
    let titles = runs.iter().map(|(run, _)| run.clone()).collect::<Vec<_>>();
    let mut combined =
        Report { title: "CodeLSI: runs compared".into(), subtitle: titles.join(", "), ..Report::default() };
    let mut groups: Vec<(String, Vec<ModelResult>)> = Vec::new();
    for (run, report) in runs {
        let prefixed = |name: &str| format!("{run} {name}");
        combined.models.extend(
            report.models.into_iter().map(|row| TrainingSummary { name: prefixed(&row.name), ..row }),
        );
        combined.curves.extend(
            report.curves.into_iter().map(|curve| LossCurve { name: prefixed(&curve.name), ..curve }),
        );
        combined
            .curation
            .extend(report.curation.into_iter().map(|c| CurationSummary { name: prefixed(&c.name), ..c }));
        combined
            .timings
            .extend(report.timings.into_iter().map(|t| StageTiming { name: prefixed(&t.name), ..t }));
        combined.settings.extend(report.settings.into_iter().map(|(name, value)| (prefixed(&name), value)));
        combined
            .environment
            .extend(report.environment.into_iter().map(|(name, value)| (prefixed(&name), value)));
        combined.notes.extend(
            report.notes.into_iter().filter(|note| !combined.notes.contains(note)).collect::<Vec<_>>(),
        );
        combined
            .infilling
            .extend(report.infilling.into_iter().map(|r| InfillResult { model: prefixed(&r.model), ..r }));
        for set in report.sets {
            let results = set.results.into_iter().map(|r| ModelResult { name: prefixed(&r.name), ..r });
            for result in results {
                let is_same_set = |(name, others): &&mut (String, Vec<ModelResult>)| {
                    *name == set.name && others[0].protocol_hash == result.protocol_hash
                };
                match groups.iter_mut().find(is_same_set) {
                    Some((_, others)) => others.push(result),
                    None => groups.push((set.name.clone(), vec![result])),
                }
            }
        }
    }
    combined.sets = groups
        .into_iter()
        .map(|(name, results)| problem_set(&name, results, ModelPairs::PreviousAndFirst))
        .collect::<Result<_>>()?;
    Ok(combined)
}
