//! Transfer to other languages: adapters trained on each language's own rows, and TypeScript's adapter on its problems.

use crate::evaluation::ModelPairs;
use crate::judging::JudgeOptions;
use crate::protocol::ProtocolOptions;
use crate::stages::{Comparison, EvaluatedModel, Stages};
use codelsi_curate::{CurateOptions, Language, has_sources};
use codelsi_engine::{Error, Result};
use codelsi_eval::judge::Judge;
use codelsi_eval::problem::Problem;
use codelsi_eval::protocol::PromptFormat;
use codelsi_train::TrainOptions;
use std::path::{Path, PathBuf};

/// The problems of one language and their judge.
struct LanguageBenchmark {
    language: Language,
    problems: Vec<Problem>,
    judge: Box<dyn Judge>,
}

/// Trains an adapter on the public rows of each language that has problems, and evaluates on these problems the base,
/// TypeScript's adapter (`general`) and the language's own. The report notes a language without rows or without its
/// judge.
///
/// # Errors
/// When a problem file mixes languages, the sources have no row in any of the languages, or a stage fails.
pub fn compare(stages: &mut Stages) -> Result<()> {
    let recipe = stages.recipe();
    if recipe.protocol.prompt_format != PromptFormat::Completion {
        return Err(Error::new(
            "problems in other languages need the completion format; leave out --prompt-format",
        ));
    }
    let benchmarks = open_benchmarks(stages)?;
    stages.report.notes.push(
        "Every adapter was trained on plain instructions: the paper's header asks for TypeScript by name."
            .into(),
    );
    let mut adapters = Vec::new();
    for LanguageBenchmark { language, .. } in &benchmarks {
        adapters.push((rows_name(*language), train_adapter(stages, *language)?));
    }
    if adapters.iter().all(|(_, adapter)| adapter.is_none()) {
        return Err(Error::new("the public sources have no row in any of the problems' languages"));
    }
    for (i, LanguageBenchmark { language, problems, judge }) in benchmarks.iter().enumerate() {
        // TypeScript's adapter comes first, then the language's own if it is another.
        let compared = if i == 0 { &adapters[..1] } else { &[adapters[0].clone(), adapters[i].clone()] };
        let trained = compared.iter().filter_map(|(name, adapter)| Some((name.clone(), adapter.clone()?)));
        let models: Vec<_> =
            [("base".to_string(), EvaluatedModel::Base)].into_iter().chain(trained).collect();
        let training_rows: Vec<&str> = compared.iter().map(|(name, _)| name.as_str()).collect();
        let name = format!("{} problems", language.table().name);
        stages.evaluate(&Comparison {
            name: &name,
            problems,
            judge: &**judge,
            models: &models,
            training_rows: &training_rows,
            pairs: ModelPairs::WithFirst,
        })?;
    }
    Ok(())
}

/// Returns the name of a language's row file and adapter.
fn rows_name(language: Language) -> String {
    if language == Language::TypeScript { "general".into() } else { language.name() }
}

/// Opens TypeScript's problems, then those of the other languages whose judges are available.
fn open_benchmarks(stages: &mut Stages) -> Result<Vec<LanguageBenchmark>> {
    let (recipe, sources) = (stages.recipe(), stages.sources());
    let problems = recipe.protocol.read_problems(&sources.problems)?;
    let judge = stages.experiment.judge.open(&problems)?;
    let mut benchmarks = vec![LanguageBenchmark { language: Language::TypeScript, problems, judge }];
    for path in &sources.language_problems {
        let (language, problems) = read_problems_of_one_language(&recipe.protocol, path)?;
        if benchmarks.iter().any(|other| other.language == language) {
            let name = language.table().name;
            return Err(Error::new(format!("a second file of {name} problems; give one file per language"))
                .at(path.display().to_string()));
        }
        match JudgeOptions::default().open(&problems) {
            Ok(judge) => benchmarks.push(LanguageBenchmark { language, problems, judge }),
            Err(e) => note(
                stages,
                format!("{} is left out, because its judge is not available: {e}.", language.table().name),
            ),
        }
    }
    Ok(benchmarks)
}

/// Reads a file of problems, which are all in one language.
fn read_problems_of_one_language(
    protocol: &ProtocolOptions,
    path: &Path,
) -> Result<(Language, Vec<Problem>)> {
    let problems = protocol.read_problems(path)?;
    let wrong = |reason: String| Error::new(reason).at(path.display().to_string());
    let code = problems.first().map_or("", |problem| &problem.language);
    let language = Language::from_multipl_e_code(code)
        .ok_or_else(|| wrong(format!("the curation has no rows in `{code}`")))?;
    match problems.iter().find(|problem| problem.language != code) {
        Some(other) => {
            Err(wrong(format!("`{}` is in `{}`, the first problem in `{code}`", other.name, other.language)))
        }
        None => Ok((language, problems)),
    }
}

/// Trains an adapter on a language's public rows; without rows, adds a note and returns `None`.
fn train_adapter(stages: &mut Stages, language: Language) -> Result<Option<EvaluatedModel>> {
    let (recipe, name) = (stages.recipe(), rows_name(language));
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in &stages.sources().public {
        if has_sources(path, language)? {
            paths.push(path.clone());
        }
    }
    let curate = CurateOptions { languages: vec![language], ..CurateOptions::default() };
    let kept = if paths.is_empty() { 0 } else { stages.curate(&name, &paths, curate)?.kept };
    if kept == 0 {
        let language = language.table().name;
        note(
            stages,
            format!("The public sources have no {language} row, so there is no {language} adapter."),
        );
        return Ok(None);
    }
    // A language with few rows keeps most of them for training.
    let options =
        TrainOptions { validation: recipe.general.validation.min(kept / 10), ..recipe.general.clone() };
    Ok(Some(EvaluatedModel::Adapter(stages.train(&name, &name, options, None)?)))
}

fn note(stages: &mut Stages, text: String) {
    eprintln!("{text}");
    stages.report.notes.push(text);
}
