//! `codelsi pipeline`: the paper from sources to report, and the demo.

use crate::args::help::{self, recipe_default};
use crate::args::{DeviceArgs, RankArgs, folder, number};
use crate::commands::evaluate::summary;
use crate::json::print_json;
use clap::Args;
use codelsi_engine::{Error, Result, RunLock};
use codelsi_eval::judge::JudgeKind;
use codelsi_eval::protocol::PromptFormat;
use codelsi_eval::report::{ProblemSet, Report};
use codelsi_experiment::judging::JudgeOptions;
use codelsi_experiment::output::Output;
use codelsi_experiment::placement::Placement;
use codelsi_experiment::recipe::Recipe;
use codelsi_experiment::sources::Sources;
use codelsi_experiment::stages::Experiment;
use codelsi_experiment::{dry_run, pipeline, seeds};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Run the whole paper: curate, train two stages, evaluate, report.
#[derive(Args)]
pub struct PipelineArgs {
    /// Recipe: demo = a tiny embedded model on generated sources, paper = the paper's figures on your model and sources, or
    /// the `recipe.json` that a run wrote.
    #[arg(long, value_name = "NAME|FILE.json", default_value = "paper")]
    recipe: RecipeChoice,
    /// Folder for everything that the run makes; an interrupted run goes on.
    #[arg(long, value_name = "DIR", default_value = "run")]
    pub out: PathBuf,
    /// Show the steps, tokens, time, memory and disk space for the paper's amounts of data, and run nothing; needs --model
    /// alone, of which the configuration is enough. Exit status 1 if it does not fit.
    #[arg(long)]
    dry_run: bool,
    #[arg(long, help = help::MODEL, value_name = "DIR", value_parser = folder())]
    model: Option<PathBuf>,
    /// Public sources, for the general stage: folders, or .jsonl / .jsonl.gz files; a row that repeats a problem is dropped.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    public: Vec<PathBuf>,
    /// Private sources, for the specialized stage, in the same forms [default: the demo's, in the demo].
    #[arg(long, value_name = "PATH", num_args = 1..)]
    private: Vec<PathBuf>,
    #[arg(long, help = help::PROBLEMS, value_name = "PATH")]
    problems: Option<PathBuf>,
    /// File of problems over the private code, where there are any.
    #[arg(long, value_name = "FILE")]
    private_problems: Option<PathBuf>,
    /// Seed of every random choice; the same seed gives the same result [default: 42, or the recipe file's]
    #[arg(long)]
    seed: Option<u64>,
    /// Number of seeds, from --seed on: a run in a folder of its own for each, then one table with the variance within and
    /// between seeds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::seeds())]
    seeds: usize,
    #[arg(long, help = help::JSON)]
    json: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
}

/// The recipe that a command line names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RecipeChoice {
    Demo,
    Paper,
    File(PathBuf),
}

impl FromStr for RecipeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "demo" => Ok(RecipeChoice::Demo),
            "paper" => Ok(RecipeChoice::Paper),
            _ if text.ends_with(".json") => Ok(RecipeChoice::File(text.into())),
            _ => Err("it is neither `demo`, `paper` nor a file FILE.json".into()),
        }
    }
}

/// Changes of the recipe.
#[derive(Args)]
#[command(next_help_heading = "Changes of the recipe")]
struct OverrideArgs {
    #[arg(long, help = recipe_default(help::JUDGE))]
    judge: Option<JudgeKind>,
    /// Maximum optimizer steps of the general stage [default: the recipe's]
    #[arg(long, value_name = "N", value_parser = number::steps())]
    steps: Option<usize>,
    /// Maximum optimizer steps of the specialized stage [default: the recipe's]
    #[arg(long, value_name = "N", value_parser = number::steps())]
    specialized_steps: Option<usize>,
    #[arg(long, help = recipe_default(help::REPLAY_ROWS), value_name = "N", value_parser = number::rows_or_none())]
    replay_rows: Option<usize>,
    #[arg(long, help = recipe_default(help::SEQ), value_name = "N", value_parser = number::tokens())]
    seq: Option<usize>,
    #[arg(long, help = recipe_default(help::BATCH), value_name = "N", value_parser = number::sequences())]
    batch: Option<usize>,
    #[arg(short, long = "samples", alias = "n", help = recipe_default(help::SAMPLES), value_name = "N")]
    #[arg(value_parser = number::samples())]
    n: Option<usize>,
    #[arg(long, help = recipe_default(help::MAX_TOKENS), value_name = "N", value_parser = number::tokens())]
    max_tokens: Option<usize>,
    #[arg(long, help = help::LIMIT, value_name = "N", value_parser = number::rows())]
    limit: Option<usize>,
    #[arg(long, help = recipe_default(help::PROMPT_FORMAT), value_name = "FORMAT")]
    prompt_format: Option<PromptFormat>,
}

/// Runs the command.
pub fn run(args: &PipelineArgs, out: &Output) -> Result<()> {
    let recipe = args.changed(args.named()?);
    if args.dry_run {
        let model = args.model.as_ref().ok_or_else(|| Error::new("--dry-run needs --model DIR"))?;
        let dry_run::Estimate { text, object, advice } = dry_run::estimate(&recipe, model, args.placement())?;
        if !args.json {
            println!("{text}");
        }
        print_json(args.json, &object);
        return advice.map_or(Ok(()), |advice| Err(Error::new(format!("does not fit: {advice}"))));
    }
    let sources = |recipe: &Recipe, folder: &Path| args.sources(recipe, folder, true);
    args.run_seeds(&recipe, sources, |experiment| pipeline::run(experiment, out))
}

/// Runs the demo into a new folder under `runs`.
pub fn demo(out: &Output) -> Result<()> {
    std::fs::create_dir_all("runs").map_err(|e| Error::io("runs", e))?;
    let mut folders =
        (1..).map(|i| PathBuf::from(if i == 1 { "runs/demo".into() } else { format!("runs/demo-{i}") }));
    // Creating the folder claims its name.
    let new = |folder: &PathBuf| match std::fs::create_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
        created => Some(created.map(|()| folder.clone()).map_err(|e| Error::io(folder, e))),
    };
    let folder = folders.find_map(|folder| new(&folder)).expect("an endless list of names")?;
    let goes_on = format!("go on with `codelsi pipeline --recipe demo --out {}`", folder.display());
    let recipe = Recipe::demo(42);
    let sources = Sources::demo(&folder.join("sources"), 42)?;
    let judge = JudgeOptions { judge: recipe.judge, ..JudgeOptions::default() };
    let experiment = Experiment { recipe, sources, folder, placement: Placement::default(), judge };
    let done = pipeline::run(&experiment, out).map(drop);
    done.map_err(|e| if e.is_interrupted() { e.advise(&goes_on) } else { e })
}

impl PipelineArgs {
    /// Runs an experiment with every seed: one in the output folder itself, several in folders of their own. `sources` writes
    /// the demo's into a folder.
    ///
    /// # Errors
    /// The first error of a run.
    pub fn run_seeds(
        &self,
        recipe: &Recipe,
        sources: impl Fn(&Recipe, &Path) -> Result<Sources>,
        run: impl Fn(&Experiment) -> Result<Report>,
    ) -> Result<()> {
        let experiment = |recipe: Recipe, folder: &Path| -> Result<Experiment> {
            let sources = sources(&recipe, folder)?;
            let judge =
                JudgeOptions { judge: self.overrides.judge.or(recipe.judge), ..JudgeOptions::default() };
            Ok(Experiment { recipe, sources, folder: folder.into(), placement: self.placement(), judge })
        };
        if self.seeds == 1 {
            self.json(&run(&experiment(recipe.clone(), &self.out)?)?);
            return Ok(());
        }
        let _lock = RunLock::folder(&self.out)?;
        let first = recipe.protocol.seed;
        let with_seed = |seed: u64, folder: &Path| experiment(recipe.clone().with_seed(seed), folder);
        let table = seeds::run(first, self.seeds, &self.out, with_seed, run)?;
        print_json(self.json, &serde_json::to_value(&table).map_err(|e| Error::new(e.to_string()))?);
        Ok(())
    }

    fn placement(&self) -> Placement {
        self.ranks.placement(self.device)
    }

    /// Prints the report's results as JSON, if `--json` is given.
    fn json(&self, report: &Report) {
        let results = |set: &ProblemSet| set.results.iter().map(summary).collect::<Vec<_>>();
        let sets: Vec<_> = report.sets.iter().map(results).collect();
        print_json(self.json, &serde_json::json!({ "sets": sets }));
    }

    /// Returns the recipe that `--recipe` names.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn named(&self) -> Result<Recipe> {
        let recipe = match &self.recipe {
            RecipeChoice::Demo => Recipe::demo(42),
            RecipeChoice::Paper => Recipe::paper(42),
            RecipeChoice::File(path) => Recipe::read(path)?,
        };
        Ok(match self.seed {
            Some(seed) => recipe.with_seed(seed),
            None => recipe,
        })
    }

    /// Returns `recipe` with the changes of the flags.
    pub fn changed(&self, mut recipe: Recipe) -> Recipe {
        let new = &self.overrides;
        for stage in [&mut recipe.general, &mut recipe.specialized] {
            stage.seq = new.seq.unwrap_or(stage.seq);
            stage.batch = new.batch.unwrap_or(stage.batch);
        }
        recipe.general.max_steps = new.steps.or(recipe.general.max_steps);
        recipe.specialized.max_steps = new.specialized_steps.or(recipe.specialized.max_steps);
        recipe.specialized.replay_rows = new.replay_rows.unwrap_or(recipe.specialized.replay_rows);
        let p = &mut recipe.protocol;
        p.n = new.n.unwrap_or(p.n);
        p.max_tokens = new.max_tokens.unwrap_or(p.max_tokens);
        p.prompt_format = new.prompt_format.unwrap_or(p.prompt_format);
        p.limit = new.limit.or(p.limit);
        recipe
    }

    /// Returns the sources of a run; the demo's are written into `folder`. `needs_private` refuses a run without private code.
    ///
    /// # Errors
    /// When a path is missing, or the demo's folder cannot be written.
    pub fn sources(&self, recipe: &Recipe, folder: &Path, needs_private: bool) -> Result<Sources> {
        if recipe.name == "demo" {
            let made = Sources::demo(&folder.join("sources"), recipe.protocol.seed)?;
            return Ok(match self.private.is_empty() {
                true => made,
                // The demo's private problems are over its own library.
                false => Sources { private: self.private.clone(), private_problems: None, ..made },
            });
        }
        let and_private = if needs_private { ", --private" } else { "" };
        let missing = || {
            Error::new(format!("--model, --public{and_private} and --problems are needed with this recipe"))
        };
        if self.public.is_empty() || (needs_private && self.private.is_empty()) {
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
pub struct RemakeBaseArgs {
    /// Folder for the model and its training run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn remake_base(args: &RemakeBaseArgs, out: &Output) -> Result<()> {
    let device = codelsi_engine::Device::cpu();
    let mut bar = None;
    codelsi_demo::base::remake(&args.out, &device, &mut |event| {
        if let codelsi_train::TrainEvent::Step(metric, planned) = event {
            let message = format!("loss {:.4}, {:.0} tokens/s", metric.loss, metric.tokens_per_s);
            bar.get_or_insert_with(|| out.bar("remake-base", planned)).update(metric.step, &message);
        }
    })?;
    println!(
        "{}: copy config.json, model.safetensors and tokenizer.json to tools/demo/assets/base",
        args.out.display()
    );
    Ok(())
}
