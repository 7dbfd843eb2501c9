//! The whole paper in one page: sources -> instructions -> general LoRA -> specialized LoRA -> Pass@1 -> report.
//!
//! Every stage leaves its result in the run's folder; a run that was cut short takes them up again.

use crate::commands::curate::curate;
use crate::commands::evaluate::{Pairs, measure, set};
use crate::commands::judge::JudgeArgs;
use crate::commands::report::save;
use crate::commands::train::train;
use crate::completer::LocalModel;
use crate::model_args::{ModelArgs, PlaceArgs};
use crate::output::Output;
use crate::ranks::RankArgs;
use crate::recipe::Recipe;
use crate::table;
use codelsi_curate::{Counts, Language, Limits, Options};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_eval::evaluate::ModelResult;
use codelsi_eval::judge::{Judge, Kind};
use codelsi_eval::problem::Problem;
use codelsi_eval::report::{Curation, Curve, Report, Row, Timing};
use codelsi_eval::sampling::completions;
use codelsi_eval::verbatim::longest;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::Config;
use codelsi_train::{TrainOptions, data, metrics};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a run reads.
pub struct Sources {
    pub model: PathBuf,
    pub public: Vec<PathBuf>,
    pub private: Vec<PathBuf>,
    pub problems: PathBuf,
    /// Problems over the private code.
    pub private_problems: Option<PathBuf>,
    /// Problems in other languages, a file each.
    pub language_problems: Vec<PathBuf>,
}

impl Sources {
    /// What is missing is found before hours of training.
    fn check(&self) -> Result<()> {
        let files = [&self.problems].into_iter().chain(&self.private_problems).chain(&self.language_problems);
        let missing = self.public.iter().chain(&self.private).chain(files).find(|path| !path.exists());
        missing.map_or(Ok(()), |path| Err(Error::io(path, "no such file or folder")))
    }
}

/// Runs every stage into `run` and prints the paper's table.
///
/// # Errors
/// Those of the stages, one line each.
pub fn run(
    recipe: &Recipe,
    sources: &Sources,
    run: &Path,
    (place, ranks): (PlaceArgs, RankArgs),
    judge: &JudgeArgs,
    out: &Output,
) -> Result<Report> {
    let mut stages = Stages::begin(recipe, sources, run, (place, ranks), judge, out)?;
    stages.curate("general", &sources.public, Language::TypeScript, Limits::default())?;
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
    stages.report.beside_paper = true;
    stages.finish(&format!("the {} recipe", recipe.name))
}

/// A run under way.
pub struct Stages<'a> {
    pub recipe: &'a Recipe,
    pub judge: &'a JudgeArgs,
    pub run: &'a Path,
    place: PlaceArgs,
    ranks: RankArgs,
    pub out: &'a Output,
    base: Checkpoint,
    pub sources: &'a Sources,
    pub report: Report,
}

/// What is measured.
#[derive(Clone)]
pub enum Trained {
    Base,
    Adapter(PathBuf),
    /// A model of its own.
    Model(PathBuf),
}

impl<'a> Stages<'a> {
    /// Checks what a run needs, and writes its recipe.
    ///
    /// # Errors
    /// When the model does not open, the sandbox does not hold, or the folder cannot be written.
    pub fn begin(
        recipe: &'a Recipe,
        sources: &'a Sources,
        run: &'a Path,
        (place, ranks): (PlaceArgs, RankArgs),
        judge: &'a JudgeArgs,
        out: &'a Output,
    ) -> Result<Self> {
        ranks.in_one_process()?;
        sources.check()?;
        let base = Checkpoint::open(&sources.model)?;
        // A sandbox that does not hold is found before hours of training.
        judge.open(&[])?;
        let text = serde_json::to_string_pretty(&recipe.to_json()).map_err(|e| Error::new(e.to_string()))?;
        write_atomic(run.join("recipe.json"), text.as_bytes())?;
        Ok(Stages { recipe, judge, run, place, ranks, out, base, sources, report: Report::default() })
    }

    /// The base's sizes.
    pub fn config(&self) -> &Config {
        self.base.config()
    }

    /// Sources in one language to `NAME.jsonl`; no row repeats a problem that this run measures.
    ///
    /// # Errors
    /// Those of the curation.
    pub fn curate(
        &mut self,
        name: &str,
        paths: &[PathBuf],
        language: Language,
        limits: Limits,
    ) -> Result<Counts> {
        let started = Instant::now();
        let against = [&self.sources.problems].into_iter().chain(&self.sources.private_problems);
        let options = Options {
            paths: paths.to_vec(),
            languages: vec![language],
            against: against.chain(&self.sources.language_problems).cloned().collect(),
            resemblance: self.recipe.resemblance,
            limits,
            ..Options::default()
        };
        let counts = curate(&options, &self.run.join(format!("{name}.jsonl")), self.out)?;
        eprintln!("curated {name}: {} of {} kept", counts.kept, counts.read);
        self.report.curation.retain(|earlier| earlier.name != name);
        self.report.curation.push(curation(name, &counts));
        self.time(&format!("curate {name}"), started);
        Ok(counts)
    }

    /// The recipe's specialized stage, with the general rows that it sees again.
    pub fn specialized(&self) -> TrainOptions {
        let replay = (self.recipe.specialized.replay_rows > 0).then(|| self.run.join("general.jsonl"));
        TrainOptions { replay, ..self.recipe.specialized.clone() }
    }

    /// One stage called `name` over the rows of `DATA.jsonl`, on top of an adapter or fresh; returns the folder of what
    /// it trained.
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
        let folder = self.run.join(name);
        let options = TrainOptions {
            model: self.sources.model.clone(),
            data: self.run.join(format!("{data}.jsonl")),
            out: folder.clone(),
            from: from.map(Path::to_path_buf),
            seq: options.seq.min(self.base.config().max_positions),
            compute: self.place.compute(&self.base),
            resume: true,
            ..options
        };
        eprintln!("\n== {name}");
        let trained = train(&options, self.place, self.ranks, self.out)?;
        let trained = trained.ok_or_else(|| Error::new("a pipeline is rank 0"))?;
        if self.report.models.is_empty() {
            let total = Some(self.base.config().parameters() as u64);
            self.report.models.push(Row { name: "base".into(), total, ..Row::default() });
        }
        self.report.models.push(Row {
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

    /// Every model on the general problems, and on those over the private code where there are any.
    ///
    /// # Errors
    /// Those of the evaluation.
    pub fn evaluate_all(&mut self, models: &[(String, Trained)], pairs: Pairs) -> Result<()> {
        let sets = [
            ("general problems", Some(&self.sources.problems)),
            ("private-API problems", self.sources.private_problems.as_ref()),
        ];
        for (name, problems) in sets {
            if let Some(problems) = problems {
                let problems = self.recipe.protocol.problems(problems)?;
                let judge = self.judge.open(&problems)?;
                self.evaluate(name, (&problems, &*judge), models, (&["general", "specialized"], pairs))?;
            }
        }
        Ok(())
    }

    /// Every model on one set of problems, under one protocol, into the report. Of `rows`, the names of what this run trains
    /// on, it is looked up what a model has by heart.
    ///
    /// # Errors
    /// Those of the evaluation.
    pub fn evaluate(
        &mut self,
        name: &str,
        (problems, judge): (&[Problem], &dyn Judge),
        models: &[(String, Trained)],
        (rows, pairs): (&[&str], Pairs),
    ) -> Result<()> {
        let started = Instant::now();
        let trained_on = self.trained(rows)?;
        let trained_on: Vec<&str> = trained_on.iter().map(String::as_str).collect();
        let protocol = self.recipe.protocol.protocol(problems, judge);
        eprintln!("\n== {name}\n{protocol}");
        let mut base = self.open(&self.sources.model)?;
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
            let folder =
                self.run.join("evaluation").join(name.replace(' ', "-")).join(model.replace(' ', "-"));
            let mut result = measure(model, local, problems, &protocol, judge, &folder, self.out)?;
            if !matches!(trained, Trained::Base) {
                let written = completions(&folder)?;
                let written: Vec<&str> = written.iter().map(String::as_str).collect();
                result.verbatim = Some(longest(&written, &trained_on));
            }
            eprintln!("{model}: Pass@1 {:.1} %", 100.0 * result.pass_at_1);
            results.push(result);
        }
        self.report.sets.push(set(name, results, pairs)?);
        self.time(&format!("evaluate {name}"), started);
        Ok(())
    }

    /// A model, where this run's models are.
    ///
    /// # Errors
    /// When it does not load or fit.
    pub fn open(&self, model: &Path) -> Result<LocalModel> {
        LocalModel::open(&ModelArgs { model: model.to_owned(), place: self.place }, self.ranks)
    }

    /// The code of the rows of these names, where there are any.
    fn trained(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut code = Vec::new();
        for name in names {
            let path = self.run.join(format!("{name}.jsonl"));
            let rows = if path.exists() { data::read(path)? } else { Vec::new() };
            code.extend(rows.into_iter().map(|row| row.output));
        }
        Ok(code)
    }

    /// Writes the report of `what` and prints the table.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn finish(mut self, what: &str) -> Result<Report> {
        let report = &mut self.report;
        report.title = format!("CodeLSI: {what}");
        report.subtitle = format!(
            "{} on {}, {} parameters",
            self.recipe.name,
            self.sources.model.display(),
            self.base.config().parameters()
        );
        report.settings = settings(&self.recipe.to_json());
        if self.judge.judge == Some(Kind::Embedded) {
            report.notes.push(
                "The embedded judge strips types and does not check them: its Pass@1 is an upper bound of the tsc judge's."
                    .into(),
            );
        }
        save(report, self.run)?;
        println!("\n{}", table::whole(report));
        println!("report: {}", self.run.join("report.html").display());
        Ok(self.report)
    }

    fn time(&mut self, name: &str, started: Instant) {
        self.report.timings.push(Timing { name: name.into(), seconds: started.elapsed().as_secs_f64() });
    }
}

fn curation(name: &str, counts: &Counts) -> Curation {
    Curation {
        name: name.into(),
        read: counts.read,
        kept: counts.kept,
        dropped: counts.dropped.iter().map(|(reason, n)| (reason.to_string(), *n)).collect(),
    }
}

fn curve(name: &str, metrics: &[metrics::Metric]) -> Curve {
    let validation = metrics.iter().filter_map(|m| Some((m.step as f64, m.validation_loss?)));
    Curve {
        name: name.into(),
        training: metrics.iter().map(|m| (m.step as f64, m.loss)).collect(),
        validation: validation.collect(),
    }
}

/// A recipe as name and value, nested names joined with a dot.
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
