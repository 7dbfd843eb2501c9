//! `codelsi evaluate`: Pass@1 by execution, of a base model and of adapters on it, under one protocol.

use crate::commands::judge::JudgeArgs;
use crate::completer::LocalModel;
use crate::endpoint::Endpoint;
use crate::model_args::{ModelArgs, PlaceArgs};
use crate::output::{Bar, Output};
use crate::ranks::RankArgs;
use crate::table;
use clap::Args;
use codelsi_engine::Result;
use codelsi_eval::evaluate::{ModelResult, evaluate};
use codelsi_eval::judge::Judge;
use codelsi_eval::problem::{Problem, read_problems};
use codelsi_eval::protocol::{PromptFormat, Protocol};
use codelsi_eval::report::{Compared, ProblemSet, Report};
use codelsi_eval::sampling::{Completer, Watch};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Measure Pass@1 of a model and of adapters on it.
#[derive(Args)]
pub struct Evaluate {
    /// Model folder in the Hugging Face layout.
    #[arg(long, required_unless_present = "endpoint")]
    model: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    ranks: RankArgs,
    /// Adapter folders; each is measured beside the base.
    #[arg(long, requires = "model")]
    adapter: Vec<PathBuf>,
    /// A server that speaks OpenAI's protocol, as https://host/v1: its model is measured beside ours. It is sent the
    /// problems' prompts, and the key in CODELSI_API_KEY or OPENAI_API_KEY.
    #[arg(long, requires = "endpoint_model")]
    endpoint: Option<String>,
    /// The server's name for that model.
    #[arg(long, requires = "endpoint")]
    endpoint_model: Option<String>,
    /// Problems in MultiPL-E's form.
    #[arg(long)]
    problems: PathBuf,
    /// Folder of samples, verdicts, results and report.html; a run that was cut short goes on.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    protocol: ProtocolArgs,
    #[command(flatten)]
    judge: JudgeArgs,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// How models are asked.
#[derive(Args, Clone, Copy, Debug)]
pub struct ProtocolArgs {
    /// Samples a problem.
    #[arg(short, long = "samples", default_value_t = 20)]
    pub n: usize,
    /// Softmax temperature; 0 is greedy.
    #[arg(long, default_value_t = 0.2)]
    pub temperature: f32,
    /// Nucleus: the likeliest tokens that hold this probability together.
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 512)]
    pub max_tokens: usize,
    /// Of the sampling.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// completion, paper or inst.
    #[arg(long, default_value = "completion")]
    pub prompt_format: PromptFormat,
    /// Measure on the first of the problems only.
    #[arg(long)]
    pub limit: Option<usize>,
}

impl ProtocolArgs {
    /// The protocol over `problems`, judged by `judge`.
    pub fn protocol(&self, problems: &[Problem], judge: &dyn Judge) -> Protocol {
        let (count, problems_hash) = Protocol::of_problems(problems);
        Protocol {
            format: self.prompt_format,
            temperature: self.temperature,
            top_p: self.top_p,
            samples: self.n,
            max_tokens: self.max_tokens,
            seed: self.seed,
            judge: judge.describe(),
            problems: count,
            problems_hash,
        }
    }

    /// The problems of a file, as many as are wanted.
    pub fn problems(&self, file: &Path) -> Result<Vec<Problem>> {
        let mut problems = read_problems(file)?;
        problems.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(problems)
    }
}

/// Runs the command.
pub fn run(args: &Evaluate, out: &Output) -> Result<()> {
    args.ranks.in_one_process()?;
    let problems = args.protocol.problems(&args.problems)?;
    let judge = args.judge.open(&problems)?;
    let protocol = args.protocol.protocol(&problems, &*judge);
    eprintln!("{protocol}");
    let mut results = Vec::new();
    let mut measure = |name: &str, model: &mut dyn Completer| -> Result<()> {
        let folder = args.out.join(name);
        results.push(measure(name, model, &problems, &protocol, &*judge, &folder, out)?);
        Ok(())
    };
    if let Some(model) = &args.model {
        let model = ModelArgs { model: model.clone(), place: args.place };
        let mut model = LocalModel::open(&model, args.ranks)?;
        measure("base", &mut model)?;
        for adapter in &args.adapter {
            model.put_on(adapter)?;
            measure(&name_of(adapter), &mut model)?;
        }
    }
    if let (Some(address), Some(name)) = (&args.endpoint, &args.endpoint_model) {
        let folder = name.replace(|c: char| !c.is_alphanumeric() && !"-._".contains(c), "-");
        measure(&folder, &mut Endpoint::new(address, name)?)?;
    }
    let asked = args.model.iter().map(|model| model.display().to_string()).chain(args.endpoint_model.clone());
    let report = Report {
        title: "Pass@1 by execution".into(),
        subtitle: format!("{} on {}", asked.collect::<Vec<_>>().join(", "), args.problems.display()),
        sets: vec![set("problems", results, Pairs::Steps)?],
        ..Report::default()
    };
    crate::commands::report::save(&report, &args.out)?;
    if !args.json {
        print!("{}", table::sets(&report.sets));
        println!("report: {}", args.out.join("report.html").display());
    }
    let models: Vec<_> = report.sets[0].results.iter().map(summary).collect();
    out.json(args.json, &json!({ "models": models, "report": args.out.join("report.html") }));
    Ok(())
}

/// One model on one set of problems, with bars.
pub fn measure(
    name: &str,
    model: &mut dyn Completer,
    problems: &[Problem],
    protocol: &Protocol,
    judge: &dyn Judge,
    folder: &Path,
    out: &Output,
) -> Result<ModelResult> {
    watched(name, out, |watch| evaluate(name, model, problems, protocol, judge, folder, watch))
}

/// What `work` gives, with bars of what it tells.
pub fn watched<T>(name: &str, out: &Output, work: impl FnOnce(&dyn Watch) -> Result<T>) -> Result<T> {
    let watch = Bars { name: name.into(), out, bars: Mutex::default() };
    let result = work(&watch);
    watch.finish();
    result
}

/// Which models are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Each with the one before it, of which it is a further step, and with the first.
    Steps,
    /// Each with the first.
    WithFirst,
}

/// Results of models on the same problems, and their differences.
pub fn set(name: &str, results: Vec<ModelResult>, pairs: Pairs) -> Result<ProblemSet> {
    let mut differences = Vec::new();
    for (i, to) in results.iter().enumerate().skip(1) {
        for from in if i > 1 && pairs == Pairs::Steps { vec![i - 1, 0] } else { vec![0] } {
            let from = &results[from];
            differences.push(Compared {
                from: from.name.clone(),
                to: to.name.clone(),
                difference: to.against(from)?,
            });
        }
    }
    Ok(ProblemSet { name: name.into(), results, differences })
}

/// What other programs read of a result.
pub fn summary(r: &ModelResult) -> serde_json::Value {
    json!({
        "name": r.name, "pass_at_1": r.pass_at_1, "low": r.low, "high": r.high, "problems": r.problems,
        "samples": r.samples, "statuses": r.statuses, "protocol": r.protocol_hash,
    })
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}

/// Two bars: problems answered, programs judged.
struct Bars<'a> {
    name: String,
    out: &'a Output,
    bars: Mutex<[Option<Bar>; 2]>,
}

impl Bars<'_> {
    fn at(&self, which: usize, verb: &str, done: usize, of: usize) {
        let mut bars = self.bars.lock().unwrap_or_else(|e| e.into_inner());
        let bar = bars[which].get_or_insert_with(|| self.out.bar(&format!("{verb} {}", self.name), of));
        bar.at(done, "");
        if done == of {
            bar.finish();
        }
    }

    fn finish(&self) {
        let bars = self.bars.lock().unwrap_or_else(|e| e.into_inner());
        bars.iter().flatten().for_each(Bar::finish);
    }
}

impl Watch for Bars<'_> {
    fn generated(&self, problems: usize, of: usize) {
        self.at(0, "answer", problems, of);
    }
    fn judged(&self, programs: usize, of: usize) {
        self.at(1, "judge", programs, of);
    }
}
