//! The whole paper in one page: sources -> instructions -> general LoRA -> specialized LoRA -> Pass@1 -> report.
//!
//! Every stage leaves its result in the run's folder; a run that was cut short takes them up again.

use crate::evaluation::Pairs;
use crate::output::Output;
use crate::stages::{Experiment, Stages, Trained};
use codelsi_curate::{Language, RowLimits};
use codelsi_engine::Result;
use codelsi_eval::report::Report;

/// Runs every stage into the experiment's folder and prints the paper's table.
///
/// # Errors
/// Those of the stages, one line each.
pub fn run(experiment: &Experiment, out: &Output) -> Result<Report> {
    let Experiment { recipe, sources, .. } = experiment;
    let mut stages = Stages::begin(experiment, out)?;
    stages.curate("general", &sources.public, Language::TypeScript, RowLimits::default())?;
    let private = stages.private("specialized", &sources.private, recipe.private_rows)?;

    let general = stages.train("general", "general", recipe.general.clone(), None)?;
    let options = private.validated(stages.specialized());
    let specialized = stages.train("specialized", "specialized", options, Some(&general))?;
    stages.read_held_out(&private, ("general", &general), ("specialized", &specialized))?;

    let models = [
        ("base".into(), Trained::Base),
        ("general".into(), Trained::Adapter(general)),
        ("specialized".into(), Trained::Adapter(specialized)),
    ];
    stages.evaluate_all(&models, Pairs::Steps)?;
    stages.report.compare_with_paper = true;
    stages.finish(&format!("the {} recipe", recipe.name))
}
