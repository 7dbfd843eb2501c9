//! `codelsi ablate`: the paper's comparisons.

use crate::commands::pipeline::Pipeline;
use clap::{Args, ValueEnum};
use codelsi_engine::{Error, Result};
use codelsi_experiment::ablation::Ablation;
use codelsi_experiment::output::Output;
use codelsi_experiment::sources::Sources;
use std::path::PathBuf;

/// Compare ways of training, one thing changed at a time, in a table with intervals and costs.
#[derive(Args)]
pub struct Ablate {
    /// What is compared.
    #[arg(value_enum)]
    what: AblationArg,
    /// With `languages`: problems in MultiPL-E's form in languages beside TypeScript, a file each; the public sources are
    /// read in those languages too.
    #[arg(long, num_args = 1..)]
    language_problems: Vec<PathBuf>,
    #[command(flatten)]
    pipeline: Pipeline,
}

/// The comparisons by their names.
#[derive(Clone, Copy, ValueEnum)]
enum AblationArg {
    /// Adapters of rank 8, 16 and 32 (alpha is twice the rank), on the general rows.
    Rank,
    /// The specialized stage on 5, 10, 20, 40 and 80 private rows, on top of general.
    Samples,
    /// General, then specialized, against specialized alone and against both at once.
    Stages,
    /// LoRA, rsLoRA, DoRA, bottleneck adapters, a mixture of LoRA experts and every weight, on the general rows.
    Methods,
    /// The specialized stage on each private repository by itself, read on the rows that it holds out.
    Repositories,
    /// Other languages: an adapter of each one's rows beside that of TypeScript's, on each one's problems.
    Languages,
}

impl From<AblationArg> for Ablation {
    fn from(what: AblationArg) -> Self {
        match what {
            AblationArg::Rank => Ablation::Rank,
            AblationArg::Samples => Ablation::Samples,
            AblationArg::Stages => Ablation::Stages,
            AblationArg::Methods => Ablation::Methods,
            AblationArg::Repositories => Ablation::Repositories,
            AblationArg::Languages => Ablation::Languages,
        }
    }
}

/// Runs the command.
pub fn run(args: &Ablate, out: &Output) -> Result<()> {
    let (ablation, pipeline) = (Ablation::from(args.what), &args.pipeline);
    let recipe = pipeline.changed(ablation.recipe(pipeline.named()));
    let sources = args.sources(ablation, recipe.name == "demo")?;
    let report = ablation.run(&pipeline.experiment(recipe, sources), out)?;
    pipeline.json(&report, out);
    Ok(())
}

impl Ablate {
    fn sources(&self, ablation: Ablation, demo: bool) -> Result<Sources> {
        let other = ablation != Ablation::Languages;
        if !self.language_problems.is_empty() && (other || demo) {
            return Err(Error::new(
                "--language-problems are for `ablate languages` with your own model; the demo makes its own",
            ));
        }
        let sources = self.pipeline.sources(ablation.examples())?;
        Ok(match (other, demo) {
            (true, _) => sources,
            (_, true) => {
                sources.with_demo_languages(&self.pipeline.out.join("sources"), self.pipeline.seed)?
            }
            _ => Sources { language_problems: self.language_problems.clone(), ..sources },
        })
    }
}
