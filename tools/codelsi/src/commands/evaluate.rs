//! `codelsi evaluate`: Pass@1 by execution and infilling of held-out rows, of a base model and of adapters on it, under one
//! protocol.

use crate::args::{DeviceArgs, JudgeToolArgs, ProtocolArgs, RankArgs, folder, help};
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Error, Result, RunLock};
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::infilling::InfillResult;
use codelsi_eval::judge::Judge;
use codelsi_eval::multipl_e::{check_folder, write_run};
use codelsi_eval::problem::Problem;
use codelsi_eval::protocol::Protocol;
use codelsi_eval::report::{InfillDifference, ModelComparison, ProblemSet, Report, infill_differences};
use codelsi_eval::sampling::Generator;
use codelsi_eval::statistics::{ConfidenceInterval, Verdict};
use codelsi_experiment::endpoint::Endpoint;
use codelsi_experiment::environment::environment;
use codelsi_experiment::evaluation::{ModelPairs, evaluate_model, problem_set};
use codelsi_experiment::infilling::InfillSet;
use codelsi_experiment::local::LocalModel;
use codelsi_experiment::output::Output;
use codelsi_experiment::{report, table};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Measure Pass@1 of a model and of adapters on it, by execution, and how they infill held-out rows.
#[derive(Args)]
pub struct EvaluateArgs {
    #[arg(long, help = help::MODEL, value_name = "DIR", required_unless_present = "endpoint", value_parser = folder())]
    model: Option<PathBuf>,
    #[arg(long, help = format!("{}; repeat the flag to measure several", help::ADAPTER), value_name = "DIR", requires = "model", value_parser = folder())]
    adapter: Vec<PathBuf>,
    #[arg(long, help = help::PROBLEMS, value_name = "PATH", required_unless_present = "infill")]
    problems: Option<PathBuf>,
    /// Rows of {prefix, suffix, output} that were held out of training, as `curate --styles infill` makes them: the hole
    /// between prefix and suffix is filled, and compared with output.
    #[arg(long, value_name = "PATH")]
    infill: Option<PathBuf>,
    /// Folder for the samples, verdicts, results and report.html; an interrupted run goes on.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[arg(long, help = help::MULTIPL_E, value_name = "DIR", requires = "problems")]
    multipl_e: Option<PathBuf>,
    #[arg(long, help = help::JSON)]
    json: bool,
    /// URL of a server with OpenAI's API, as https://host/v1, whose model is measured too. It is sent the problems' prompts,
    /// and the key in CODELSI_API_KEY or OPENAI_API_KEY.
    #[arg(long, value_name = "URL", requires = "endpoint_model", help_heading = "Server")]
    endpoint: Option<String>,
    /// Name of the model on the server.
    #[arg(long, value_name = "NAME", requires = "endpoint", help_heading = "Server")]
    endpoint_model: Option<String>,
    #[command(flatten)]
    protocol: ProtocolArgs,
    #[command(flatten)]
    judge: JudgeToolArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
}

/// Runs the command.
pub fn run(args: &EvaluateArgs, out: &Output) -> Result<()> {
    let placement = args.ranks.placement(args.device);
    placement.ranks.in_one_process()?;
    let _lock = RunLock::folder(&args.out)?;
    let tasks = Tasks::open(args)?;
    let (mut results, mut infilling) = (Vec::new(), Vec::new());
    let mut add = |name: &str, model: &mut dyn Generator| -> Result<()> {
        results.extend(tasks.solve(name, model, args, out)?);
        infilling.extend(tasks.infill(name, model, args, out)?);
        Ok(())
    };
    if let Some(model) = &args.model {
        let mut model = LocalModel::open(model, placement)?;
        add("base", &mut model)?;
        for (adapter, name) in args.adapter.iter().zip(names_of(&args.adapter)?) {
            model.attach_adapter(adapter)?;
            add(&name, &mut model)?;
        }
    }
    if let (Some(address), Some(name)) = (&args.endpoint, &args.endpoint_model) {
        let folder = name.replace(|c: char| !c.is_alphanumeric() && !"-._".contains(c), "-");
        add(&folder, &mut Endpoint::new(address, name)?)?;
    }
    let sets = match &tasks.problems {
        Some(_) => vec![problem_set("problems", results, ModelPairs::PreviousAndFirst)?],
        None => Vec::new(),
    };
    let title = if sets.is_empty() { "Infilling" } else { "Pass@1 by execution" };
    let page = Report {
        title: title.into(),
        subtitle: subtitle(args),
        sets,
        infilling,
        environment: environment(placement)?,
        ..Report::default()
    };
    report::save(&page, &args.out)?;
    show(args, &page);
    Ok(())
}

/// Tasks on which the models are measured.
struct Tasks {
    problems: Option<(Vec<Problem>, Box<dyn Judge>, Protocol)>,
    holes: Option<InfillSet>,
}

impl Tasks {
    fn open(args: &EvaluateArgs) -> Result<Tasks> {
        let options = args.protocol.options();
        let problems = |path: &PathBuf| {
            let problems = options.read_problems(path)?;
            let judge = args.judge.options().open(&problems)?;
            let protocol = options.protocol(&problems, &*judge);
            eprintln!("{protocol}");
            Ok((problems, judge, protocol))
        };
        Ok(Tasks {
            problems: args.problems.as_ref().map(problems).transpose()?,
            holes: args.infill.as_ref().map(|path| InfillSet::read(path, &options)).transpose()?,
        })
    }

    /// Measures Pass@1 of a model, where there are problems.
    fn solve(
        &self,
        name: &str,
        model: &mut dyn Generator,
        args: &EvaluateArgs,
        out: &Output,
    ) -> Result<Option<ModelResult>> {
        let Some((problems, judge, protocol)) = &self.problems else { return Ok(None) };
        let folder = args.out.join(name);
        let multipl_e = args.multipl_e.as_ref().map(|all| all.join(name));
        multipl_e.iter().try_for_each(|to| check_folder(to, problems))?;
        let result = evaluate_model(name, model, problems, protocol, &**judge, &folder, out)?;
        multipl_e.iter().try_for_each(|to| write_run(&folder, problems, &result.protocol, to))?;
        Ok(Some(result))
    }

    /// Measures how a model infills, where there are holes.
    fn infill(
        &self,
        name: &str,
        model: &mut dyn Generator,
        args: &EvaluateArgs,
        out: &Output,
    ) -> Result<Option<InfillResult>> {
        let folder = args.out.join(name).join("infill");
        self.holes.as_ref().map(|holes| holes.evaluate(name, model, &folder, out)).transpose()
    }
}

fn subtitle(args: &EvaluateArgs) -> String {
    let models =
        args.model.iter().map(|model| model.display().to_string()).chain(args.endpoint_model.clone());
    let files = args.problems.iter().chain(&args.infill).map(|path| path.display().to_string());
    format!("{} on {}", models.collect::<Vec<_>>().join(", "), files.collect::<Vec<_>>().join(", "))
}

/// Prints the report's figures.
fn show(args: &EvaluateArgs, page: &Report) {
    let path = args.out.join("report.html");
    if !args.json {
        print!("{}{}", table::render_sets(&page.sets), table::render_infilling(&page.infilling));
        println!("report: {}", path.display());
    }
    let models: Vec<_> = page.sets.iter().flat_map(|set| &set.results).map(summary).collect();
    let compared: Vec<_> = page.sets.iter().flat_map(differences).collect();
    let mut all = json!({ "models": models, "differences": compared, "report": path });
    if args.infill.is_some() {
        all["infilling"] = page.infilling.iter().map(infill_summary).collect();
        all["infilling_differences"] =
            infill_differences(&page.infilling).iter().map(infill_difference).collect();
    }
    print_json(args.json, &all);
}

/// Returns a model's infilling as other programs read it.
fn infill_summary(r: &InfillResult) -> serde_json::Value {
    let interval = |i: ConfidenceInterval| json!({ "value": i.value, "low": i.low, "high": i.high });
    json!({
        "name": r.model, "exact_match": interval(r.exact_match), "edit_similarity": interval(r.edit_similarity),
        "rows": r.protocol.rows, "samples": r.protocol.samples, "limited": r.limited,
    })
}

/// Returns a paired difference of infilling as other programs read it.
fn infill_difference(d: &InfillDifference) -> serde_json::Value {
    let i = d.difference.interval;
    json!({
        "from": d.from, "to": d.to, "metric": d.metric, "difference": i.value, "low": i.low, "high": i.high,
        "p": d.difference.p(),
    })
}

/// Returns a result as other programs read it.
pub fn summary(r: &ModelResult) -> serde_json::Value {
    json!({
        "name": r.name, "pass_at_1": r.pass_at_1, "low": r.low, "high": r.high, "problems": r.problems,
        "samples": r.samples, "statuses": r.statuses, "limited": r.protocol.limited, "protocol": r.protocol_hash,
    })
}

/// Returns the paired differences of a set as other programs read them, each with its verdict.
fn differences(set: &ProblemSet) -> Vec<serde_json::Value> {
    let line = |(c, verdict): (&ModelComparison, Verdict)| {
        let d = &c.difference;
        json!({
            "from": c.from, "to": c.to, "difference": d.interval.value, "low": d.interval.low, "high": d.interval.high,
            "width": d.interval.width(), "detectable": d.detectable, "better": d.wins, "worse": d.losses,
            "p_corrected": verdict.p, "significant": verdict.is_significant(),
        })
    };
    set.differences.iter().zip(set.verdicts()).map(line).collect()
}

/// Returns a different name for each adapter: the last parts of its path, as many as tell them all apart.
fn names_of(adapters: &[PathBuf]) -> Result<Vec<String>> {
    let name = |folder: &PathBuf, parts: usize| {
        let all: Vec<_> = folder.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        all[all.len().saturating_sub(parts)..].join("-").replace('/', "-")
    };
    let most = adapters.iter().map(|folder| folder.components().count()).max().unwrap_or(0);
    let names = |parts| -> Vec<String> { adapters.iter().map(|folder| name(folder, parts)).collect() };
    let differ = |names: &Vec<String>| {
        names.iter().all(|name| name != "base") && names.iter().collect::<BTreeSet<_>>().len() == names.len()
    };
    (1..=most.max(1))
        .map(names)
        .find(differ)
        .ok_or_else(|| Error::new("--adapter: the same folder is given twice, or one is named `base`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_named_by_as_much_of_their_paths_as_tells_them_apart() {
        let names = |paths: &[&str]| {
            names_of(&paths.iter().map(PathBuf::from).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert_eq!(names(&["runs/a", "b/"]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["x/a", "y/a", "b"]).unwrap(), ["x-a", "y-a", "b"]);
        assert_eq!(names(&["run/base"]).unwrap(), ["run-base"]);
        assert_eq!(names(&[]).unwrap(), [""; 0]);
        assert!(names(&["x/a", "x/a"]).unwrap_err().contains("given twice"));
    }
}
