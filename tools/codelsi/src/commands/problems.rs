//! `codelsi problems`: executable problems of a repository's own functions.

use crate::args::{JudgeToolArgs, help};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Error, Result, RunLock};
use codelsi_experiment::output::Output;
use codelsi_experiment::problems::{VerifiedProblems, count_lines, make_verified};
use codelsi_model::jsonl;
use serde_json::json;
use std::path::PathBuf;

/// Make executable problems of a repository's own TypeScript functions.
#[derive(Args)]
pub struct ProblemsArgs {
    /// Sources: folders, or .jsonl / .jsonl.gz files whose lines have `path` and `content`.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// File for the problems, in MultiPL-E's form with the reference solutions; the verdicts on these are kept beside it in
    /// *.verdicts.jsonl, and an interrupted run goes on.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[arg(long, help = help::AGAINST, value_name = "FILE")]
    against: Vec<PathBuf>,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    judge: JudgeToolArgs,
}

/// Runs the command.
pub fn run(args: &ProblemsArgs, out: &Output) -> Result<()> {
    let _lock = RunLock::beside(&args.out)?;
    let verdicts = args.out.with_extension("verdicts.jsonl");
    let made = make_verified(&args.paths, &args.against, &args.judge.options(), &verdicts, out)?;
    let VerifiedProblems { problems, counts, repeats, judge } = made;
    if !args.json {
        println!("judge: {judge}");
        for (n, what) in count_lines(&counts, problems.len()) {
            println!("{n:>14}  {what}");
        }
        for (reason, n) in &counts.dropped {
            println!("  dropped {n:>4}  {reason}");
        }
        for file in &counts.unread {
            println!("  {}: not read, {}", file.path, file.reason);
        }
        for name in &repeats {
            println!("  {name}: repeated by a training row");
        }
    }
    print_json(
        args.json,
        &json!({ "problems": problems.len(), "counts": counts, "repeats": repeats, "judge": judge }),
    );
    if problems.is_empty() {
        let why = match (counts.with_examples, counts.functions) {
            (0, all) => format!(
                "none of {all} functions has an example in its comment, as `f(1); // => 2` after @example"
            ),
            (some, _) => format!("all {some} functions with examples are dropped, for the reasons above"),
        };
        return Err(Error::new(format!("no problem was made: {why}")));
    }
    jsonl::write(&args.out, &problems)?;
    if !args.json {
        println!("{} problems in {}", problems.len(), args.out.display());
    }
    Ok(())
}
