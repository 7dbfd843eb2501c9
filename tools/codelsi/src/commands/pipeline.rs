//! `codelsi pipeline`: the paper from sources to report, and the demo.

use crate::args::{PlaceArgs, RankArgs};
use crate::commands::evaluate::summary;
use clap::Args;
use codelsi_demo::recipe::PRIVATE_EXAMPLES;
use codelsi_engine::{Error, Result};
use codelsi_eval::protocol::PromptFormat;
use codelsi_eval::report::{ProblemSet, Report};
use codelsi_experiment::judging::JudgeOptions;
use codelsi_experiment::output::Output;
use codelsi_experiment::placement::Placement;
use codelsi_experiment::recipe::Recipe;
use codelsi_experiment::sources::Sources;
use codelsi_experiment::stages::Experiment;
use codelsi_experiment::{dry_run, pipeline};
use std::path::PathBuf;

/// Run the whole paper: curate, general LoRA, specialized LoRA, generate, execute, report.
#[derive(Args)]
pub struct Pipeline {
    /// demo: everything generated, on an embedded tiny model; paper: the paper's figures on your model.
    #[arg(long, default_value = "paper", value_parser = ["demo", "paper"])]
    recipe: String,
    /// Folder of everything the run makes; a run that was cut short goes on.
    #[arg(long, default_value = "run")]
    pub out: PathBuf,
    /// Show steps, tokens, time, memory and disk for the paper's amounts of data, and do nothing; --model is enough.
    #[arg(long)]
    dry_run: bool,
    /// Model folder in the Hugging Face layout.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Public sources: folders, or .jsonl / .jsonl.gz files.
    #[arg(long, num_args = 1..)]
    public: Vec<PathBuf>,
    /// Private sources; in place of the demo's own, if given.
    #[arg(long, num_args = 1..)]
    private: Vec<PathBuf>,
    /// Problems in MultiPL-E's form; no training row may repeat them.
    #[arg(long)]
    problems: Option<PathBuf>,
    /// Problems over the private code, if there are any.
    #[arg(long)]
    private_problems: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    ranks: RankArgs,
    /// tsc or embedded; by default the recipe's.
    #[arg(long)]
    judge: Option<codelsi_eval::judge::JudgeKind>,
    /// Most optimizer steps of the general stage.
    #[arg(long)]
    steps: Option<usize>,
    /// Most optimizer steps of the specialized stage.
    #[arg(long)]
    specialized_steps: Option<usize>,
    /// General rows that the specialized stage sees again, against forgetting.
    #[arg(long)]
    replay_rows: Option<usize>,
    /// Tokens of a packed sequence.
    #[arg(long)]
    seq: Option<usize>,
    /// Sequences a step.
    #[arg(long)]
    batch: Option<usize>,
    /// Samples a problem.
    #[arg(short, long)]
    n: Option<usize>,
    /// Tokens of an answer at most.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Measure on the first of the problems only.
    #[arg(long)]
    limit: Option<usize>,
    /// How problems are put to the models.
    #[arg(long)]
    prompt_format: Option<PromptFormat>,
    /// Decides data order, dropout and sampling (and the whole world of the demo).
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Pipeline, out: &Output) -> Result<()> {
    let recipe = args.changed(args.named());
    if args.dry_run {
        let model = args.model.as_ref().ok_or_else(|| Error::new("--dry-run needs --model"))?;
        let (text, object) = dry_run::plan(&recipe, model, args.placement())?;
        if !args.json {
            println!("{text}");
        }
        out.json(args.json, &object);
        return Ok(());
    }
    let experiment = args.experiment(recipe, args.sources(PRIVATE_EXAMPLES)?);
    args.json(&pipeline::run(&experiment, out)?, out);
    Ok(())
}

/// The demo as `codelsi` runs it without a command: a new folder under `runs`.
pub fn demo(out: &Output) -> Result<()> {
    let folders =
        (1..).map(|i| PathBuf::from(if i == 1 { "runs/demo".into() } else { format!("runs/demo-{i}") }));
    let folder =
        folders.into_iter().find(|f| !f.exists()).ok_or_else(|| Error::new("no name is free in runs"))?;
    let recipe = Recipe::demo(42);
    let sources = Sources::demo(&folder.join("sources"), 42, PRIVATE_EXAMPLES)?;
    let judge = JudgeOptions { judge: Some(recipe.judge), ..JudgeOptions::default() };
    let experiment = Experiment { recipe, sources, folder, placement: Placement::default(), judge };
    pipeline::run(&experiment, out).map(drop)
}

impl Pipeline {
    /// The experiment of a recipe over these sources, judged as the command or the recipe says.
    pub fn experiment(&self, recipe: Recipe, sources: Sources) -> Experiment {
        let judge =
            JudgeOptions { judge: Some(self.judge.unwrap_or(recipe.judge)), ..JudgeOptions::default() };
        Experiment { recipe, sources, folder: self.out.clone(), placement: self.placement(), judge }
    }

    fn placement(&self) -> Placement {
        self.ranks.placement(self.place)
    }

    /// Ends the output as `--json` says.
    pub fn json(&self, report: &Report, out: &Output) {
        let results = |set: &ProblemSet| set.results.iter().map(summary).collect::<Vec<_>>();
        let sets: Vec<_> = report.sets.iter().map(results).collect();
        out.json(self.json, &serde_json::json!({ "sets": sets }));
    }

    /// The named recipe.
    pub fn named(&self) -> Recipe {
        if self.recipe == "demo" { Recipe::demo(self.seed) } else { Recipe::paper(self.seed) }
    }

    /// The recipe with this command's changes.
    pub fn changed(&self, mut recipe: Recipe) -> Recipe {
        for stage in [&mut recipe.general, &mut recipe.specialized] {
            stage.seq = self.seq.unwrap_or(stage.seq);
            stage.batch = self.batch.unwrap_or(stage.batch);
        }
        recipe.general.max_steps = self.steps.or(recipe.general.max_steps);
        recipe.specialized.max_steps = self.specialized_steps.or(recipe.specialized.max_steps);
        recipe.specialized.replay_rows = self.replay_rows.unwrap_or(recipe.specialized.replay_rows);
        let p = &mut recipe.protocol;
        p.n = self.n.unwrap_or(p.n);
        p.max_tokens = self.max_tokens.unwrap_or(p.max_tokens);
        p.prompt_format = self.prompt_format.unwrap_or(p.prompt_format);
        p.limit = self.limit;
        recipe
    }

    /// What the run reads; the demo's is made, with that many private examples. With 0, private code is not needed.
    ///
    /// # Errors
    /// When a path is missing, or the demo's folder cannot be written.
    pub fn sources(&self, examples: usize) -> Result<Sources> {
        if self.recipe == "demo" {
            let made = Sources::demo(&self.out.join("sources"), self.seed, examples)?;
            return Ok(match self.private.is_empty() {
                true => made,
                // The demo's private problems are over its own library.
                false => Sources { private: self.private.clone(), private_problems: None, ..made },
            });
        }
        let and_private = if examples > 0 { ", --private" } else { "" };
        let missing = || {
            Error::new(format!("--model, --public{and_private} and --problems are needed with this recipe"))
        };
        if self.public.is_empty() || (examples > 0 && self.private.is_empty()) {
            return Err(missing());
        }
        Ok(Sources {
            model: self.model.clone().ok_or_else(missing)?,
            public: self.public.clone(),
            private: self.private.clone(),
            problems: self.problems.clone().ok_or_else(missing)?,
            private_problems: self.private_problems.clone(),
            language_problems: Vec::new(),
        })
    }
}

/// Train the demo's base model again from its seed.
#[derive(Args)]
pub struct RemakeBase {
    /// Folder for the model and its training run.
    #[arg(long)]
    out: PathBuf,
}

/// Runs the command.
pub fn remake_base(args: &RemakeBase, out: &Output) -> Result<()> {
    let device = codelsi_engine::Device::cpu();
    let mut bar = None;
    codelsi_demo::base::remake(&args.out, &device, &mut |event| {
        if let codelsi_train::TrainEvent::Step(metric, planned) = event {
            let message = format!("loss {:.4}, {:.0} tokens/s", metric.loss, metric.tokens_per_s);
            bar.get_or_insert_with(|| out.bar("remake-base", planned)).at(metric.step, &message);
        }
    })?;
    println!(
        "{}: copy config.json, model.safetensors and tokenizer.json to tools/demo/assets/base",
        args.out.display()
    );
    Ok(())
}
