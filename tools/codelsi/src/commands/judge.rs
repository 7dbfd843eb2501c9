//! `codelsi judge`: verdicts for given completions; no model.

use crate::args::{JudgeToolArgs, help};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{At, Result, RunLock, printable};
use codelsi_eval::judge::verdicts::Completions;
use codelsi_eval::multipl_e::{check_folder, write_results};
use codelsi_eval::problem::{Problem, read_problems};
use codelsi_experiment::judging::judge_records;
use codelsi_experiment::output::{Output, note};
use codelsi_model::jsonl;
use serde_json::json;
use std::path::PathBuf;

/// Judge completions that you bring, by executing them.
#[derive(Args)]
pub struct JudgeArgs {
    #[arg(long, help = format!("{} [default: those beside the completions in MultiPL-E's own files]", help::PROBLEMS), value_name = "PATH")]
    problems: Option<PathBuf>,
    /// Completions: JSON Lines of {"id": .., "name": (of the problem), "completion": ..}, each cut at a stop token, or MultiPL-E's
    /// own files of {"name": .., "completions": [..]}, judged as they stand, one or a folder of them; packed by gzip or not.
    #[arg(long, value_name = "PATH")]
    completions: PathBuf,
    /// File for the verdicts, one line per completion; an interrupted run goes on.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[arg(long, help = help::MULTIPL_E, value_name = "DIR")]
    multipl_e: Option<PathBuf>,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    judge: JudgeToolArgs,
}

/// Runs the command.
pub fn run(args: &JudgeArgs, out: &Output) -> Result<()> {
    let _lock = RunLock::beside(&args.out)?;
    let completions = Completions::read(&args.completions)?;
    let problems = problems(args, &completions)?;
    args.multipl_e.iter().try_for_each(|folder| check_folder(folder, &problems))?;
    let judge = args.judge.options().open(&problems)?;
    eprintln!("{}", judge.describe());
    if !judge.choice().is_empty() {
        eprintln!("chosen, because: {}", judge.choice());
    }
    let summary = judge_records(&*judge, &problems, &completions.records, &args.out, out)
        .at(args.completions.display().to_string())?;
    if let Some(folder) = &args.multipl_e {
        let object = |problem: &str| completions.object(problem);
        write_results(folder, &problems, &completions.records, &jsonl::read(&args.out)?, object)?;
    }
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

/// Returns the problems that are named, or those beside the completions.
fn problems(args: &JudgeArgs, completions: &Completions) -> Result<Vec<Problem>> {
    let Some(path) = &args.problems else {
        return completions.problems().at(args.completions.display().to_string());
    };
    let problems = read_problems(path)?;
    let others = completions.count_of_other_problems(&problems);
    if others > 0 {
        note(&format!(
            "{others} of the completions' files hold another prompt or other tests than --problems, whose are used"
        ));
    }
    Ok(problems)
}
