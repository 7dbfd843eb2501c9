//! The specialized stage's data: training rows of a private repository, held-out rows, and their evaluation.

use crate::evaluation::with_progress;
use crate::stages::Stages;
use codelsi_curate::specialize::{ExportedApi, choose_rows, held_out, split_rows};
use codelsi_curate::{self as curate, CurateOptions, CuratedRow, InstructionStyle, RowLimits};
use codelsi_engine::{Error, Result};
use codelsi_eval::held_out::{HeldOutProtocol, HeldOutRow, PrivateLibrary, evaluate_held_out, identifiers};
use codelsi_eval::report::RepositoryResult;
use codelsi_eval::verbatim::longest_shared_run;
use codelsi_model::jsonl;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_train::TrainOptions;
use std::path::{Path, PathBuf};

/// A curated private repository.
pub struct PrivateRepository {
    pub name: String,
    held_out: Vec<HeldOutRow>,
    held_out_path: PathBuf,
    library: PrivateLibrary,
    /// Code of the training rows.
    training_code: Vec<String>,
    /// Number of exported classes, methods and functions that the training rows use, and of all.
    api_coverage: (usize, usize),
}

impl PrivateRepository {
    /// Returns `options` with the held-out rows as validation data.
    pub fn with_held_out_validation(&self, options: TrainOptions) -> TrainOptions {
        TrainOptions { validation: 0, validation_data: self.held_out_path(), ..options }
    }

    /// The file of the held-out rows; `None` if there are none.
    pub fn held_out_path(&self) -> Option<PathBuf> {
        (!self.held_out.is_empty()).then(|| self.held_out_path.clone())
    }
}

impl Stages<'_> {
    /// Curates a repository. The rows of the `wanted` items that cover its exported API best go to `NAME.jsonl`, in every
    /// style, and at most as many of the others to `NAME-held-out.jsonl`. If too few items have comments, those without one
    /// are included, with their signature as the instruction.
    ///
    /// # Errors
    /// When the curation fails or keeps no row.
    pub fn curate_private(
        &mut self,
        name: &str,
        paths: &[PathBuf],
        wanted: usize,
    ) -> Result<PrivateRepository> {
        let path = self.rows_path(name);
        let options = self.recipe().specialized_rows();
        if options.styles.iter().all(|style| *style == InstructionStyle::Infill) {
            return Err(Error::new(
                "specialized_styles: rows to infill alone cannot be measured; add `write`",
            ));
        }
        self.curate(name, paths, options.clone())?;
        let mut items = with_instruction(by_item(jsonl::read(&path)?));
        if items.len() < wanted {
            let limits = RowLimits { min_words: 0, ..RowLimits::default() };
            self.curate(name, paths, CurateOptions { limits, ..options })?;
            items = with_instruction(by_item(jsonl::read(&path)?));
        }
        if items.is_empty() {
            return Err(Error::new(format!(
                "{name}: no private row was kept, so there is nothing to specialize on"
            )));
        }
        let rows: Vec<CuratedRow> =
            items.iter().filter_map(|rows| rows.iter().find(|row| row.hole.is_none())).cloned().collect();
        let sources = curate::read_typescript_sources(paths)?;
        let api = ExportedApi::from_sources(&sources);
        // With executable problems none of the wanted rows is kept back to measure on.
        let (mut chosen, others) = match self.private_problems() {
            Some(_) => {
                let chosen = choose_rows(&rows, &api, wanted);
                let others = held_out(&rows, &chosen);
                (chosen, others)
            }
            None => split_rows(&rows, &api, wanted),
        };
        chosen.sort();
        let pick = |indices: &[usize]| indices.iter().map(|&i| rows[i].clone()).collect::<Vec<_>>();
        let held: Vec<&CuratedRow> = others.iter().map(|&i| &rows[i]).collect();
        let (training, leaking): (Vec<&CuratedRow>, Vec<&CuratedRow>) =
            chosen.iter().flat_map(|&i| &items[i]).partition(|row| !shows_any(row, &held));
        if !leaking.is_empty() {
            eprintln!("{name}: {} rows to infill are left out, since they show held-out code", leaking.len());
        }
        jsonl::write(&path, &training)?;
        let (chosen, others) = (pick(&chosen), pick(&others));
        // With executable problems the held-out rows are not answered, and need not fit an answer.
        let held_out = match self.private_problems() {
            Some(_) => codelsi_train::data::take_evenly(others, wanted),
            None => self.rows_that_fit(others, wanted)?,
        };
        let held_out_path = self.rows_path(&format!("{name}-held-out"));
        if !held_out.is_empty() {
            jsonl::write(&held_out_path, &held_out)?;
        }
        let text: String =
            sources.iter().map(|source| source.content.as_str()).collect::<Vec<_>>().join("\n");
        eprintln!(
            "{name}: {} of {} functions to learn, in {} rows; {} held out",
            chosen.len(),
            items.len(),
            training.len(),
            held_out.len()
        );
        Ok(PrivateRepository {
            name: name.into(),
            api_coverage: api.coverage(&chosen),
            held_out: held_out.into_iter().enumerate().map(held_out_row).collect(),
            held_out_path,
            library: PrivateLibrary { names: api.names(), identifiers: identifiers(&text) },
            training_code: chosen.into_iter().map(|row| row.output).collect(),
        })
    }

    /// Returns at most `max_rows` evenly spaced rows, of those whose code fits the answer limit.
    fn rows_that_fit(&self, rows: Vec<CuratedRow>, max_rows: usize) -> Result<Vec<CuratedRow>> {
        let tokenizer = Tokenizer::load(&self.sources().model)?;
        let max_tokens = self.recipe().protocol.max_tokens;
        let mut fitting = Vec::new();
        for row in rows {
            if tokenizer.encode(&row.output, false)?.len() < max_tokens {
                fitting.push(row);
            }
        }
        Ok(codelsi_train::data::take_evenly(fitting, max_rows))
    }

    /// Evaluates the adapters `before` and `after` on a repository's held-out rows, if it has any and there are no
    /// executable problems, which measure better. Their perplexities come from the validation losses of the last training stage.
    ///
    /// # Errors
    /// When a model does not load, fit or generate.
    pub fn evaluate_held_out(
        &mut self,
        private: &PrivateRepository,
        before: (&str, &Path),
        after: (&str, &Path),
    ) -> Result<()> {
        if self.private_problems().is_some() {
            return Ok(());
        }
        if private.held_out.is_empty() {
            let max_tokens = self.recipe().protocol.max_tokens;
            let note = format!(
                "{}: no row could be held out, since none of the others fits an answer of {max_tokens} tokens.",
                private.name
            );
            self.report.notes.push(note);
            return Ok(());
        }
        let losses = self.report.models.last().and_then(|row| row.validation_loss);
        let losses = losses.map_or([None; 2], |(before, after)| [Some(before), Some(after)]);
        let protocol = &self.recipe().protocol;
        let sampling = HeldOutProtocol {
            template: self.recipe().general.template,
            n: protocol.n,
            temperature: protocol.temperature,
            top_p: protocol.top_p,
            max_tokens: protocol.max_tokens,
            seed: protocol.seed,
        };
        let training_code: Vec<&str> = private.training_code.iter().map(String::as_str).collect();
        let mut model = self.open_model(&self.sources().model)?;
        let mut results = Vec::new();
        for ((name, folder), loss) in [before, after].into_iter().zip(losses) {
            model.attach_adapter(folder)?;
            let samples = self.path("held-out").join(&private.name).join(format!("{name}.jsonl"));
            let (mut result, answers) = with_progress(name, self.out, |progress| {
                evaluate_held_out(
                    name,
                    &mut model,
                    &private.held_out,
                    &private.library,
                    sampling,
                    &samples,
                    progress,
                )
            })?;
            let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
            if result.limited > 0 {
                let (limited, rows) = (result.limited, result.rows);
                eprintln!(
                    "{name}: {limited} of {rows} held-out rows leave less than {} tokens for an answer",
                    sampling.max_tokens
                );
            }
            result.perplexity = loss.map(f64::exp);
            result.verbatim = Some(longest_shared_run(&answers, &training_code));
            results.push(result);
        }
        let (valid, names) = results[1].difference_from(&results[0])?;
        self.report.held_out.push(RepositoryResult {
            repository: private.name.clone(),
            trained: private.training_code.len(),
            shown: private.api_coverage,
            readings: results,
            valid: Some(valid),
            names,
        });
        Ok(())
    }
}

/// Groups rows by their item: curation writes an item's rows one after another, in its styles.
pub fn by_item(rows: Vec<CuratedRow>) -> Vec<Vec<CuratedRow>> {
    let mut items: Vec<Vec<CuratedRow>> = Vec::new();
    for row in rows {
        let same = |other: &CuratedRow| {
            (&other.repo, &other.path, &other.name, other.lines)
                == (&row.repo, &row.path, &row.name, row.lines)
        };
        match items.last_mut() {
            Some(item) if same(&item[0]) => item.push(row),
            _ => items.push(vec![row]),
        }
    }
    items
}

/// Keeps the items that have a row with an instruction, by which they are chosen and measured.
fn with_instruction(mut items: Vec<Vec<CuratedRow>>) -> Vec<Vec<CuratedRow>> {
    items.retain(|rows| rows.iter().any(|row| row.hole.is_none()));
    items
}

/// Returns whether the text around a row's hole holds the code of any of these rows, by all but white space.
fn shows_any(row: &CuratedRow, others: &[&CuratedRow]) -> bool {
    let without_space = |text: &str| text.split_whitespace().collect::<String>();
    let shown = without_space(&row.text());
    row.hole.is_some() && others.iter().any(|other| shown.contains(&without_space(&other.output)))
}

/// Turns a row into a held-out row; the number makes its name unique.
fn held_out_row((number, row): (usize, CuratedRow)) -> HeldOutRow {
    HeldOutRow { name: format!("{number} {}", row.name), instruction: row.instruction, reference: row.output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_curate::{Hole, ItemKind, Language};

    fn row(output: &str, hole: Option<(&str, &str)>) -> CuratedRow {
        CuratedRow {
            instruction: String::new(),
            hole: hole.map(|(prefix, suffix)| Hole { prefix: prefix.into(), suffix: suffix.into() }),
            output: output.into(),
            repo: None,
            path: "a.ts".into(),
            language: Language::TypeScript,
            name: "f".into(),
            kind: ItemKind::Function,
            lines: (1, 1),
            license: None,
            style: InstructionStyle::Infill,
            template: None,
            teacher: None,
            evolved: 0,
        }
    }

    #[test]
    fn a_hole_whose_file_shows_held_out_code_leaks() {
        let held = row("g() {\n  return 2;\n}", None);
        let shows =
            |prefix: &str, suffix: &str| shows_any(&row("return 1;", Some((prefix, suffix))), &[&held]);
        assert!(shows("f() {", "}\n  g() {\n    return 2;\n  }"), "in another indentation");
        assert!(shows("g() { return 2; } f() {", "}") && !shows("f() {", "}\n  g() {"));
        assert!(!shows_any(&held, &[&held]), "others were chosen by their code");
        let items = vec![vec![row("a", Some(("", ""))), row("b", None)], vec![row("c", Some(("", "")))]];
        assert_eq!(with_instruction(items).len(), 1);
    }
}
