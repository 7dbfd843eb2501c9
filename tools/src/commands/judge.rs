//! `codelsi judge`: verdicts for given completions; no model.

use crate::output::Output;
use clap::Args;
use codelsi_engine::Result;
use codelsi_eval::judge::{Judge as Rule, Kind, verdicts::judge_file};
use codelsi_eval::problem::{Problem, read_problems};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Mutex;

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
    pub judge: Option<Kind>,
    /// The TypeScript compiler of the tsc judge; found on PATH or in .tools by default.
    #[arg(long)]
    pub tsc: Option<PathBuf>,
    /// The node of the tsc judge; found on PATH by default.
    #[arg(long)]
    pub node: Option<PathBuf>,
}

impl JudgeArgs {
    /// The judge of `problems`, its sandbox tested.
    ///
    /// # Errors
    /// When the sandbox does not hold, a tool is missing, or no judge takes the problems' language.
    pub fn open(&self, problems: &[Problem]) -> Result<Box<dyn Rule>> {
        self.kind(problems)?.open(self.tsc.clone(), self.node.clone())
    }

    fn kind(&self, problems: &[Problem]) -> Result<Kind> {
        let of_language = |problem: &Problem| Kind::of_language(&problem.language);
        match (self.judge, problems.first()) {
            (Some(kind), _) => Ok(kind),
            (None, first) => first.map_or(Ok(Kind::Embedded), of_language),
        }
    }
}

/// Runs the command.
pub fn run(args: &Judge, out: &Output) -> Result<()> {
    let problems = read_problems(&args.problems)?;
    let judge = args.judge.open(&problems)?;
    eprintln!("{}", judge.describe());
    let bar = Mutex::new(None);
    let summary = judge_file(&*judge, &problems, &args.completions, &args.out, &|done, of| {
        let mut bar = bar.lock().unwrap_or_else(|e| e.into_inner());
        bar.get_or_insert_with(|| out.bar("judge", of)).at(done, "");
    })?;
    bar.into_inner().unwrap_or_else(|e| e.into_inner()).iter().for_each(|bar| bar.finish());
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
