//! `codelsi curate`: from sources to instruction rows.

use crate::output::Output;
use clap::Args;
use codelsi_engine::Result;
use codelsi_train::curate::{self, Limits, Options};
use serde_json::to_value;
use std::path::PathBuf;
use std::sync::Mutex;

/// Make instruction rows from TypeScript sources.
#[derive(Args)]
pub struct Curate {
    /// Folders of sources, or .jsonl / .jsonl.gz files with `path` and `content`.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The rows: JSON Lines of {"instruction": …, "output": …}, with their provenance.
    #[arg(long)]
    out: PathBuf,
    /// Problem files that no row may repeat.
    #[arg(long)]
    against: Vec<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Curate, out: &Output) -> Result<()> {
    let options =
        Options { paths: args.paths.clone(), against: args.against.clone(), limits: Limits::default() };
    let counts = curate(&options, &args.out, out)?;
    if !args.json {
        println!("{} of {} kept in {}", counts.kept, counts.read, args.out.display());
        for (reason, n) in &counts.dropped {
            println!("  dropped {n:>6}  {reason}");
        }
    }
    out.json(args.json, &to_value(&counts).expect("plain counts"));
    Ok(())
}

/// Curates with a bar and writes the rows; the pipeline does the same.
pub fn curate(options: &Options, to: &std::path::Path, out: &Output) -> Result<curate::Counts> {
    let bar = Mutex::new(None);
    let (rows, counts) = curate::run(options, &|done, total| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        bar.get_or_insert_with(|| out.bar("curate", total)).at(done, "");
    })?;
    if let Some(bar) = bar.into_inner().unwrap_or_else(|e| e.into_inner()) {
        bar.finish();
    }
    curate::write(to, &rows)?;
    Ok(counts)
}
