//! The stages of an experiment: curate, train, evaluate and report. Each writes into the run's folder.

use crate::api_client::bytes_sent;
use crate::curation::curate;
use crate::environment::environment;
use crate::evaluation::{ModelPairs, evaluate_model, problem_set};
use crate::judging::JudgeOptions;
use crate::local::LocalModel;
use crate::output::Output;
use crate::placement::Placement;
use crate::recipe::Recipe;
use crate::report::save;
use crate::sources::Sources;
use crate::table;
use crate::training::train;
use codelsi_curate::{CurateOptions, CuratedRow, CurationCounts};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result, RunLock};
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::judge::Judge;
use codelsi_eval::problem::Problem;
use codelsi_eval::report::{CurationSummary, LossCurve, Report, StageTiming, TrainingSummary, count};
use codelsi_eval::sampling::read_completions;
use codelsi_eval::verbatim::longest_shared_run;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::ModelConfig;
use codelsi_model::jsonl;
use codelsi_model::tokenizer::Tokenizer;
use codelsi_train::{TrainOptions, metrics};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// An experiment: recipe, sources, placement and judge.
pub struct Experiment {
    pub recipe: Recipe,
    pub sources: Sources,
    /// Folder of all results.
    pub folder: PathBuf,
    pub placement: Placement,
    pub judge: JudgeOptions,
}

/// A running experiment and the report of its finished stages.
pub struct Stages<'a> {
    pub experiment: &'a Experiment,
    pub out: &'a Output,
    base: Checkpoint,
    pub report: Report,
    /// Problems that this run made of the private repository, where none were given.
    pub(crate) made_problems: Option<PathBuf>,
    _lock: RunLock,
}

/// A model to evaluate.
#[derive(Clone)]
pub enum EvaluatedModel {
    Base,
    /// Folder of an adapter on the base.
    Adapter(PathBuf),
    /// Folder of a fully trained model.
    FullModel(PathBuf),
}

/// Models to compare on one set of problems, under one protocol.
pub struct Comparison<'a> {
    /// Name of the set of problems.
    pub name: &'a str,
    pub problems: &'a [Problem],
    pub judge: &'a dyn Judge,
    pub models: &'a [(String, EvaluatedModel)],
    /// Names of the row files that the models were trained on, which are searched for verbatim copies.
    pub training_rows: &'a [&'a str],
    pub pairs: ModelPairs,
}

impl<'a> Stages<'a> {
    /// Checks the model, the sources and the sandbox, and writes the recipe.
    ///
    /// # Errors
    /// When the model does not open, a source is missing, the sandbox fails its test, or the folder cannot be written or is
    /// another process's.
    pub fn begin(experiment: &'a Experiment, out: &'a Output) -> Result<Self> {
        let Experiment { recipe, sources, folder, placement, judge } = experiment;
        placement.ranks.in_one_process()?;
        recipe.protocol.check()?;
        let lock = RunLock::folder(folder)?;
        sources.check()?;
        let base = Checkpoint::open(&sources.model)?;
        // A sandbox that does not isolate is found before hours of training.
        judge.open(&[])?;
        let text = serde_json::to_string_pretty(&recipe.to_json()).map_err(|e| Error::new(e.to_string()))?;
        write_atomic(folder.join("recipe.json"), text.as_bytes())?;
        Ok(Stages { experiment, out, base, report: Report::default(), made_problems: None, _lock: lock })
    }

    /// Returns the experiment's recipe.
    pub fn recipe(&self) -> &'a Recipe {
        &self.experiment.recipe
    }

    /// Returns the experiment's sources.
    pub fn sources(&self) -> &'a Sources {
        &self.experiment.sources
    }

    /// Returns the problems over the private code, given or made.
    pub fn private_problems(&self) -> Option<&PathBuf> {
        self.sources().private_problems.as_ref().or(self.made_problems.as_ref())
    }

    /// Returns the path of a file or folder of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.experiment.folder.join(name)
    }

    /// Returns the path of the row file `name`.
    pub fn rows_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.jsonl"))
    }

    /// Returns the base model.
    pub fn base(&self) -> &Checkpoint {
        &self.base
    }

    /// Returns the base model's configuration.
    pub fn config(&self) -> &ModelConfig {
        self.base.config()
    }

    /// Curates sources into `NAME.jsonl`, decontaminated against every problem of this run, by `options` and the recipe's
    /// threshold of near duplicates.
    ///
    /// # Errors
    /// When a source cannot be read or the rows cannot be written.
    pub fn curate(
        &mut self,
        name: &str,
        paths: &[PathBuf],
        options: CurateOptions,
    ) -> Result<CurationCounts> {
        let started = Instant::now();
        let against = [&self.sources().problems].into_iter().chain(self.private_problems());
        let options = CurateOptions {
            paths: paths.to_vec(),
            against: against.chain(&self.sources().language_problems).cloned().collect(),
            near_duplicate_threshold: self.recipe().near_duplicate_threshold,
            ..options
        };
        let counts = curate(&options, &self.rows_path(name), self.out)?;
        eprintln!("curated {name}: {} of {} kept", counts.kept, counts.read);
        self.report.curation.retain(|earlier| earlier.name != name);
        self.report.curation.push(curation_summary(name, &counts));
        self.time(&format!("curate {name}"), started);
        Ok(counts)
    }

    /// Returns the options of the recipe's specialized stage, with the general rows to replay.
    pub fn specialized_options(&self) -> TrainOptions {
        let options = &self.recipe().specialized;
        match options.replay_rows {
            0 => options.without_replay(),
            _ => TrainOptions { replay: Some(self.rows_path("general")), ..options.clone() },
        }
    }

    /// Trains a stage called `name` on the rows of `ROWS.jsonl`, from an adapter or from scratch, on the base unless
    /// `options` name another model; returns the result's
    /// folder.
    ///
    /// # Errors
    /// When the training fails.
    pub fn train(
        &mut self,
        name: &str,
        rows: &str,
        options: TrainOptions,
        from: Option<&Path>,
    ) -> Result<PathBuf> {
        let started = Instant::now();
        let folder = self.path(name);
        let options = TrainOptions {
            model: match options.model.as_os_str().is_empty() {
                true => self.sources().model.clone(),
                false => options.model.clone(),
            },
            data: vec![self.rows_path(rows)],
            out: folder.clone(),
            from: from.map(Path::to_path_buf),
            seq: options.seq.min(self.base.config().max_positions),
            compute: self.experiment.placement.compute(&self.base),
            pack_weights: self.experiment.placement.pack_weights,
            resume: true,
            ..options
        };
        self.report.hosted.row_tokens += self.tokens_of_rows(&self.rows_path(rows))?;
        eprintln!("\n== {name}");
        let trained = train(&options, self.experiment.placement, self.out)?;
        let trained = trained.ok_or_else(|| Error::new("an experiment runs in the process of rank 0"))?;
        if self.report.models.is_empty() {
            let total = Some(self.base.config().parameters() as u64);
            self.report.models.push(TrainingSummary {
                name: "base".into(),
                total,
                ..TrainingSummary::default()
            });
        }
        self.report.models.push(TrainingSummary {
            name: name.into(),
            trainable: Some(trained.trainable as u64),
            total: Some(trained.total as u64),
            steps: Some(trained.steps),
            tokens: Some(trained.tokens as u64),
            first_loss: Some(trained.first_loss),
            last_loss: Some(trained.last_loss),
            validation_loss: trained.validation_before.zip(trained.validation_loss),
            tokens_per_s: Some(trained.tokens_per_s),
            peak_bytes: Some(trained.peak_bytes as u64),
        });
        self.report.curves.push(loss_curve(name, &metrics::read(&folder.join("metrics.jsonl"))?));
        self.time(&format!("train {name}"), started);
        Ok(folder)
    }

    /// Evaluates every model on the general problems, and on the private ones if there are any.
    ///
    /// # Errors
    /// When a model or the judge fails.
    pub fn evaluate_all(&mut self, models: &[(String, EvaluatedModel)], pairs: ModelPairs) -> Result<()> {
        let sources = self.sources();
        let sets = [
            ("general problems", Some(sources.problems.clone())),
            ("private-API problems", sources.private_problems.clone()),
            ("private problems", self.made_problems.clone()),
        ];
        for (name, problems) in sets {
            if let Some(problems) = problems {
                let problems = self.recipe().protocol.read_problems(&problems)?;
                let judge = self.experiment.judge.open(&problems)?;
                self.evaluate(&Comparison {
                    name,
                    problems: &problems,
                    judge: &*judge,
                    models,
                    training_rows: &["general", "specialized", "with canaries"],
                    pairs,
                })?;
            }
        }
        Ok(())
    }

    /// Evaluates every model on one set of problems, with the longest run of tokens that each copies from its training
    /// rows.
    ///
    /// # Errors
    /// When a model or the judge fails.
    pub fn evaluate(&mut self, comparison: &Comparison) -> Result<()> {
        let Comparison { name, problems, judge, models, training_rows, pairs } = *comparison;
        let started = Instant::now();
        let training_code = self.training_code(training_rows)?;
        let training_code: Vec<&str> = training_code.iter().map(String::as_str).collect();
        let protocol = self.recipe().protocol.protocol(problems, judge);
        eprintln!("\n== {name}\n{protocol}");
        let prompts = self.tokens_of_prompts(problems, protocol.samples)?;
        let mut base = self.open_model(&self.sources().model)?;
        let mut results: Vec<ModelResult> = Vec::new();
        for (model, evaluated) in models {
            let mut full_model = None;
            let local = match evaluated {
                EvaluatedModel::Base => &mut base,
                EvaluatedModel::Adapter(folder) => {
                    base.attach_adapter(folder)?;
                    &mut base
                }
                EvaluatedModel::FullModel(folder) => full_model.insert(self.open_model(folder)?),
            };
            let folder = self.path("evaluation").join(name.replace(' ', "-")).join(model.replace(' ', "-"));
            let mut result = evaluate_model(model, local, problems, &protocol, judge, &folder, self.out)?;
            if !matches!(evaluated, EvaluatedModel::Base) {
                let completions = read_completions(&folder)?;
                let completions: Vec<&str> = completions.iter().map(String::as_str).collect();
                result.verbatim = Some(longest_shared_run(&completions, &training_code));
            }
            self.report.hosted.prompt_tokens += prompts;
            eprintln!("{model}: Pass@1 {:.1} %", 100.0 * result.pass_at_1);
            results.push(result);
        }
        self.report.sets.push(problem_set(name, results, pairs)?);
        self.time(&format!("evaluate {name}"), started);
        Ok(())
    }

    /// The number of tokens of a row file, without a template.
    fn tokens_of_rows(&self, path: &Path) -> Result<u64> {
        let rows: Vec<CuratedRow> = jsonl::read(path)?;
        let texts: Vec<String> = rows.iter().map(CuratedRow::text).collect();
        self.tokens(texts.iter())
    }

    /// The number of tokens of all prompts of an evaluation.
    fn tokens_of_prompts(&self, problems: &[Problem], samples: usize) -> Result<u64> {
        Ok(self.tokens(problems.iter().map(|problem| &problem.prompt))? * samples as u64)
    }

    fn tokens<'t>(&self, texts: impl Iterator<Item = &'t String>) -> Result<u64> {
        let tokenizer = Tokenizer::load(&self.sources().model)?;
        texts.map(|text| Ok(tokenizer.encode(text, false)?.len() as u64)).sum()
    }

    /// Loads a model with this run's placement.
    ///
    /// # Errors
    /// When it does not load or fit.
    pub fn open_model(&self, model: &Path) -> Result<LocalModel> {
        LocalModel::open(model, self.experiment.placement)
    }

    /// Reads the code of the row files of these names; a file that does not exist has none.
    fn training_code(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut code = Vec::new();
        for name in names {
            let path = self.rows_path(name);
            let rows: Vec<CuratedRow> = if path.exists() { jsonl::read(path)? } else { Vec::new() };
            code.extend(rows.into_iter().map(|row| row.output));
        }
        Ok(code)
    }

    /// Writes the report and prints the table; `subject` completes the title.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn finish(mut self, subject: &str) -> Result<Report> {
        let Experiment { recipe, sources, folder, .. } = self.experiment;
        let report = &mut self.report;
        report.title = format!("CodeLSI: {subject}");
        report.subtitle = format!(
            "{} on {}, {} parameters",
            recipe.name,
            sources.model.display(),
            count(self.base.config().parameters() as u64)
        );
        report.settings = settings(&recipe.to_json());
        report.notes.extend(notes_of_judges(report));
        report.bytes_sent = bytes_sent();
        report.environment = environment(self.experiment.placement)?;
        save(report, folder)?;
        println!("\n{}", table::render(report));
        println!("report: {}", folder.join("report.html").display());
        Ok(self.report)
    }

    /// Records the seconds since `started`.
    pub(crate) fn time(&mut self, name: &str, started: Instant) {
        self.report.timings.push(StageTiming { name: name.into(), seconds: started.elapsed().as_secs_f64() });
    }
}

/// Returns what a reader must know of the judges of a report.
fn notes_of_judges(report: &Report) -> Vec<String> {
    let judges: Vec<&str> =
        report.sets.iter().flat_map(|set| &set.results).map(|r| r.protocol.judge.as_str()).collect();
    let used = |name: &str| judges.iter().any(|judge| judge.starts_with(name));
    let mut notes = Vec::new();
    if used("embedded:") {
        notes.push(
            "The embedded judge strips types and does not check them, and lacks a listed part of Node (status NeedsNode, doc/judges.md)."
                .into(),
        );
    }
    if used("node:") {
        notes.push(
            "The node judge strips types and does not check them: its Pass@1 is an upper bound of the tsc judge's."
                .into(),
        );
    }
    notes
}

fn curation_summary(name: &str, counts: &CurationCounts) -> CurationSummary {
    CurationSummary {
        name: name.into(),
        read: counts.read,
        kept: counts.kept,
        dropped: counts.dropped.iter().map(|(reason, n)| (reason.to_string(), *n)).collect(),
    }
}

fn loss_curve(name: &str, metrics: &[metrics::StepMetrics]) -> LossCurve {
    let validation = metrics.iter().filter_map(|m| Some((m.step as f64, m.validation_loss?)));
    LossCurve {
        name: name.into(),
        training: metrics.iter().map(|m| (m.step as f64, m.loss)).collect(),
        validation: validation.collect(),
    }
}

/// Lists a recipe as names and values, nested names joined with a dot; what is not set is left out.
fn settings(value: &serde_json::Value) -> Vec<(String, String)> {
    let Some(object) = value.as_object() else { return Vec::new() };
    object
        .iter()
        .flat_map(|(name, value)| match value.is_object() {
            true => settings(value).into_iter().map(|(inner, v)| (format!("{name}.{inner}"), v)).collect(),
            false if value.is_null() || value == "" => Vec::new(),
            false => vec![(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))],
        })
        .collect()
}
