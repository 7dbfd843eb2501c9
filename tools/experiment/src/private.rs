//! The specialized stage's data: what is learned of a private repository, what is held out, and how models answer it.

use crate::evaluation::watched;
use crate::stages::Stages;
use codelsi_curate::specialize::{ExportedApi, choose_rows, split_rows};
use codelsi_curate::{self as curate, CuratedRow, Language, RowLimits};
use codelsi_engine::{Error, Result};
use codelsi_eval::held_out::{self, HeldOutProtocol, PrivateLibrary, evaluate_held_out, identifiers};
use codelsi_eval::report::RepositoryResult;
use codelsi_eval::verbatim::longest_shared_run;
use codelsi_model::jsonl;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_train::TrainOptions;
use std::path::{Path, PathBuf};

/// One private repository, ready to be learned.
pub struct Private {
    pub name: String,
    /// Rows that are held out.
    held_out: Vec<held_out::HeldOutRow>,
    held_out_path: PathBuf,
    library: PrivateLibrary,
    trained: Vec<String>,
    /// Exported classes, methods and functions: how many of them the rows show, and all.
    shown: (usize, usize),
}

impl Private {
    /// `options` with the held-out rows to validate on.
    pub fn validated(&self, options: TrainOptions) -> TrainOptions {
        let validation_data = (!self.held_out.is_empty()).then(|| self.held_out_path.clone());
        TrainOptions { validation: 0, validation_data, ..options }
    }
}

impl Stages<'_> {
    /// Curates a repository and leaves the `wanted` most telling rows in `NAME.jsonl` and, where no problems measure what is
    /// learned, as many others at most in `NAME-held-out.jsonl`. Where comments are too few, code without one is asked for by its signature.
    ///
    /// # Errors
    /// Those of the curation; a repository of which no row is kept.
    pub fn private(&mut self, name: &str, paths: &[PathBuf], wanted: usize) -> Result<Private> {
        let mut counts = self.curate(name, paths, Language::TypeScript, RowLimits::default())?;
        if counts.kept < wanted {
            counts = self.curate(
                name,
                paths,
                Language::TypeScript,
                RowLimits { min_words: 0, ..RowLimits::default() },
            )?;
        }
        if counts.kept == 0 {
            return Err(Error::new(format!(
                "{name}: no private row was kept, so there is nothing to specialize on"
            )));
        }
        let path = self.rows(name);
        let rows: Vec<CuratedRow> = jsonl::read(&path)?;
        let sources = curate::read_typescript_sources(paths)?;
        let api = ExportedApi::from_sources(&sources)?;
        // Problems to be run measure better than rows to be read, and every row can be learned.
        let (mut chosen, held) = match self.sources().private_problems {
            Some(_) => (choose_rows(&rows, &api, wanted), Vec::new()),
            None => split_rows(&rows, &api, wanted),
        };
        chosen.sort();
        let pick = |indices: &[usize]| indices.iter().map(|&i| rows[i].clone()).collect::<Vec<_>>();
        let (chosen, held) = (pick(&chosen), self.answerable(pick(&held), wanted)?);
        jsonl::write(&path, &chosen)?;
        let held_out_path = self.rows(&format!("{name}-held-out"));
        if !held.is_empty() {
            jsonl::write(&held_out_path, &held)?;
        }
        let text: String =
            sources.iter().map(|source| source.content.as_str()).collect::<Vec<_>>().join("\n");
        eprintln!("{name}: {} rows to learn, {} held out", chosen.len(), held.len());
        Ok(Private {
            name: name.into(),
            shown: api.coverage(&chosen),
            held_out: held.into_iter().enumerate().map(question).collect(),
            held_out_path,
            library: PrivateLibrary { names: api.names(), identifiers: identifiers(&text) },
            trained: chosen.into_iter().map(|row| row.output).collect(),
        })
    }

    /// At most `wanted` of the rows whose code fits an answer, evenly spread.
    fn answerable(&self, rows: Vec<CuratedRow>, wanted: usize) -> Result<Vec<CuratedRow>> {
        let tokenizer = Tokenizer::load(&self.sources().model)?;
        let most = self.recipe().protocol.max_tokens;
        let mut fitting = Vec::new();
        for row in rows {
            if tokenizer.encode(&row.output, false)?.len() < most {
                fitting.push(row);
            }
        }
        Ok(codelsi_train::data::take_evenly(fitting, wanted))
    }

    /// Has the adapters `before` and `after` answer what a repository holds out, unless it holds out nothing. Their losses
    /// on it are those that the last stage measured.
    ///
    /// # Errors
    /// Those of the models.
    pub fn read_held_out(
        &mut self,
        private: &Private,
        before: (&str, &Path),
        after: (&str, &Path),
    ) -> Result<()> {
        if private.held_out.is_empty() {
            if self.sources().private_problems.is_none() {
                let most = self.recipe().protocol.max_tokens;
                let note = format!(
                    "{}: no row is held out whose code fits an answer of {most} tokens.",
                    private.name
                );
                self.report.notes.push(note);
            }
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
        let trained: Vec<&str> = private.trained.iter().map(String::as_str).collect();
        let mut model = self.open(&self.sources().model)?;
        let mut readings = Vec::new();
        for ((name, folder), loss) in [before, after].into_iter().zip(losses) {
            model.put_on(folder)?;
            let samples = self.path("held-out").join(&private.name).join(format!("{name}.jsonl"));
            let (mut reading, answers) = watched(name, self.out, |watch| {
                evaluate_held_out(
                    name,
                    &mut model,
                    &private.held_out,
                    &private.library,
                    sampling,
                    &samples,
                    watch,
                )
            })?;
            let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
            reading.perplexity = loss.map(f64::exp);
            reading.verbatim = Some(longest_shared_run(&answers, &trained));
            readings.push(reading);
        }
        let (valid, names) = readings[1].difference_from(&readings[0], protocol.seed)?;
        self.report.held_out.push(RepositoryResult {
            repository: private.name.clone(),
            trained: private.trained.len(),
            shown: private.shown,
            readings,
            valid: Some(valid),
            names,
        });
        Ok(())
    }
}

/// Names are unlike each other by their numbers.
fn question((number, row): (usize, CuratedRow)) -> held_out::HeldOutRow {
    held_out::HeldOutRow {
        name: format!("{number} {}", row.name),
        instruction: row.instruction,
        reference: row.output,
    }
}
