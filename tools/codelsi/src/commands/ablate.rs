//! `codelsi ablate`: the paper's comparisons.

use crate::commands::pipeline::PipelineArgs;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use codelsi_engine::{Error, Result};
use codelsi_experiment::ablation::Ablation;
use codelsi_experiment::output::Output;
use codelsi_experiment::recipe::Recipe;
use codelsi_experiment::sources::Sources;
use std::path::{Path, PathBuf};

/// Compare variants of the training in a table with intervals and costs.
#[derive(Args)]
pub struct AblateArgs {
    /// Variants to compare.
    #[arg(value_parser = ablations())]
    ablation: Ablation,
    /// With `languages`: files of problems in other languages than TypeScript, one for each; the public sources are read in
    /// these languages too.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    language_problems: Vec<PathBuf>,
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Parses an ablation's name.
fn ablations() -> impl TypedValueParser<Value = Ablation> {
    let values = Ablation::ALL.map(|(name, _, summary)| PossibleValue::new(name).help(summary));
    PossibleValuesParser::new(values).try_map(|text| {
        let listed = Ablation::ALL.into_iter().find(|(name, ..)| *name == text);
        listed.map(|(_, ablation, _)| ablation).ok_or("no ablation")
    })
}

/// Runs the command.
pub fn run(args: &AblateArgs, out: &Output) -> Result<()> {
    let (ablation, pipeline) = (args.ablation, &args.pipeline);
    let recipe = pipeline.changed(ablation.adapt_recipe(pipeline.named()?));
    let sources = |recipe: &Recipe, folder: &Path| args.sources(ablation, recipe, folder);
    pipeline.run_seeds(&recipe, sources, |experiment| ablation.run(experiment, out))
}

impl AblateArgs {
    /// Returns the pipeline's sources, for `languages` with the problems of the other languages.
    fn sources(&self, ablation: Ablation, recipe: &Recipe, folder: &Path) -> Result<Sources> {
        let (other, demo) = (ablation != Ablation::Languages, recipe.name == "demo");
        if !self.language_problems.is_empty() && (other || demo) {
            return Err(Error::new(
                "--language-problems is for `ablate languages` with your own model: leave it out (the demo makes its own)",
            ));
        }
        let sources = self.pipeline.sources(recipe, folder, ablation.needs_private())?;
        Ok(match (other, demo) {
            (true, _) => sources,
            (_, true) => sources.with_demo_languages(&folder.join("sources"), recipe.protocol.seed)?,
            _ => Sources { language_problems: self.language_problems.clone(), ..sources },
        })
    }
}
