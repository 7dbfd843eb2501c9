//! The training loop: load, plan, step, save, report.

use crate::checkpoint::{self, TrainerState};
use crate::collapse::CollapseWatch;
use crate::data_loader::DataLoader;
use crate::early_stopping::{ValidationProgress, best_folder};
use crate::export::{Weights, write_adapter, write_trained_model};
use crate::flops::step_flops;
use crate::metrics::{MetricsLog, StepMetrics};
use crate::options::{ActivationCheckpointing, TrainOptions};
use crate::pack::PackedSequence;
use crate::plan::{Planner, StepPlan, memory_budget};
use crate::rank_check::check_same_on_all_ranks;
use crate::row_counts::RowCounts;
use crate::run_summary::{RunSummary, render_sample};
use crate::schedule::CosineSchedule;
use crate::train_step::{StepStats, TrainStep};
use codelsi_engine::files::{copy_files, replace_folder};
use codelsi_engine::memory::anonymous_bytes;
use codelsi_engine::{At, Comm, DType, Device, Error, Label, ReduceOp, Result, RunLock, interrupt};
use codelsi_kernels::roof;
use codelsi_model::adapter::{Adapter, AdapterConfig, Method};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::end_tokens::describe_end_tokens;
use codelsi_model::output_folder::copy_tokenizer_files;
use codelsi_model::parallel::{RankLayout, TensorParallelRule};
use codelsi_model::tensor_writer::write_json;
use codelsi_model::tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

/// The progress of a run, passed to its caller.
pub enum TrainEvent<'a> {
    /// The summary, once, before the first step.
    Start(&'a RunSummary),
    /// The validation loss before the first step.
    InitialValidation(f64),
    /// A step was done; with the number of steps of the run.
    Step(&'a StepMetrics, usize),
    /// The run has collapsed: one line with advice, once.
    Collapse(&'a str),
    /// A checkpoint was written.
    CheckpointSaved(&'a Path),
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainReport {
    /// Optimizer steps.
    pub steps: usize,
    /// Tokens processed, prompts included.
    pub tokens: usize,
    /// Training loss of the first step.
    pub first_loss: f64,
    /// Training loss of the last step.
    pub last_loss: f64,
    /// Validation loss before the first step; absent without validation rows.
    pub validation_before: Option<f64>,
    /// Validation loss after the last step; absent without validation rows.
    pub validation_loss: Option<f64>,
    /// Number of trained parameters.
    pub trainable: usize,
    /// Number of all parameters.
    pub total: usize,
    pub tokens_per_s: f64,
    /// Peak memory of this process's device, in bytes.
    pub peak_bytes: usize,
    /// Peak memory according to the plan, in bytes.
    pub planned_bytes: usize,
    /// On the CPU: peak memory of the process that is not backed by a file, in bytes.
    pub anonymous_bytes: Option<usize>,
    /// Counts of the rows, by their fate.
    pub rows: RowCounts,
}

/// Runs training to the end and writes the adapter (or model), `recipe.json`, `order.jsonl`, `metrics.jsonl` and the last
/// checkpoint to `options.out`. The same options and data give the same bits, also when a run is killed and resumed, and for any
/// number of data-parallel ranks. A collective: every rank calls it; rank 0 writes the files. It returns when all ranks
/// are done.
///
/// # Errors
/// When options, model or data are invalid; `out` holds a run and `resume` is off, or its recipe differs, or another
/// process writes to it; a rank is gone, or was given other options or files. When a signal wished for it
/// ([`interrupt`]), after the step and a checkpoint.
pub fn train(
    options: &TrainOptions,
    rank_layout: impl Into<RankLayout>,
    on_event: &mut dyn FnMut(TrainEvent),
) -> Result<TrainReport> {
    let rank_layout = rank_layout.into();
    let (device, comm) = (rank_layout.device(), rank_layout.comm());
    let base = Checkpoint::open(&options.model)?;
    let packing = (!options.full).then(|| options.pack_weights.decide(&base, &rank_layout));
    let base = base.with_packing(packing.is_some_and(|packing| packing.packed));
    options.check(base.config().max_positions)?;
    let writes = comm.rank() == 0;
    let _lock = if writes { Some(RunLock::folder(&options.out)?) } else { None };
    let tokenizer = Tokenizer::load(&options.model)?;
    tokenizer.check_fits(base.config().vocab).at(options.model.display().to_string())?;
    let mut data = DataLoader::open(options, &tokenizer)?;
    let teacher = teacher(options, &base)?;
    let recipe = recipe_of(options, &data, teacher.as_ref())?;
    let resumed = resume_from(options)?;
    let state = match &resumed {
        Some(folder) => checkpoint::load_state(folder)?,
        None => TrainerState::new(recipe.clone()),
    };
    state.check_recipe(&recipe)?;
    data.check_cursor(&state)?;
    let shared = serde_json::to_vec(&(&recipe, &state)).map_err(|e| Error::new(e.to_string()));
    check_same_on_all_ranks(device, &**comm, "recipe or checkpoint", [shared])?;

    let adapter = initial_adapter(options, &base, resumed.as_deref())?;
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
        layout: rank_layout.layout(),
        budget: memory_budget(device, start, comm.world()),
    };
    let memory = plan_for_all_ranks(
        &planner,
        &**comm,
        vec![data.largest_micro_batch(); data.micro_batches_of_a_step()],
    )?;
    memory.ensure_fits(device, options)?;
    let options =
        &TrainOptions { checkpointing: ActivationCheckpointing::Layers(memory.recompute), ..options.clone() };
    let explain = |e| memory.advise_if_out_of_memory(e, options);
    let started = Instant::now();
    let mut train_step = TrainStep::new(rank_layout.clone(), options, start, adapter.as_ref())
        .and_then(|train_step| train_step.with_teacher(teacher.as_ref()))
        .map_err(explain)?;
    let loaded_bytes = device.ledger().usage().at_peak_of(Label::Weights);
    let load_rate = loaded_bytes as f64 / started.elapsed().as_secs_f64() / 1e9;
    if let Some(folder) = &resumed {
        train_step.restore(folder, state.step)?;
    }
    let trainable =
        adapter.as_ref().map_or(base.config().parameters(), |a| a.trained_parameters(options.trainable()));
    let summary = RunSummary {
        sample: render_sample(&tokenizer, &data.training.documents[0]),
        end_tokens: describe_end_tokens(base.config(), &tokenizer),
        trainable,
        total: base.config().parameters() + adapter.as_ref().map_or(0, Adapter::parameters),
        memory: memory.clone(),
        load_gb_per_s: matches!(device, Device::Cuda(_)).then_some(load_rate),
        steps: data.total_steps(),
        completed_steps: state.step,
        rows: data.rows.clone(),
        loss: data.loss_in_words(),
        notes: packing.and_then(|packing| packing.line()).into_iter().chain(data.notes()).collect(),
    };
    on_event(TrainEvent::Start(&summary));
    if writes {
        write_json(options.out.join("recipe.json"), &Value::Object(recipe))?;
        data.write_order(&options.out.join("order.jsonl"))?;
    }
    let log = MetricsLog::open(options.out.join("metrics.jsonl"), state.step, writes)?;
    let validation = data.validation_sequences();
    let comm = &**comm;
    let peak_flops = if writes { measured_peak_flops(device, options.compute)? } else { None };
    device.ledger().reset_peak();
    let collapse = CollapseWatch::new(log.metrics());
    let mut trainer = Trainer {
        options,
        device,
        comm,
        data,
        validation,
        train_step,
        adapter,
        base: &base,
        saved_step: state.step,
        state,
        log,
        collapse,
        peak_flops,
        anonymous_bytes: None,
    };
    let validation_loss = trainer.steps(summary.steps, on_event).map_err(explain)?;
    trainer.export()?;
    comm.barrier()?;
    trainer.report(&summary, validation_loss)
}

/// The recipe of the options with digests of the data and of the teacher, if there is one.
fn recipe_of(
    options: &TrainOptions,
    data: &DataLoader,
    teacher: Option<&Adapter>,
) -> Result<Map<String, Value>> {
    let mut recipe = options.recipe();
    recipe.insert("data_sha256".into(), data.digest().into());
    if let Some(teacher) = teacher {
        recipe.insert("teacher_sha256".into(), digest_of(teacher)?.into());
    }
    Ok(recipe)
}

/// SHA-256 of the tensors of an adapter.
fn digest_of(adapter: &Adapter) -> Result<String> {
    let mut hash = Sha256::new();
    for t in adapter.modules.values().flat_map(|module| module.tensors()).chain(adapter.saved.values()) {
        hash.update(t.to_bytes()?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The checkpoint to resume from, if there is one.
fn resume_from(options: &TrainOptions) -> Result<Option<PathBuf>> {
    let latest = checkpoint::latest(&options.out)?;
    if latest.is_some() && !options.resume {
        return Err(Error::io(&options.out, "holds a run already; resume it or train to another folder"));
    }
    Ok(latest)
}

/// The adapter to train: that of the checkpoint, that of `from`, the mixture of `experts`, or a new one. None in full
/// training.
fn initial_adapter(
    options: &TrainOptions,
    base: &Checkpoint,
    resumed: Option<&Path>,
) -> Result<Option<Adapter>> {
    Ok(match resumed.or(options.from.as_deref()) {
        _ if options.full => None,
        Some(folder) => Some(load_adapter(folder, options, base)?),
        None if !options.experts.is_empty() => Some(mixture(options, base)?),
        None => Some(Adapter::init(base, &options.adapter_settings(), options.seed)?),
    })
}

/// The adapter that soft targets come from, if the run distills: that of `from`, on resume too.
fn teacher(options: &TrainOptions, base: &Checkpoint) -> Result<Option<Adapter>> {
    let folder = options.from.as_deref().filter(|_| options.distill > 0.0);
    folder.map(|folder| load_adapter(folder, options, base)).transpose()
}

/// Reads an adapter of the options' settings.
fn load_adapter(folder: &Path, options: &TrainOptions, base: &Checkpoint) -> Result<Adapter> {
    let mut adapter = Adapter::load(folder, base.config())?;
    check_same_settings(&adapter.config, &options.adapter_settings()).at(folder.display().to_string())?;
    adapter.config.dropout = options.dropout;
    Ok(adapter)
}

/// The mixture of the options' experts.
fn mixture(options: &TrainOptions, base: &Checkpoint) -> Result<Adapter> {
    let load = |folder: &PathBuf| Adapter::load(folder, base.config());
    let experts: Vec<Adapter> = options.experts.iter().map(load).collect::<Result<_>>()?;
    let mixture = Adapter::mixture_of(&experts)?;
    check_same_settings(&mixture.config, &options.adapter_settings()).at("experts")?;
    let config = AdapterConfig { dropout: options.dropout, ..mixture.config };
    Ok(Adapter { config, ..mixture })
}

/// Checks that the options ask for the settings that an adapter has: it goes on as it is.
fn check_same_settings(has: &AdapterConfig, asked: &AdapterConfig) -> Result<()> {
    let linears = |settings: &AdapterConfig| {
        settings.targets.iter().map(|linear| linear.name()).collect::<Vec<_>>().join(",")
    };
    // A bottleneck has neither.
    let scaled = has.method != Method::Bottleneck;
    let also = |settings: &AdapterConfig| {
        Some(settings.modules_to_save.join(",")).filter(|names| !names.is_empty()).unwrap_or("none".into())
    };
    let differing = [
        (has.modules_to_save != asked.modules_to_save, "--also ", also(has), also(asked)),
        (has.method != asked.method, "", has.method.to_string(), asked.method.to_string()),
        (has.rank != asked.rank, "--rank ", has.rank.to_string(), asked.rank.to_string()),
        (scaled && has.alpha != asked.alpha, "--alpha ", has.alpha.to_string(), asked.alpha.to_string()),
        (scaled && has.targets != asked.targets, "--targets ", linears(has), linears(asked)),
    ];
    match differing.into_iter().find(|(differs, ..)| *differs) {
        Some((_, option, has, asked)) => Err(Error::new(format!(
            "holds {option}{has}, which does not go on as {option}{asked}; leave the option out, or train without --from"
        ))),
        None => Ok(()),
    }
}

/// Plans a step of the largest micro-batches before anything is loaded. All ranks recompute as many layers as the rank
/// that has to recompute most.
fn plan_for_all_ranks(
    planner: &Planner,
    comm: &dyn Comm,
    micro_batches: Vec<PackedSequence>,
) -> Result<StepPlan> {
    let options = planner.options;
    let plan = planner.plan_step(&micro_batches)?;
    let mut recompute = planner.device.tensor(Label::Scratch, [1], &[plan.recompute as f32])?;
    comm.all_reduce(&mut recompute, ReduceOp::Max)?;
    let recompute = recompute.to_vec::<f32>()?[0] as usize;
    if recompute == plan.recompute {
        return Ok(plan);
    }
    let options =
        TrainOptions { checkpointing: ActivationCheckpointing::Layers(recompute), ..options.clone() };
    Planner { options: &options, ..*planner }.plan_step(&micro_batches)
}

/// A run in progress.
struct Trainer<'a> {
    options: &'a TrainOptions,
    device: &'a Device,
    comm: &'a dyn Comm,
    data: DataLoader<'a>,
    /// The packed validation rows.
    validation: Vec<PackedSequence>,
    train_step: TrainStep<'a>,
    adapter: Option<Adapter>,
    base: &'a Checkpoint,
    state: TrainerState,
    log: MetricsLog,
    collapse: CollapseWatch,
    /// Measured peak of the device, in FLOP/s.
    peak_flops: Option<f64>,
    /// On the CPU: the highest anonymous memory after a step.
    anonymous_bytes: Option<usize>,
    /// The step of the last checkpoint.
    saved_step: usize,
}

impl Trainer<'_> {
    /// Runs the remaining steps and returns the last validation loss.
    fn steps(&mut self, total_steps: usize, on_event: &mut dyn FnMut(TrainEvent)) -> Result<Option<f64>> {
        if self.state.step == 0 {
            self.state.validation_before = self.validate()?;
            self.state
                .validation_before
                .iter()
                .for_each(|&loss| on_event(TrainEvent::InitialValidation(loss)));
        }
        let schedule = CosineSchedule { lr: self.options.lr, warmup: self.options.warmup, total_steps };
        while self.state.step < total_steps && !self.is_over() {
            self.stop_if_asked(total_steps, on_event)?;
            let mut metric = self.step(&schedule)?;
            let due = |every: usize| metric.step == total_steps || every > 0 && metric.step % every == 0;
            let (validate, save) = (due(self.options.validate_every), due(self.options.save_every));
            if validate || save {
                self.check_update()?;
            }
            if validate {
                metric.validation_loss = self.validate()?;
            }
            self.log.write(&metric)?;
            if validate {
                self.keep_best()?;
            }
            on_event(TrainEvent::Step(&metric, total_steps));
            if let Some(warning) = self.collapse.warning(&metric) {
                on_event(TrainEvent::Collapse(&warning));
            }
            if save {
                self.save(on_event)?;
                self.saved_step = metric.step;
            }
        }
        if self.state.step > self.saved_step {
            self.save(on_event)?;
        }
        Ok(self.validation_loss())
    }

    /// Returns true if the validation loss has not fallen for as long as the run has patience.
    fn is_over(&self) -> bool {
        let Some(patience) = self.options.patience else { return false };
        ValidationProgress::of(self.log.metrics()).is_some_and(|progress| progress.is_over(patience))
    }

    /// With early stopping, writes the weights to `OUT/best` if their validation loss is the lowest so far.
    fn keep_best(&self) -> Result<()> {
        if self.options.patience.is_none() {
            return Ok(());
        }
        let progress = ValidationProgress::of(self.log.metrics());
        if progress.is_none_or(|progress| progress.best_step != self.state.step) {
            return Ok(());
        }
        let weights = self.train_step.weights()?;
        match self.comm.rank() {
            0 => replace_folder(best_folder(&self.options.out), |folder| {
                self.write(folder, &weights, self.base.dtype())
            }),
            _ => Ok(()),
        }
    }

    /// The validation loss of the result: the last one, or with early stopping the lowest.
    fn validation_loss(&self) -> Option<f64> {
        let metrics = self.log.metrics();
        let losses = metrics.iter().filter_map(|metric| metric.validation_loss);
        match self.options.patience {
            Some(_) => losses.min_by(f64::total_cmp),
            None => metrics.last().and_then(|metric| metric.validation_loss),
        }
    }

    /// Saves a checkpoint and returns an error if a signal wished that a rank ends; all ranks do so after the same step.
    fn stop_if_asked(&mut self, total_steps: usize, on_event: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let own = interrupt::requested().unwrap_or(0);
        let signal = match self.comm.world() {
            1 => own,
            _ => {
                let mut any = self.device.tensor(Label::Scratch, [1], &[own as f32])?;
                self.comm.all_reduce(&mut any, ReduceOp::Max)?;
                any.to_vec::<f32>()?[0] as usize
            }
        };
        if signal == 0 {
            return Ok(());
        }
        interrupt::request(signal);
        let step = self.state.step;
        if step == 0 {
            return interrupt::check("no step was done");
        }
        if step > self.saved_step {
            self.save(on_event)?;
        }
        // No rank says that it is saved before it is.
        self.comm.barrier()?;
        interrupt::check(&format!("step {step} of {total_steps} is saved in {}", self.options.out.display()))
    }

    fn step(&mut self, schedule: &CosineSchedule) -> Result<StepMetrics> {
        let started = Instant::now();
        let step = self.state.step + 1;
        let lr = schedule.lr_at(step);
        let micro_batches = self.data.next_step(&mut self.state);
        let comm_seconds = self.comm.seconds();
        let StepStats { loss, grad_norm } =
            self.train_step.run(&micro_batches, lr).map_err(|e| self.explain(e))?;
        let tokens = micro_batches.iter().map(|micro| micro.tokens.len()).sum();
        let seconds = started.elapsed().as_secs_f64();
        self.state.step = step;
        self.state.tokens += tokens;
        self.state.seconds += seconds;
        if matches!(self.device, Device::Cpu(_)) {
            self.anonymous_bytes = self.anonymous_bytes.max(anonymous_bytes());
        }
        let usage = self.device.ledger().usage();
        let flops = step_flops(self.base.config(), &micro_batches, self.options.full);
        let world = self.comm.world() as f64;
        Ok(StepMetrics {
            step,
            loss,
            lr,
            grad_norm,
            tokens,
            tokens_per_s: tokens as f64 / seconds,
            roof_share: self.peak_flops.map(|peak| flops / seconds / world / peak),
            bytes: usage.total(),
            peak_bytes: usage.peak,
            comm_seconds: self.comm.seconds() - comm_seconds,
            validation_loss: None,
        })
    }

    fn validate(&self) -> Result<Option<f64>> {
        if self.validation.is_empty() {
            return Ok(None);
        }
        let loss = self.train_step.validate(&self.validation)?;
        match loss.is_finite() {
            true => Ok(Some(loss)),
            false => {
                let error = Error::new(format!("the validation loss is {loss}; check the rows")).not_finite();
                Err(self.explain(error.at(format!("after step {}", self.state.step))))
            }
        }
    }

    /// Checks that the last update left finite numbers, before they are saved.
    fn check_update(&self) -> Result<()> {
        match self.train_step.first_non_finite()? {
            None => Ok(()),
            Some(tensor) => Err(self.bad_update(&tensor)),
        }
    }

    fn bad_update(&self, tensor: &str) -> Error {
        let advice = match checkpoint::latest(&self.options.out) {
            Ok(Some(folder)) => format!("; {} is the last good checkpoint", folder.display()),
            _ => String::new(),
        };
        let message =
            format!("the update left no finite numbers: {tensor}; lower --lr or --weight-decay{advice}");
        Error::new(message).at(format!("step {}", self.state.step))
    }

    /// Names the tensor that made a number NaN or infinite: one of those being trained, or a weight of the base.
    fn explain(&self, error: Error) -> Error {
        if !error.is_not_finite() {
            return error;
        }
        if let Ok(Some(tensor)) = self.train_step.first_non_finite()
            && self.state.step > 0
        {
            return self.bad_update(&tensor);
        }
        match self.base.first_non_finite() {
            Some(weight) => {
                let what = format!("{weight}; the base model is damaged ({error})");
                Error::io(&self.options.model, what)
            }
            None => error,
        }
    }

    /// Saves a checkpoint: replicated parameters are checked to be equal on all ranks, sharded ones are gathered, and
    /// rank 0 writes.
    fn save(&self, on_event: &mut dyn FnMut(TrainEvent)) -> Result<()> {
        let model = self.train_step.model();
        let mut replicated = model.trainable();
        replicated.retain(|(name, _)| model.rank_layout().rule(name) == TensorParallelRule::Replicated);
        let what = format!("set of parameters after step {}", self.state.step);
        check_same_on_all_ranks(self.device, self.comm, &what, replicated.iter().map(|(_, t)| t.to_bytes()))?;
        let (weights, moments) = (self.train_step.weights()?, self.train_step.moments()?);
        if self.comm.rank() == 0 {
            let write = |folder: &Path| self.write(folder, &weights, DType::F32);
            on_event(TrainEvent::CheckpointSaved(&checkpoint::save(
                &self.options.out,
                &self.state,
                &moments,
                write,
            )?));
        }
        Ok(())
    }

    /// Writes the result to the output folder, in the data type of the base model. Rank 0 writes.
    fn export(&self) -> Result<()> {
        let weights = self.train_step.weights()?;
        if self.comm.rank() > 0 {
            return Ok(());
        }
        match self.options.patience {
            Some(_) => copy_files(&best_folder(&self.options.out), &self.options.out)?,
            None => self.write(&self.options.out, &weights, self.base.dtype())?,
        }
        if self.options.full { copy_tokenizer_files(&self.options.model, &self.options.out) } else { Ok(()) }
    }

    fn write(&self, folder: &Path, weights: &Weights, dtype: DType) -> Result<()> {
        match &self.adapter {
            Some(adapter) => write_adapter(folder, weights, adapter, self.options),
            None => write_trained_model(folder, self.base.config(), weights, dtype),
        }
    }

    fn report(&self, summary: &RunSummary, validation_loss: Option<f64>) -> Result<TrainReport> {
        let metrics = self.log.metrics();
        let (Some(first), Some(last)) = (metrics.first(), metrics.last()) else {
            return Err(Error::io(&self.options.out, "metrics.jsonl lost its lines"));
        };
        Ok(TrainReport {
            steps: self.state.step,
            tokens: self.state.tokens,
            first_loss: first.loss,
            last_loss: last.loss,
            validation_before: self.state.validation_before,
            validation_loss,
            trainable: summary.trainable,
            total: summary.total,
            tokens_per_s: self.state.tokens as f64 / self.state.seconds,
            peak_bytes: self.device.ledger().usage().peak,
            planned_bytes: summary.memory.usage.peak,
            anonymous_bytes: self.anonymous_bytes,
            rows: summary.rows.clone(),
        })
    }
}

/// Measured peak of the device in FLOP/s; a CPU is measured once per process.
fn measured_peak_flops(device: &Device, dtype: DType) -> Result<Option<f64>> {
    static CPU: [OnceLock<Option<f64>>; 2] = [const { OnceLock::new() }; 2];
    match device {
        Device::Cpu(_) => {
            let measure = || roof::flops(device, dtype).ok().flatten();
            Ok(*CPU[(dtype == DType::BF16) as usize].get_or_init(measure))
        }
        _ => roof::flops(device, dtype),
    }
}
