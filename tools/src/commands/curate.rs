//! `codelsi curate`: from sources to instruction rows.

use crate::output::Output;
use clap::Args;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_train::curate::{self, Limits, Options, Style};
use serde_json::to_value;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// From this resemblance on a row is a repetition.
pub const RESEMBLANCE: f64 = 0.85;

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
    /// Drop a row that resembles an earlier one by this share of their token 5-grams or more; 0 keeps all but copies.
    #[arg(long, default_value_t = RESEMBLANCE)]
    resemblance: f64,
    /// A tokenizer.json or its folder: rows are measured in its tokens.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Tokens of an instruction and its answer at most [default: 4096]
    #[arg(long, requires = "tokenizer")]
    max_tokens: Option<usize>,
    /// Ways to ask, of: write, complete, explain, refactor, fix, test; an item gives a row of each where it can.
    #[arg(long, value_delimiter = ',', default_value = "write")]
    styles: Vec<Style>,
    /// Decides what the styles draw: where code is cut, which bug it gets.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Curate, out: &Output) -> Result<()> {
    if !(0.0..=1.0).contains(&args.resemblance) {
        return Err(Error::new(format!("--resemblance is a share from 0 to 1, not {}", args.resemblance)));
    }
    let limits = Limits::default();
    let options = Options {
        paths: args.paths.clone(),
        against: args.against.clone(),
        resemblance: (args.resemblance > 0.0).then_some(args.resemblance),
        limits: Limits { max_tokens: args.max_tokens.unwrap_or(limits.max_tokens), ..limits },
        tokenizer: args.tokenizer.clone(),
        styles: args.styles.clone(),
        seed: args.seed,
    };
    let counts = curate(&options, &args.out, out)?;
    if !args.json {
        println!("{} of {} kept in {}", counts.kept, counts.read, args.out.display());
        println!("card: {}", card_beside(&args.out).display());
        for (reason, n) in &counts.dropped {
            println!("  dropped {n:>6}  {reason}");
        }
    }
    out.json(args.json, &to_value(&counts).expect("plain counts"));
    Ok(())
}

/// Curates with a bar and writes the rows and their card; the pipeline does the same.
pub fn curate(options: &Options, to: &Path, out: &Output) -> Result<curate::Counts> {
    let bar = Mutex::new(None);
    let (rows, counts) = curate::run(options, &|done, total| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        bar.get_or_insert_with(|| out.bar("curate", total)).at(done, "");
    })?;
    if let Some(bar) = bar.into_inner().unwrap_or_else(|e| e.into_inner()) {
        bar.finish();
    }
    curate::write(to, &rows)?;
    write_atomic(card_beside(to), curate::card(options, &rows, &counts).as_bytes())?;
    Ok(counts)
}

/// Where the card of a set of rows is.
fn card_beside(rows: &Path) -> PathBuf {
    rows.with_extension("md")
}
