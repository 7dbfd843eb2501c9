//! `codelsi ablate`: the paper's comparisons.

use crate::ablation::Ablation;
use crate::commands::pipeline::Pipeline;
use crate::output::Output;
use crate::pipeline::Stages;
use clap::Args;
use codelsi_engine::Result;

/// Compare ways of training, one thing changed at a time, in a table with intervals and costs.
#[derive(Args)]
pub struct Ablate {
    /// What is compared.
    #[arg(value_enum)]
    what: Ablation,
    #[command(flatten)]
    pipeline: Pipeline,
}

/// Runs the command.
pub fn run(args: &Ablate, out: &Output) -> Result<()> {
    let Ablate { what, pipeline } = args;
    let recipe = pipeline.recipe();
    let (sources, judge) = (pipeline.sources(what.examples())?, pipeline.judge(&recipe));
    let stages = Stages::begin(&recipe, &sources, &pipeline.out, pipeline.place(), &judge, out)?;
    let report = what.run(&recipe, stages)?;
    pipeline.json(&report, out);
    Ok(())
}
