//! `codelsi ablate`: the paper's comparisons.

use crate::ablation::Ablation;
use crate::commands::pipeline::Pipeline;
use crate::demo;
use crate::output::Output;
use crate::pipeline::{Sources, Stages};
use clap::Args;
use codelsi_engine::{Error, Result};
use std::path::PathBuf;

/// Compare ways of training, one thing changed at a time, in a table with intervals and costs.
#[derive(Args)]
pub struct Ablate {
    /// What is compared.
    #[arg(value_enum)]
    what: Ablation,
    /// With `languages`: problems in MultiPL-E's form in languages beside TypeScript, a file each; the public sources are
    /// read in those languages too.
    #[arg(long, num_args = 1..)]
    language_problems: Vec<PathBuf>,
    #[command(flatten)]
    pipeline: Pipeline,
}

/// Runs the command.
pub fn run(args: &Ablate, out: &Output) -> Result<()> {
    let Ablate { what, pipeline, .. } = args;
    let recipe = pipeline.changed(what.recipe(pipeline.named()));
    let (sources, judge) = (args.sources(recipe.name == "demo")?, pipeline.judge(&recipe));
    let stages = Stages::begin(&recipe, &sources, &pipeline.out, pipeline.place(), &judge, out)?;
    let report = what.run(&recipe, stages)?;
    pipeline.json(&report, out);
    Ok(())
}

impl Ablate {
    fn sources(&self, demo: bool) -> Result<Sources> {
        let other = self.what != Ablation::Languages;
        if !self.language_problems.is_empty() && (other || demo) {
            return Err(Error::new(
                "--language-problems are for `ablate languages` with your own model; the demo makes its own",
            ));
        }
        let sources = self.pipeline.sources(self.what.examples())?;
        Ok(match (other, demo) {
            (true, _) => sources,
            (_, true) => demo::in_languages(sources, &self.pipeline.out.join("sources"), self.pipeline.seed)?,
            _ => Sources { language_problems: self.language_problems.clone(), ..sources },
        })
    }
}
