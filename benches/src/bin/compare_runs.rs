//! Compares the saved results of two programs that ran in turn, for `benches/compare.sh`:
//! `compare_runs FOLDER` reads FOLDER/a-N/*.json and FOLDER/b-N/*.json, pairs them by N, and prints a table and, in the last
//! line, one JSON object: `{benches: {name: {ratio, low, high, verdict}}, differ}`.

use codelsi_benches::paired::{PairedRatio, Verdict};
use codelsi_engine::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [folder] = &arguments[..] else {
        eprintln!("usage: compare_runs FOLDER");
        return ExitCode::from(2);
    };
    match pairs_of(Path::new(folder)).and_then(|pairs| print_table(&pairs)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("compare_runs: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Median seconds (a, b) of each round, by bench.
type Pairs = BTreeMap<String, Vec<(f64, f64)>>;

fn pairs_of(folder: &Path) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    for round in 1.. {
        let [a, b] = ["a", "b"].map(|side| folder.join(format!("{side}-{round}")));
        if !a.is_dir() || !b.is_dir() {
            break;
        }
        let (a, b) = (medians(&a)?, medians(&b)?);
        for (name, a) in a {
            if let Some(&b) = b.get(&name) {
                pairs.entry(name).or_default().push((a, b));
            }
        }
    }
    if pairs.is_empty() {
        let why = "no bench ran in both programs: does the filter match a name that both have?";
        return Err(Error::new(why).at(folder.display().to_string()));
    }
    Ok(pairs)
}

/// Reads the medians of all result files of one run.
fn medians(folder: &Path) -> Result<BTreeMap<String, f64>> {
    let mut medians = BTreeMap::new();
    for file in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?.flatten() {
        let path = file.path();
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let object: Value = serde_json::from_str(&text).map_err(|e| Error::io(&path, e))?;
        let results = object["results"].as_object().into_iter().flatten();
        medians.extend(results.filter_map(|(name, row)| Some((name.clone(), row["median_s"].as_f64()?))));
    }
    Ok(medians)
}

fn print_table(pairs: &Pairs) -> Result<()> {
    println!("{:<64} {:>6}  {:<16} verdict on B", "bench (time of B / time of A)", "ratio", "interval");
    let (mut benches, mut differ) = (Map::new(), 0);
    for (name, pairs_of_bench) in pairs {
        let ratio = PairedRatio::new(pairs_of_bench, pairs.len())
            .ok_or_else(|| Error::new("a comparison needs at least three rounds").at(name.clone()))?;
        let PairedRatio { ratio: middle, low, high } = ratio;
        let verdict = ratio.verdict();
        differ += (verdict != Verdict::NoDifference) as usize;
        println!("{name:<64} {middle:>6.3}  [{low:.3}, {high:.3}]   {}", verdict.text());
        let row = json!({ "ratio": middle, "low": low, "high": high, "verdict": verdict.text() });
        benches.insert(name.clone(), row);
    }
    let (all, rounds) = (pairs.len(), pairs.values().map(Vec::len).max().unwrap_or(0));
    println!("{differ} of {all} benches differ, in {rounds} rounds; the intervals hold together at 95 %");
    println!("{}", json!({ "benches": benches, "differ": differ }));
    Ok(())
}
