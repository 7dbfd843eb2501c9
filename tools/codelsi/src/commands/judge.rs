//! `codelsi judge`: verdicts for given completions; no model.

use crate::args::{JudgeToolArgs, help};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Result, RunLock, printable};
use codelsi_eval::problem::read_problems;
use codelsi_experiment::judging::judge_completions;
use codelsi_experiment::output::Output;
use serde_json::json;
use std::path::PathBuf;

/// Judge completions that you bring, by executing them.
#[derive(Args)]
pub struct JudgeArgs {
    #[arg(long, help = help::PROBLEMS, value_name = "FILE")]
    problems: PathBuf,
    /// Completions: JSON Lines of {"id": .., "name": (of the problem), "completion": ..}, or MultiPL-E's own files of
    /// {"name": .., "completions": [..]}, one or a folder of them; packed by gzip or not.
    #[arg(long, value_name = "PATH")]
    completions: PathBuf,
    /// File for the verdicts, one line per completion; an interrupted run goes on.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    judge: JudgeToolArgs,
}

/// Runs the command.
pub fn run(args: &JudgeArgs, out: &Output) -> Result<()> {
    let _lock = RunLock::beside(&args.out)?;
    let problems = read_problems(&args.problems)?;
    let judge = args.judge.options().open(&problems)?;
    eprintln!("{}", judge.describe());
    if !judge.choice().is_empty() {
        eprintln!("chosen, because: {}", judge.choice());
    }
    let summary = judge_completions(&*judge, &problems, &args.completions, &args.out, out)?;
    if !args.json {
        summary.statuses.iter().for_each(|(status, n)| println!("{n:>6}  {status:?}"));
        if !summary.exploits.is_empty() {
            let ids = printable(&summary.exploits.join(", "), 4000);
            println!("solved without reaching the end of their tests: {ids}");
        }
    }
    print_json(
        args.json,
        &json!({ "statuses": summary.statuses, "exploits": summary.exploits, "out": args.out }),
    );
    Ok(())
}
