//! `codelsi judge`: verdicts for given completions; no model.

use clap::Args;
use codelsi_engine::Result;
use codelsi_eval::judge::JudgeKind;
use codelsi_eval::problem::read_problems;
use codelsi_experiment::judging::{JudgeOptions, judge_completions};
use codelsi_experiment::output::Output;
use serde_json::json;
use std::path::PathBuf;

/// Judge given completions by executing them.
#[derive(Args)]
pub struct Judge {
    /// Problems in MultiPL-E's form.
    #[arg(long)]
    problems: PathBuf,
    /// JSON Lines of {"id": …, "name": …, "completion": …}.
    #[arg(long)]
    completions: PathBuf,
    /// Verdicts, one line a completion; a run that was cut short goes on from here.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Which judge, and its tools.
#[derive(Args, Clone, Debug)]
pub struct JudgeArgs {
    /// tsc: MultiPL-E's rule for TypeScript, with compiler and node; embedded: TypeScript without a type check, and
    /// JavaScript, with nothing to install; javascript, python, java, cpp, rust: with the machine's tools [default: as the
    /// problems' language needs, embedded where that will do].
    #[arg(long)]
    pub judge: Option<JudgeKind>,
    /// The TypeScript compiler of the tsc judge; found on PATH or in .tools by default.
    #[arg(long)]
    pub tsc: Option<PathBuf>,
    /// The node of the tsc judge; found on PATH by default.
    #[arg(long)]
    pub node: Option<PathBuf>,
}

impl JudgeArgs {
    /// The judge that is asked for.
    pub fn options(&self) -> JudgeOptions {
        JudgeOptions { judge: self.judge, tsc: self.tsc.clone(), node: self.node.clone() }
    }
}

/// Runs the command.
pub fn run(args: &Judge, out: &Output) -> Result<()> {
    let problems = read_problems(&args.problems)?;
    let judge = args.judge.options().open(&problems)?;
    eprintln!("{}", judge.describe());
    let summary = judge_completions(&*judge, &problems, &args.completions, &args.out, out)?;
    if !args.json {
        summary.statuses.iter().for_each(|(status, n)| println!("{n:>6}  {status:?}"));
        if !summary.exploits.is_empty() {
            let ids = summary.exploits.join(", ");
            println!("solved without reaching the end of their tests: {ids}");
        }
    }
    out.json(
        args.json,
        &json!({ "statuses": summary.statuses, "exploits": summary.exploits, "out": args.out }),
    );
    Ok(())
}
