//! The stages of an experiment: curate, train, evaluate and report, each into the run's folder.

use crate::curation::curate;
use crate::evaluation::{Pairs, measure, problem_set};
use crate::judging::JudgeOptions;
use crate::local::LocalModel;
use crate::output::Output;
use crate::placement::Placement;
use crate::recipe::Recipe;
use crate::report::save;
use crate::sources::Sources;
use crate::table;
use crate::training::train;
use codelsi_curate::{CurateOptions, CurationCounts, Language, RowLimits};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::judge::{Judge, JudgeKind};
use codelsi_eval::problem::Problem;
use codelsi_eval::report::{CurationSummary, LossCurve, Report, StageTiming, TrainingSummary};
use codelsi_eval::sampling::read_completions;
use codelsi_eval::verbatim::longest_shared_run;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::ModelConfig;
use codelsi_train::{TrainOptions, data, metrics};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One experiment: what is trained on what, where it runs, and who judges it.
pub struct Experiment {
    pub recipe: Recipe,
    pub sources: Sources,
    /// Folder of everything that the run makes.
    pub folder: PathBuf,
    pub placement: Placement,
    pub judge: JudgeOptions,
}

/// An experiment under way.
pub struct Stages<'a> {
    pub experiment: &'a Experiment,
    pub out: &'a Output,
    base: Checkpoint,
    pub report: Report,
}

/// A model that is measured.
#[derive(Clone)]
pub enum Trained {
    Base,
    /// Folder of an adapter on the base.
    Adapter(PathBuf),
    /// Folder of a model of its own.
    Model(PathBuf),
}

/// Models that are compared on one set of problems, under one protocol.
pub struct Comparison<'a> {
    /// Name of the set of problems.
    pub name: &'a str,
    pub problems: &'a [Problem],
    pub judge: &'a dyn Judge,
    pub models: &'a [(String, Trained)],
    /// Names of the rows that this run trains on, in which answers are looked up word for word.
    pub rows: &'a [&'a str],
    pub pairs: Pairs,
}

impl<'a> Stages<'a> {
    /// Checks that model, sources and sandbox are there, and writes the recipe.
    ///
    /// # Errors
    /// When the model does not open, a source is missing, the sandbox does not hold, or the folder cannot be written.
    pub fn begin(experiment: &'a Experiment, out: &'a Output) -> Result<Self> {
        let Experiment { recipe, sources, folder, placement, judge } = experiment;
        placement.ranks.in_one_process()?;
        sources.check()?;
        let base = Checkpoint::open(&sources.model)?;
        // A sandbox that does not hold is found before hours of training.
        judge.open(&[])?;
        let text = serde_json::to_string_pretty(&recipe.to_json()).map_err(|e| Error::new(e.to_string()))?;
        write_atomic(folder.join("recipe.json"), text.as_bytes())?;
        Ok(Stages { experiment, out, base, report: Report::default() })
    }

    /// Returns the experiment's recipe.
    pub fn recipe(&self) -> &'a Recipe {
        &self.experiment.recipe
    }

    /// Returns the experiment's sources.
    pub fn sources(&self) -> &'a Sources {
        &self.experiment.sources
    }

    /// Returns the path of a file or folder of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.experiment.folder.join(name)
    }

    /// Returns the path of the rows called `name`.
    pub fn rows(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.jsonl"))
    }

    /// Returns the base's sizes.
    pub fn config(&self) -> &ModelConfig {
        self.base.config()
    }

    /// Curates sources in one language into `NAME.jsonl`; no row repeats a problem that this run measures.
    ///
    /// # Errors
    /// Those of the curation.
    pub fn curate(
        &mut self,
        name: &str,
        paths: &[PathBuf],
        language: Language,
        limits: RowLimits,
    ) -> Result<CurationCounts> {
        let started = Instant::now();
        let against = [&self.sources().problems].into_iter().chain(&self.sources().private_problems);
        let options = CurateOptions {
            paths: paths.to_vec(),
            languages: vec![language],
            against: against.chain(&self.sources().language_problems).cloned().collect(),
            near_duplicate_threshold: self.recipe().resemblance,
            limits,
            ..CurateOptions::default()
        };
        let counts = curate(&options, &self.rows(name), self.out)?;
        eprintln!("curated {name}: {} of {} kept", counts.kept, counts.read);
        self.report.curation.retain(|earlier| earlier.name != name);
        self.report.curation.push(curation(name, &counts));
        self.time(&format!("curate {name}"), started);
        Ok(counts)
    }

    /// Returns the recipe's specialized stage, with the general rows that it sees again.
    pub fn specialized(&self) -> TrainOptions {
        let replay = (self.recipe().specialized.replay_rows > 0).then(|| self.rows("general"));
        TrainOptions { replay, ..self.recipe().specialized.clone() }
    }

    /// Trains a stage called `name` on the rows of `DATA.jsonl`, on top of an adapter or afresh; returns the folder of the
    /// result.
    ///
    /// # Errors
    /// Those of the training.
    pub fn train(
        &mut self,
        name: &str,
        data: &str,
        options: TrainOptions,
        from: Option<&Path>,
    ) -> Result<PathBuf> {
        let started = Instant::now();
        let folder = self.path(name);
        let options = TrainOptions {
            model: self.sources().model.clone(),
            data: self.rows(data),
            out: folder.clone(),
            from: from.map(Path::to_path_buf),
            seq: options.seq.min(self.base.config().max_positions),
            compute: self.experiment.placement.compute(&self.base),
            resume: true,
            ..options
        };
        eprintln!("\n== {name}");
        let trained = train(&options, self.experiment.placement, self.out)?;
        let trained = trained.ok_or_else(|| Error::new("a pipeline is rank 0"))?;
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
        self.report.curves.push(curve(name, &metrics::read(&folder.join("metrics.jsonl"))?));
        self.time(&format!("train {name}"), started);
        Ok(folder)
    }

    /// Measures every model on the general problems, and on those over the private code where there are any.
    ///
    /// # Errors
    /// Those of the evaluation.
    pub fn evaluate_all(&mut self, models: &[(String, Trained)], pairs: Pairs) -> Result<()> {
        let sets = [
            ("general problems", Some(&self.sources().problems)),
            ("private-API problems", self.sources().private_problems.as_ref()),
        ];
        for (name, problems) in sets {
            if let Some(problems) = problems {
                let problems = self.recipe().protocol.problems(problems)?;
                let judge = self.experiment.judge.open(&problems)?;
                let rows = &["general", "specialized"];
                self.evaluate(&Comparison {
                    name,
                    problems: &problems,
                    judge: &*judge,
                    models,
                    rows,
                    pairs,
                })?;
            }
        }
        Ok(())
    }

    /// Measures every model on one set of problems, and how much each repeats of what it was trained on, into the report.
    ///
    /// # Errors
    /// Those of the evaluation.
    pub fn evaluate(&mut self, comparison: &Comparison) -> Result<()> {
        let Comparison { name, problems, judge, models, rows, pairs } = *comparison;
        let started = Instant::now();
        let trained_on = self.trained(rows)?;
        let trained_on: Vec<&str> = trained_on.iter().map(String::as_str).collect();
        let protocol = self.recipe().protocol.protocol(problems, judge);
        eprintln!("\n== {name}\n{protocol}");
        let mut base = self.open(&self.sources().model)?;
        let mut results: Vec<ModelResult> = Vec::new();
        for (model, trained) in models {
            let mut own = None;
            let local = match trained {
                Trained::Base => &mut base,
                Trained::Adapter(folder) => {
                    base.put_on(folder)?;
                    &mut base
                }
                Trained::Model(folder) => own.insert(self.open(folder)?),
            };
            let folder = self.path("evaluation").join(name.replace(' ', "-")).join(model.replace(' ', "-"));
            let mut result = measure(model, local, problems, &protocol, judge, &folder, self.out)?;
            if !matches!(trained, Trained::Base) {
                let written = read_completions(&folder)?;
                let written: Vec<&str> = written.iter().map(String::as_str).collect();
                result.verbatim = Some(longest_shared_run(&written, &trained_on));
            }
            eprintln!("{model}: Pass@1 {:.1} %", 100.0 * result.pass_at_1);
            results.push(result);
        }
        self.report.sets.push(problem_set(name, results, pairs)?);
        self.time(&format!("evaluate {name}"), started);
        Ok(())
    }

    /// Opens a model where this run's models are.
    ///
    /// # Errors
    /// When it does not load or fit.
    pub fn open(&self, model: &Path) -> Result<LocalModel> {
        LocalModel::open(model, self.experiment.placement)
    }

    /// Returns the code of the rows of these names, where there are any.
    fn trained(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut code = Vec::new();
        for name in names {
            let path = self.rows(name);
            let rows = if path.exists() { data::read(path)? } else { Vec::new() };
            code.extend(rows.into_iter().map(|row| row.output));
        }
        Ok(code)
    }

    /// Writes the report and prints the table; `subject` completes the title.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn finish(mut self, subject: &str) -> Result<Report> {
        let Experiment { recipe, sources, folder, judge, .. } = self.experiment;
        let report = &mut self.report;
        report.title = format!("CodeLSI: {subject}");
        report.subtitle = format!(
            "{} on {}, {} parameters",
            recipe.name,
            sources.model.display(),
            self.base.config().parameters()
        );
        report.settings = settings(&recipe.to_json());
        if judge.judge == Some(JudgeKind::Embedded) {
            report.notes.push(
                "The embedded judge strips types and does not check them: its Pass@1 is an upper bound of the tsc judge's."
                    .into(),
            );
        }
        save(report, folder)?;
        println!("\n{}", table::whole(report));
        println!("report: {}", folder.join("report.html").display());
        Ok(self.report)
    }

    fn time(&mut self, name: &str, started: Instant) {
        self.report.timings.push(StageTiming { name: name.into(), seconds: started.elapsed().as_secs_f64() });
    }
}

fn curation(name: &str, counts: &CurationCounts) -> CurationSummary {
    CurationSummary {
        name: name.into(),
        read: counts.read,
        kept: counts.kept,
        dropped: counts.dropped.iter().map(|(reason, n)| (reason.to_string(), *n)).collect(),
    }
}

fn curve(name: &str, metrics: &[metrics::StepMetrics]) -> LossCurve {
    let validation = metrics.iter().filter_map(|m| Some((m.step as f64, m.validation_loss?)));
    LossCurve {
        name: name.into(),
        training: metrics.iter().map(|m| (m.step as f64, m.loss)).collect(),
        validation: validation.collect(),
    }
}

/// Lists a recipe as names and values, nested names joined with a dot.
fn settings(value: &serde_json::Value) -> Vec<(String, String)> {
    let Some(object) = value.as_object() else { return Vec::new() };
    object
        .iter()
        .flat_map(|(name, value)| match value.is_object() {
            true => settings(value).into_iter().map(|(inner, v)| (format!("{name}.{inner}"), v)).collect(),
            false => vec![(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))],
        })
        .collect()
}
