//! Timings by name, the report that is printed at the end, and the dated file that keeps it.

use crate::machine::{Machine, Rate};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{DType, Error, Result};
use codelsi_kernels::roof;
use codelsi_kernels::spec::Cost;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The timings of one bench, and the cost of one call.
pub struct Timings {
    pub name: String,
    pub dtype: DType,
    pub cost: Cost,
    pub times: Vec<Duration>,
}

impl Timings {
    /// An empty list of timings.
    pub fn new(name: String, dtype: DType, cost: Cost) -> Self {
        Timings { name, dtype, cost, times: Vec::new() }
    }

    /// Minimum, median and maximum in seconds; `None` when the bench did not run.
    pub fn spread(&mut self) -> Option<[f64; 3]> {
        self.times.sort();
        let (min, max) = (self.times.first()?, self.times.last()?);
        Some([*min, self.times[self.times.len() / 2], *max].map(|time| time.as_secs_f64()))
    }
}

/// Prints a line for each bench that ran and returns
/// `{name: {median_s, min_s, max_s, gb_per_s or tflop_per_s, roof}}`. `roof` is the share of the binding roof, null above it.
pub fn report(machine: &Machine, all: Vec<Timings>) -> Value {
    let mut object = Map::new();
    for mut timings in all {
        let Some([min, median, max]) = timings.spread() else { continue };
        let time = Duration::from_secs_f64(median);
        let Rate { unit, value, roof: share } = machine.rate(timings.cost, timings.dtype, time);
        println!(
            "{:<64} {:>10.3} ms {value:>9.2} {unit:<11} {:>17}",
            timings.name,
            1e3 * median,
            roof::share_text(share)
        );
        let row = json!({ "median_s": median, "min_s": min, "max_s": max, unit: value, "roof": share });
        object.insert(timings.name, row);
    }
    Value::Object(object)
}

/// Writes the results of `bench` with their date, commit, processor or card, and threads to a file, when `CODELSI_BENCH_SAVE` asks
/// for it: `1` means this repository's `benches/results`, anything else is the folder to write to.
///
/// # Errors
/// When the folder cannot be written.
pub fn save(bench: &str, processor: &str, results: &Value) -> Result<()> {
    let folder = match std::env::var("CODELSI_BENCH_SAVE") {
        Err(_) => return Ok(()),
        Ok(one) if one == "1" => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/results")),
        Ok(folder) => PathBuf::from(folder),
    };
    let date = output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?;
    let object = json!({
        "bench": bench,
        "date": date,
        "commit": commit(),
        "processor": processor,
        "threads": rayon::current_num_threads(),
        "results": results,
    });
    let path = folder.join(format!("{}-{bench}.json", date.replace(':', "")));
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    write_atomic(&path, format!("{object:#}\n").as_bytes())?;
    println!("saved {}", path.display());
    Ok(())
}

/// The commit of this checkout, or what `CODELSI_COMMIT` says: a machine with a card may have no checkout.
fn commit() -> String {
    let named = std::env::var("CODELSI_COMMIT");
    named
        .or_else(|_| output("git", &["describe", "--always", "--dirty", "--abbrev=12"]))
        .unwrap_or("unknown".into())
}

/// The first line that a program prints.
fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let run = Command::new(program).args(arguments).output();
    let run = run.map_err(|e| Error::new(format!("{program} does not start: {e}")))?;
    match String::from_utf8_lossy(&run.stdout).trim() {
        "" => Err(Error::new(format!("{program} prints nothing"))),
        text => Ok(text.to_owned()),
    }
}
