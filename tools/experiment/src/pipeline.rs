//! The paper in one page: sources -> instructions -> general LoRA -> specialized LoRA -> Pass@1 -> report.
//!
//! Every stage writes its result into the run's folder, and a run that was interrupted resumes from there.

use crate::evaluation::ModelPairs;
use crate::output::Output;
use crate::stages::{EvaluatedModel, Experiment, Stages};
use codelsi_engine::Result;
use codelsi_eval::report::Report;

/// Runs every stage into the experiment's folder and prints the paper's table.
///
/// # Errors
/// Returns the first error of a stage.
pub fn run(experiment: &Experiment, out: &Output) -> Result<Report> {
    let Experiment { recipe, sources, .. } = experiment;
    let mut stages = Stages::begin(experiment, out)?;

    // Where no problems over the private code are given, some of its functions with examples are held out as problems.
    stages.make_private_problems(recipe.private_rows)?;

    // Documented functions become instructions: all of the public code, a few rows of the private repository.
    stages.curate("general", &sources.public, recipe.general_rows())?;
    let private = stages.curate_private("specialized", &sources.private, recipe.private_rows)?;

    // A general LoRA learns from the public rows; the specialized LoRA continues from it on the private rows.
    let general = stages.train("general", "general", recipe.general.clone(), None)?;
    let options = private.with_held_out_validation(stages.specialized_options());
    let specialized = stages.train("specialized", "specialized", options, Some(&general))?;

    // Both adapters complete the private code that was held out, and all three models solve the problems.
    stages.evaluate_held_out(&private, ("general", &general), ("specialized", &specialized))?;
    let models = [
        ("base".into(), EvaluatedModel::Base),
        ("general".into(), EvaluatedModel::Adapter(general)),
        ("specialized".into(), EvaluatedModel::Adapter(specialized)),
    ];
    stages.evaluate_all(&models, ModelPairs::PreviousAndFirst)?;

    stages.report.compare_with_paper = true;
    stages.report.specialization = Some(("general".into(), "specialized".into()));
    stages.finish(&format!("the {} recipe", recipe.name))
}
