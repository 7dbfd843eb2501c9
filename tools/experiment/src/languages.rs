//! Other languages: what each one's own rows teach, and what TypeScript's rows give or take there.

use crate::evaluation::Pairs;
use crate::judging::JudgeOptions;
use crate::recipe::Recipe;
use crate::stages::{Comparison, Stages, Trained};
use codelsi_curate::{Language, RowLimits, has_sources};
use codelsi_engine::{Error, Result};
use codelsi_eval::judge::Judge;
use codelsi_eval::problem::Problem;
use codelsi_eval::protocol::PromptFormat;
use codelsi_train::TrainOptions;
use std::path::{Path, PathBuf};

/// The problems of one language, and who judges them.
struct Measured {
    language: Language,
    problems: Vec<Problem>,
    judge: Box<dyn Judge>,
}

/// Trains an adapter on the public rows of each language that there are problems in, and measures on these problems the base,
/// TypeScript's adapter (`general`) and the language's own. A language without rows, or whose judge lacks a tool, is noted.
///
/// # Errors
/// Problems that are not of one language a file; sources without a row in any of the languages; those of the stages.
pub fn compare(stages: &mut Stages) -> Result<()> {
    let recipe = stages.recipe();
    if recipe.protocol.prompt_format != PromptFormat::Completion {
        return Err(Error::new(
            "problems in other languages are put as completions; leave out --prompt-format",
        ));
    }
    let compared = measured(stages)?;
    stages.report.notes.push(
        "Every adapter was trained on plain instructions: the paper's header asks for TypeScript by name."
            .into(),
    );
    let mut adapters = Vec::new();
    for Measured { language, .. } in &compared {
        adapters.push((rows_name(*language), adapter(stages, *language)?));
    }
    if adapters.iter().all(|(_, adapter)| adapter.is_none()) {
        return Err(Error::new("the public sources give no row in any of the problems' languages"));
    }
    for (i, Measured { language, problems, judge }) in compared.iter().enumerate() {
        // TypeScript comes first; a language's own adapter follows, where it is another.
        let own = if i == 0 { &adapters[..1] } else { &[adapters[0].clone(), adapters[i].clone()] };
        let trained = own.iter().filter_map(|(name, adapter)| Some((name.clone(), adapter.clone()?)));
        let models: Vec<_> = [("base".to_string(), Trained::Base)].into_iter().chain(trained).collect();
        let rows: Vec<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
        let name = format!("{} problems", language.table().name);
        stages.evaluate(&Comparison {
            name: &name,
            problems,
            judge: &**judge,
            models: &models,
            rows: &rows,
            pairs: Pairs::WithFirst,
        })?;
    }
    Ok(())
}

/// Returns the name of a language's rows and adapter.
fn rows_name(language: Language) -> String {
    if language == Language::TypeScript { "general".into() } else { language.name() }
}

/// TypeScript's problems, then those of the other languages whose judges open.
fn measured(stages: &mut Stages) -> Result<Vec<Measured>> {
    let (recipe, sources) = (stages.recipe(), stages.sources());
    let problems = recipe.protocol.problems(&sources.problems)?;
    let judge = stages.experiment.judge.open(&problems)?;
    let mut all = vec![Measured { language: Language::TypeScript, problems, judge }];
    for path in &sources.language_problems {
        let (language, problems) = problems_of(recipe, path)?;
        if all.iter().any(|other| other.language == language) {
            let told = language.table().name;
            return Err(Error::new(format!("a second file of {told} problems; give one a language"))
                .at(path.display().to_string()));
        }
        match JudgeOptions::default().open(&problems) {
            Ok(judge) => all.push(Measured { language, problems, judge }),
            Err(e) => note(
                stages,
                format!("{} is left out, for it cannot be judged here: {e}.", language.table().name),
            ),
        }
    }
    Ok(all)
}

/// The problems of a file and the one language that they are in.
fn problems_of(recipe: &Recipe, path: &Path) -> Result<(Language, Vec<Problem>)> {
    let problems = recipe.protocol.problems(path)?;
    let wrong = |what: String| Error::new(what).at(path.display().to_string());
    let code = problems.first().map_or("", |problem| &problem.language);
    let language =
        Language::from_multipl_e_code(code).ok_or_else(|| wrong(format!("no rows are made in `{code}`")))?;
    match problems.iter().find(|problem| problem.language != code) {
        Some(other) => {
            Err(wrong(format!("`{}` is in `{}`, the first problem in `{code}`", other.name, other.language)))
        }
        None => Ok((language, problems)),
    }
}

/// The adapter of a language's public rows; none, and a note, where there are no rows.
fn adapter(stages: &mut Stages, language: Language) -> Result<Option<Trained>> {
    let (recipe, name) = (stages.recipe(), rows_name(language));
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in &stages.sources().public {
        if has_sources(path, language)? {
            paths.push(path.clone());
        }
    }
    let kept =
        if paths.is_empty() { 0 } else { stages.curate(&name, &paths, language, RowLimits::default())?.kept };
    if kept == 0 {
        let told = language.table().name;
        note(stages, format!("The public sources give no {told} row, so there is no adapter of {told}."));
        return Ok(None);
    }
    // A language with few rows trains on most of them.
    let options =
        TrainOptions { validation: recipe.general.validation.min(kept / 10), ..recipe.general.clone() };
    Ok(Some(Trained::Adapter(stages.train(&name, &name, options, None)?)))
}

fn note(stages: &mut Stages, text: String) {
    eprintln!("{text}");
    stages.report.notes.push(text);
}
