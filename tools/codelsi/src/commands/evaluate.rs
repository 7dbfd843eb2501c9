//! `codelsi evaluate`: Pass@1 by execution, of a base model and of adapters on it, under one protocol.

use crate::args::{PlaceArgs, RankArgs};
use crate::commands::judge::JudgeArgs;
use clap::Args;
use codelsi_engine::Result;
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::protocol::PromptFormat;
use codelsi_eval::report::Report;
use codelsi_eval::sampling::Generator;
use codelsi_experiment::endpoint::Endpoint;
use codelsi_experiment::evaluation::{Pairs, measure, problem_set};
use codelsi_experiment::local::LocalModel;
use codelsi_experiment::output::Output;
use codelsi_experiment::protocol::ProtocolOptions;
use codelsi_experiment::{report, table};
use serde_json::json;
use std::path::{Path, PathBuf};

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
    fn options(&self) -> ProtocolOptions {
        ProtocolOptions {
            n: self.n,
            temperature: self.temperature,
            top_p: self.top_p,
            max_tokens: self.max_tokens,
            seed: self.seed,
            prompt_format: self.prompt_format,
            limit: self.limit,
        }
    }
}

/// Runs the command.
pub fn run(args: &Evaluate, out: &Output) -> Result<()> {
    let placement = args.ranks.placement(args.place);
    placement.ranks.in_one_process()?;
    let options = args.protocol.options();
    let problems = options.problems(&args.problems)?;
    let judge = args.judge.options().open(&problems)?;
    let protocol = options.protocol(&problems, &*judge);
    eprintln!("{protocol}");
    let mut results = Vec::new();
    let mut add = |name: &str, model: &mut dyn Generator| -> Result<()> {
        let folder = args.out.join(name);
        results.push(measure(name, model, &problems, &protocol, &*judge, &folder, out)?);
        Ok(())
    };
    if let Some(model) = &args.model {
        let mut model = LocalModel::open(model, placement)?;
        add("base", &mut model)?;
        for adapter in &args.adapter {
            model.put_on(adapter)?;
            add(&name_of(adapter), &mut model)?;
        }
    }
    if let (Some(address), Some(name)) = (&args.endpoint, &args.endpoint_model) {
        let folder = name.replace(|c: char| !c.is_alphanumeric() && !"-._".contains(c), "-");
        add(&folder, &mut Endpoint::new(address, name)?)?;
    }
    let asked = args.model.iter().map(|model| model.display().to_string()).chain(args.endpoint_model.clone());
    let page = Report {
        title: "Pass@1 by execution".into(),
        subtitle: format!("{} on {}", asked.collect::<Vec<_>>().join(", "), args.problems.display()),
        sets: vec![problem_set("problems", results, Pairs::Steps)?],
        ..Report::default()
    };
    report::save(&page, &args.out)?;
    if !args.json {
        print!("{}", table::sets(&page.sets));
        println!("report: {}", args.out.join("report.html").display());
    }
    let models: Vec<_> = page.sets[0].results.iter().map(summary).collect();
    out.json(args.json, &json!({ "models": models, "report": args.out.join("report.html") }));
    Ok(())
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
