//! The training run: load, plan, step, save, report.

use crate::checkpoint::{self, State};
use crate::feed::Feed;
use crate::learner::{Found, Learner};
use crate::metrics::{Log, Metric};
use crate::options::{Checkpointing, TrainOptions};
use crate::overview::{Overview, sample};
use crate::pack::Sequence;
use crate::plan::{Planner, StepPlan, budget};
use crate::ranks::agree;
use crate::schedule::Cosine;
use crate::weights::{Weights, copy_tokenizer, write_adapter, write_weights};
use crate::work::step_flops;
use codelsi_engine::memory::anonymous_bytes;
use codelsi_engine::{At, Comm, DType, Device, Error, Label, Reduce, Result};
use codelsi_kernels::roof;
use codelsi_model::adapter::{Adapter, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::parallel::{Cut, Split};
use codelsi_model::tensor_writer::write_json;
use codelsi_model::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

/// What a run tells while it goes on.
pub enum Event<'a> {
    /// Once, before the first step.
    Start(&'a Overview),
    /// The validation loss before the first step.
    Before(f64),
    /// After each step, with the number of steps planned.
    Step(&'a Metric, usize),
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub steps: usize,
    /// Prompts included.
    pub tokens: usize,
    pub first_loss: f64,
    pub last_loss: f64,
    /// Absent without validation rows.
    pub validation_before: Option<f64>,
    pub validation_loss: Option<f64>,
    /// Parameters that are trained, and all there are.
    pub trainable: usize,
    pub total: usize,
    pub tokens_per_s: f64,
    /// The highest total of this process's device, and what the plan said.
    pub peak_bytes: usize,
    pub planned_bytes: usize,
    /// On the CPU: the most memory of the process that no file backs.
    pub anonymous_bytes: Option<usize>,
}

/// Trains as `options` say and leaves the adapter (or model), `recipe.json`, `metrics.jsonl` and the last checkpoint
/// in `options.out`. The same options and data give the same bits, also over a kill and a resume and for any number of
/// ranks. Every rank calls this; rank 0 alone writes, and it returns when all are done.
///
/// # Errors
/// Bad options, model or data; a run already in `out` without `resume`, or one of another recipe; ranks that are gone or
/// that were not given the same.
pub fn train(options: &TrainOptions, split: impl Into<Split>, tell: &mut dyn FnMut(Event)) -> Result<Report> {
    let split = split.into();
    let (device, comm) = (split.device(), split.comm());
    let base = Checkpoint::open(&options.model)?;
    options.check(base.config().max_positions)?;
    let tokenizer = Tokenizer::load(&options.model)?;
    tokenizer.check_fits(base.config().vocab).at(options.model.display().to_string())?;
    let mut feed = Feed::open(options, &tokenizer)?;
    let recipe = recipe(options, &feed);
    let resumed = resumed(options)?;
    let state = match &resumed {
        Some(folder) => checkpoint::load_state(folder)?,
        None => State::new(recipe.clone()),
    };
    state.check(&recipe)?;
    let common = serde_json::to_vec(&(&recipe, &state)).map_err(|e| Error::new(e.to_string()));
    agree(device, &**comm, "recipe or checkpoint", [common])?;

    let adapter = adapter(options, &base, resumed.as_deref())?;
    let start = match &resumed {
        Some(folder) if options.full => &Checkpoint::open(folder)?,
        _ => &base,
    };
    let planner = Planner {
        device,
        options,
        base: start,
        adapter: adapter.as_ref(),
        rank: comm.rank(),
        world: comm.world(),
        layout: split.layout(),
        budget: budget(device, start, comm.world()),
    };
    let memory = plan(&planner, &**comm, feed.largest())?;
    memory.check(device, options)?;
    let options = &TrainOptions { checkpointing: Checkpointing::Layers(memory.recompute), ..options.clone() };
    let explain = |e| memory.explain(e, options);
    let started = Instant::now();
    let mut learner = Learner::new(split.clone(), options, start, adapter.as_ref()).map_err(explain)?;
    let loaded = device.ledger().usage().of(Label::Weights);
    let load = loaded as f64 / started.elapsed().as_secs_f64() / 1e9;
    if let Some(folder) = &resumed {
        learner.restore(folder, state.step)?;
    }
    let trained = adapter.as_ref().map_or(base.config().parameters(), Adapter::parameters);
    let overview = Overview {
        sample: sample(&tokenizer, &feed.training.documents[0]),
        trainable: trained,
        total: base.config().parameters() + adapter.as_ref().map_or(0, Adapter::parameters),
        memory: memory.clone(),
        load_gb_per_s: matches!(device, Device::Cuda(_)).then_some(load),
        steps: feed.planned(),
        done: state.step,
        rows: [&feed.training, &feed.validation].map(|rows| rows.documents.len()),
        truncated: feed.training.truncated + feed.validation.truncated,
        dropped: feed.training.dropped + feed.validation.dropped,
    };
    tell(Event::Start(&overview));
    let writes = comm.rank() == 0;
    if writes {
        write_json(options.out.join("recipe.json"), &Value::Object(recipe))?;
    }
    let log = Log::open(options.out.join("metrics.jsonl"), state.step, writes)?;
    let held = feed.validation();
    let comm = &**comm;
    let roof = if writes { roof(device, options.compute)? } else { None };
    device.ledger().reset_peak();
    let anonymous = None;
    let mut run =
        Run { options, device, comm, feed, held, learner, adapter, base: &base, state, log, roof, anonymous };
    let validation_loss = run.steps(overview.steps, tell).map_err(explain)?;
    run.export()?;
    comm.barrier()?;
    run.report(&overview, validation_loss)
}

/// The options, and what the data is.
fn recipe(options: &TrainOptions, feed: &Feed) -> Map<String, Value> {
    let mut recipe = options.recipe();
    recipe.insert("data_sha256".into(), feed.digest().into());
    recipe
}

/// The checkpoint to go on from.
fn resumed(options: &TrainOptions) -> Result<Option<PathBuf>> {
    let latest = checkpoint::latest(&options.out)?;
    match latest.filter(|_| !options.resume) {
        Some(_) => Err(Error::io(&options.out, "holds a run already; resume it or train to another folder")),
        None => checkpoint::latest(&options.out),
    }
}

/// The adapter to train: that of the checkpoint, of `from`, or a fresh one. None in full training.
fn adapter(options: &TrainOptions, base: &Checkpoint, resumed: Option<&Path>) -> Result<Option<Adapter>> {
    let method = options.method;
    Ok(match resumed.or(options.from.as_deref()) {
        _ if options.full => None,
        Some(folder) => {
            let mut adapter = Adapter::load(folder, base.config())?;
            if ![Method::LORA, adapter.settings.method].contains(&method) {
                let message = format!("holds {}, which does not go on as {method}", adapter.settings.method);
                return Err(Error::io(folder, message));
            }
            adapter.settings.dropout = options.dropout;
            Some(adapter)
        }
        None => Some(Adapter::begun(base, &options.adapter(), options.seed)?),
    })
}

/// Plans a step of the largest micro-batches before anything is loaded, and settles what is recomputed: the same on
/// every rank.
fn plan(planner: &Planner, comm: &dyn Comm, largest: Sequence) -> Result<StepPlan> {
    let options = planner.options;
    let micro_batches = vec![largest; options.batch.div_ceil(options.micro_batch)];
    let plan = planner.step(&micro_batches)?;
    let mut most = planner.device.tensor(Label::Scratch, [1], &[plan.recompute as f32])?;
    comm.all_reduce(&mut most, Reduce::Max)?;
    match most.to_vec::<f32>()?[0] as usize {
        most if most == plan.recompute => Ok(plan),
        most => {
            let options = TrainOptions { checkpointing: Checkpointing::Layers(most), ..options.clone() };
            Planner { options: &options, ..*planner }.step(&micro_batches)
        }
    }
}

/// A run under way.
struct Run<'a> {
    options: &'a TrainOptions,
    device: &'a Device,
    comm: &'a dyn Comm,
    feed: Feed<'a>,
    /// Validation rows, packed.
    held: Vec<Sequence>,
    learner: Learner<'a>,
    adapter: Option<Adapter>,
    base: &'a Checkpoint,
    state: State,
    log: Log,
    /// Flops a second that the device can do.
    roof: Option<f64>,
    /// The most anonymous memory seen after a step, on the CPU.
    anonymous: Option<usize>,
}

impl Run<'_> {
    /// Every step that is left; returns the last validation loss.
    fn steps(&mut self, planned: usize, tell: &mut dyn FnMut(Event)) -> Result<Option<f64>> {
        if self.state.step == 0 {
            self.state.validation_before = self.validate()?;
            self.state.validation_before.iter().for_each(|&loss| tell(Event::Before(loss)));
        }
        let schedule = Cosine { lr: self.options.lr, warmup: self.options.warmup, planned };
        while self.state.step < planned {
            let mut metric = self.step(&schedule)?;
            let due = |every: usize| metric.step == planned || every > 0 && metric.step % every == 0;
            let (validate, save) = (due(self.options.validate_every), due(self.options.save_every));
            if validate {
                metric.validation_loss = self.validate()?;
            }
            self.log.write(&metric)?;
            tell(Event::Step(&metric, planned));
            if save {
                self.save(tell)?;
            }
        }
        Ok(self.log.metrics().last().and_then(|metric| metric.validation_loss))
    }

    fn step(&mut self, schedule: &Cosine) -> Result<Metric> {
        let started = Instant::now();
        let step = self.state.step + 1;
        let lr = schedule.at(step);
        let micro_batches = self.feed.next(&mut self.state);
        let exchanging = self.comm.seconds();
        let Found { loss, grad_norm } = self.learner.step(&micro_batches, lr)?;
        let tokens = micro_batches.iter().map(|micro| micro.tokens.len()).sum();
        let seconds = started.elapsed().as_secs_f64();
        self.state.step = step;
        self.state.tokens += tokens;
        self.state.seconds += seconds;
        if matches!(self.device, Device::Cpu(_)) {
            self.anonymous = self.anonymous.max(anonymous_bytes());
        }
        let usage = self.device.ledger().usage();
        let flops = step_flops(self.base.config(), &micro_batches, self.options.full);
        let world = self.comm.world() as f64;
        Ok(Metric {
            step,
            loss,
            lr,
            grad_norm,
            tokens,
            tokens_per_s: tokens as f64 / seconds,
            roof_share: self.roof.map(|roof| flops / seconds / world / roof),
            bytes: usage.total(),
            peak_bytes: usage.peak,
            comm_seconds: self.comm.seconds() - exchanging,
            validation_loss: None,
        })
    }

    fn validate(&self) -> Result<Option<f64>> {
        (!self.held.is_empty()).then(|| self.learner.validate(&self.held)).transpose()
    }

    /// Rank 0 writes what all ranks have, a copy or a part each.
    fn save(&self, tell: &mut dyn FnMut(Event)) -> Result<()> {
        let model = self.learner.model();
        let mut copied = model.trainable();
        copied.retain(|(name, _)| model.split().cut(name) == Cut::Whole);
        let what = format!("set of parameters after step {}", self.state.step);
        agree(self.device, self.comm, &what, copied.iter().map(|(_, t)| t.to_bytes()))?;
        let (weights, moments) = (self.learner.weights()?, self.learner.moments()?);
        if self.comm.rank() == 0 {
            let write = |folder: &Path| self.write(folder, &weights, DType::F32);
            tell(Event::Saved(&checkpoint::save(&self.options.out, &self.state, &moments, write)?));
        }
        Ok(())
    }

    /// The result in its place, as the base stores its weights. Rank 0 writes it.
    fn export(&self) -> Result<()> {
        let weights = self.learner.weights()?;
        if self.comm.rank() > 0 {
            return Ok(());
        }
        self.write(&self.options.out, &weights, self.base.dtype())?;
        if self.options.full { copy_tokenizer(&self.options.model, &self.options.out) } else { Ok(()) }
    }

    fn write(&self, folder: &Path, weights: &Weights, dtype: DType) -> Result<()> {
        match &self.adapter {
            Some(adapter) => write_adapter(folder, weights, adapter, &self.options.model),
            None => write_weights(folder, self.base.config(), weights, dtype),
        }
    }

    fn report(&self, overview: &Overview, validation_loss: Option<f64>) -> Result<Report> {
        let metrics = self.log.metrics();
        let (Some(first), Some(last)) = (metrics.first(), metrics.last()) else {
            return Err(Error::io(&self.options.out, "metrics.jsonl lost its lines"));
        };
        Ok(Report {
            steps: self.state.step,
            tokens: self.state.tokens,
            first_loss: first.loss,
            last_loss: last.loss,
            validation_before: self.state.validation_before,
            validation_loss,
            trainable: overview.trainable,
            total: overview.total,
            tokens_per_s: self.state.tokens as f64 / self.state.seconds,
            peak_bytes: self.device.ledger().usage().peak,
            planned_bytes: overview.memory.usage.peak,
            anonymous_bytes: self.anonymous,
        })
    }
}

/// Flops a second that the device can do; a CPU is measured once a process.
fn roof(device: &Device, dtype: DType) -> Result<Option<f64>> {
    static CPU: [OnceLock<Option<f64>>; 2] = [const { OnceLock::new() }; 2];
    match device {
        Device::Cpu(_) => {
            let measure = || roof::flops(device, dtype).ok().flatten();
            Ok(*CPU[(dtype == DType::BF16) as usize].get_or_init(measure))
        }
        _ => roof::flops(device, dtype),
    }
}
