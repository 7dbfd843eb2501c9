//! One optimizer step: forward and backward of every micro-batch, one gradient norm, one update.

use crate::checkpoint::{self, Moments};
use crate::grad_reduce::{MicroBatchAssignment, reduce_gradients};
use crate::optimizer::{AdamWConfig, Optimizer};
use crate::options::TrainOptions;
use crate::pack::PackedSequence;
use codelsi_engine::{At, Comm, Ctx, Device, Error, Grads, Label, ReduceOp, Result, Tensor};
use codelsi_kernels::dropout::DropoutRate;
use codelsi_kernels::elementwise::add;
use codelsi_kernels::xent::Targets;
use codelsi_model::adapter::{Adapter, HEAD};
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch};
use codelsi_model::parallel::RankLayout;
use codelsi_model::trainable::Trainable;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A model being trained and its optimizer.
pub struct TrainStep<'a> {
    options: &'a TrainOptions,
    device: Device,
    /// The data-parallel group: the ranks that run other micro-batches.
    comm: Arc<dyn Comm>,
    model: Llama,
    /// The model with the frozen adapter whose distributions are the soft targets, when the run distills.
    teacher: Option<Llama>,
    optimizer: Optimizer,
    /// The gradient of the loss with respect to itself, (1) f32: 1.
    loss_gradient: Tensor,
}

/// A packed sequence on the device.
struct DeviceBatch {
    packed: PackedBatch,
    targets: Targets,
    /// None where no token has one.
    soft_targets: Option<Targets>,
}

/// The loss and gradient norm of a step, measured before its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Mean over the labelled tokens of the step: of cross-entropy, and on distilled tokens of the weighted divergence from
    /// the teacher.
    pub loss: f64,
    /// Global norm of the gradients, before clipping.
    pub grad_norm: f64,
}

impl<'a> TrainStep<'a> {
    /// Loads this rank's part of the model, to train `adapter` on it or, without an adapter, every weight. The
    /// optimizer starts with zero moments.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, or a layout that cannot train this.
    pub fn new(
        rank_layout: impl Into<RankLayout>,
        options: &'a TrainOptions,
        base: &Checkpoint,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        let rank_layout = rank_layout.into();
        let (device, comm) = (rank_layout.device().clone(), rank_layout.data_parallel_comm());
        let train = adapter.map_or(Trainable::AllWeights, |_| options.trainable());
        let mut model = Llama::load(rank_layout, base, options.compute, train)?;
        if let Some(adapter) = adapter {
            model.attach(adapter, train)?;
        }
        let TrainOptions { weight_decay, clip: max_norm, .. } = *options;
        let adamw = AdamWConfig { weight_decay, max_norm, ..AdamWConfig::default() };
        let optimizer = Optimizer::new(&device, &model, adamw);
        let loss_gradient = device.tensor(Label::Gradients, [1], &[1.0f32])?;
        Ok(TrainStep { options, device, comm, model, teacher: None, optimizer, loss_gradient })
    }

    /// Sets the adapter that soft targets come from, or none. Its model shares the weights of the one being trained.
    ///
    /// # Errors
    /// A layout that cannot distill, or no memory left for the adapter.
    pub fn with_teacher(mut self, adapter: Option<&Adapter>) -> Result<Self> {
        if let Some(adapter) = adapter {
            self.model.check_divergence()?;
            if adapter.saved.contains_key(HEAD) {
                return Err(Error::new(
                    "distillation needs a head that is frozen, and that of the adapter is not: leave out --distill",
                ));
            }
        }
        self.teacher = adapter.map(|adapter| self.model.with_frozen_adapter(adapter)).transpose()?;
        Ok(self)
    }

    /// Loads the optimizer moments of a checkpoint that was written after `step` steps.
    ///
    /// # Errors
    /// Moments that cannot be read or do not fit the model.
    pub fn restore(&mut self, folder: &Path, step: usize) -> Result<()> {
        self.optimizer.step = step as u32;
        self.optimizer.moments.clear();
        self.optimizer.moments =
            checkpoint::load_moments(self.model.rank_layout(), folder, &self.model.trainable())?;
        Ok(())
    }

    /// The model with its current weights.
    pub fn model(&self) -> &Llama {
        &self.model
    }

    /// Every trained tensor by name, gathered from the ranks that hold its slices. A collective: every rank calls it.
    ///
    /// # Errors
    /// When a rank is gone, or the device fails.
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>> {
        self.gather_all(|_, t| t)
    }

    /// The first and second moments by parameter name, gathered likewise. A collective: every rank calls it.
    ///
    /// # Errors
    /// As [`TrainStep::weights`].
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>> {
        let m = self.gather_all(|i, _| &self.optimizer.moments[i].0)?;
        let mut v = self.gather_all(|i, _| &self.optimizer.moments[i].1)?;
        Ok(m.into_iter().filter_map(|(name, m)| v.remove(&name).map(|v| (name, (m, v)))).collect())
    }

    /// Gathers the unsharded form of `select(i, tensor)` for every trained tensor.
    fn gather_all<'t>(
        &'t self,
        select: impl Fn(usize, &'t Tensor) -> &'t Tensor,
    ) -> Result<BTreeMap<String, Tensor>> {
        let trained = self.model.trainable().into_iter().enumerate();
        let gathered =
            trained.map(|(i, (name, t))| Ok((name.clone(), self.model.gather_full(&name, select(i, t))?)));
        gathered.collect()
    }

    /// Describes the first of this rank's trained tensors and moments that holds NaN or infinity, if there is one. Reads
    /// them all.
    ///
    /// # Errors
    /// When the device fails.
    pub fn first_non_finite(&self) -> Result<Option<String>> {
        for ((name, t), (m, v)) in self.model.trainable().iter().zip(&self.optimizer.moments) {
            for (what, t) in [("", *t), (", first moment", m), (", second moment", v)] {
                if let Some(value) = t.to_vec::<f32>()?.into_iter().find(|value| !value.is_finite()) {
                    return Ok(Some(format!("`{name}`{what} holds {value}")));
                }
            }
        }
        Ok(None)
    }

    /// Runs the next step at learning rate `lr`. Every rank passes all micro-batches of the step and runs its share.
    ///
    /// The loss is the sum over all micro-batches divided by the number of labelled tokens in the whole step. So the
    /// division into micro-batches changes rounding only, and the number of ranks changes no bit. Dropout is keyed by a
    /// token's index in the step.
    ///
    /// # Errors
    /// When the loss or the gradient norm is not finite (with a finite gradient norm the update has been made), when a
    /// kernel refuses its input, or when another rank is gone.
    pub fn run(&mut self, micro_batches: &[PackedSequence], lr: f64) -> Result<StepStats> {
        let t = self.optimizer.step + 1;
        let (grads, loss) = self.gradients(micro_batches, t).at(format!("step {t}"))?;
        let cx = self.inference();
        let squares = self.optimizer.step(&cx, &mut self.model, grads, lr as f32).at(format!("step {t}"))?;
        self.read_stats(&loss, &squares).at(format!("step {t}"))
    }

    /// Reads the results of a step, in its only copy to the host.
    fn read_stats(&self, loss: &Tensor, squares: &Tensor) -> Result<StepStats> {
        let values = self.read(&[loss, squares])?;
        let stats = StepStats { loss: values[0], grad_norm: values[1].sqrt() };
        for (what, value) in [("loss", stats.loss), ("gradient norm", stats.grad_norm)] {
            if !value.is_finite() {
                let message = format!("the {what} is {value}; lower --lr, or check the data");
                return Err(Error::new(message).not_finite());
            }
        }
        Ok(stats)
    }

    /// The gradients and the loss of step `t`, summed over all micro-batches of all ranks.
    fn gradients(&self, micro_batches: &[PackedSequence], t: u32) -> Result<(Grads, Tensor)> {
        let labelled: usize = micro_batches.iter().map(PackedSequence::labelled).sum();
        let scale = 1.0 / labelled as f32;
        let recompute = self.options.checkpointing.recomputed_layers(self.model.config().layers);
        let dropout = DropoutRate::new(self.options.dropout)?;
        let options = ForwardOptions { dropout, recompute_layers: recompute };
        let assignment = MicroBatchAssignment::new(micro_batches.len(), self.comm.world());
        // The ranks run their first micro-batches at the same time, their second ones, and so on.
        let distills = |round: usize| {
            let at_round = |rank| micro_batches[assignment.range(rank)].get(round);
            (0..self.comm.world()).filter_map(at_round).any(|sequence| sequence.distilled() > 0)
        };
        reduce_gradients(&self.device, &*self.comm, &self.model.trainable(), assignment, |reducer| {
            let range = reducer.range();
            let mut first_token = micro_batches[..range.start].iter().map(|before| before.tokens.len()).sum();
            for (round, i) in range.enumerate() {
                let cx = self.training(t);
                let batch = self.batch(&micro_batches[i], first_token)?;
                let taught = self.taught(&batch, distills(round))?;
                let loss = self.loss(&cx, &batch, taught, scale, options)?;
                reducer.add_loss(i, &loss)?;
                let add = &mut |id, gradient| reducer.add_gradient(i, id, gradient);
                cx.backward([(&loss, self.loss_gradient.clone())], add)?;
                self.model.finish_backward()?;
                first_token += micro_batches[i].tokens.len();
            }
            // Gathers of sharded weights need every rank, so a rank without a micro-batch joins them.
            let cx = self.training(t);
            (reducer.range().len()..assignment.max_per_rank()).try_for_each(|round| {
                if distills(round) {
                    self.model.join_hidden_gathers()?;
                }
                self.model.join_gathers(&cx)
            })
        })
    }

    /// The teacher's hidden states (T, C) of a batch that has soft targets. Where `any_rank` has such a batch now, the
    /// others join its gathers.
    fn taught(&self, batch: &DeviceBatch, any_rank: bool) -> Result<Option<Tensor>> {
        match (&batch.soft_targets, &self.teacher) {
            (Some(_), Some(teacher)) => {
                let hidden = teacher.hidden(&self.inference(), &batch.packed, ForwardOptions::default());
                hidden.at("teacher").map(Some)
            }
            (Some(_), None) => Err(Error::new("soft targets need a teacher")),
            (None, _) if any_rank => self.model.join_hidden_gathers().map(|()| None),
            (None, _) => Ok(None),
        }
    }

    /// The loss (1) of a batch: `scale` times the sum of cross-entropy over tokens with targets, and of the weighted
    /// divergence from `taught`, the teacher's hidden states, over those with soft targets.
    fn loss(
        &self,
        cx: &Ctx,
        batch: &DeviceBatch,
        taught: Option<Tensor>,
        scale: f32,
        options: ForwardOptions,
    ) -> Result<Tensor> {
        let hidden = self.model.hidden(cx, &batch.packed, options)?;
        let cross_entropy = || Ok(self.model.cross_entropy(cx, &hidden, &batch.targets, scale)?.0);
        let (Some(soft_targets), Some(taught)) = (&batch.soft_targets, &taught) else {
            return cross_entropy();
        };
        let scale = scale * self.options.distill as f32;
        let (divergence, _) = self.model.divergence(cx, [&hidden, taught], soft_targets, scale)?;
        match batch.targets.labelled() {
            0 => Ok(divergence),
            _ => add(cx, &cross_entropy()?, &divergence),
        }
    }

    /// The mean loss over the labelled tokens of `sequences`, without dropout. The ranks share the work.
    ///
    /// # Errors
    /// When a kernel refuses its input, or another rank is gone.
    pub fn validate(&self, sequences: &[PackedSequence]) -> Result<f64> {
        let mut losses = vec![0.0f32; sequences.len()];
        let assignment = MicroBatchAssignment::new(sequences.len(), self.comm.world());
        let range = assignment.range(self.comm.rank());
        let loss = |sequence: &PackedSequence| -> Result<Tensor> {
            let cx = self.inference();
            let DeviceBatch { packed, targets, .. } = self.batch(sequence, 0)?;
            Ok(self.model.loss(&cx, &packed, &targets, 1.0, ForwardOptions::default())?.0)
        };
        let own: Vec<Tensor> = sequences[range.clone()].iter().map(loss).collect::<Result<_>>()?;
        let idle = assignment.max_per_rank() - range.len();
        (0..idle).try_for_each(|_| self.model.join_gathers(&self.inference()))?;
        let own = self.read(&own.iter().collect::<Vec<_>>())?;
        losses[range].iter_mut().zip(own).for_each(|(loss, own)| *loss = own as f32);
        let mut losses = self.device.tensor(Label::Scratch, [losses.len()], &losses)?;
        // One rank has a sequence's loss and the others add 0, so the sum does not round in any order.
        self.comm.all_reduce(&mut losses, ReduceOp::Sum)?;
        let labelled: usize = sequences.iter().map(PackedSequence::labelled).sum();
        Ok(losses.to_vec::<f32>()?.into_iter().map(f64::from).sum::<f64>() / labelled as f64)
    }

    /// Copies a sequence to the device. `first_token` is the index of its first token in the step.
    fn batch(&self, sequence: &PackedSequence, first_token: usize) -> Result<DeviceBatch> {
        let length = sequence.tokens.len();
        let ids: Vec<i32> = sequence.tokens.iter().map(|&id| id as i32).collect();
        let keys: Vec<i32> = (first_token..first_token + length).map(|key| key as i32).collect();
        let distilled = sequence.distilled() > 0;
        Ok(DeviceBatch {
            packed: PackedBatch::with_dropout_keys(&self.device, &sequence.lengths, &ids, &keys)?,
            targets: Targets::new(&self.device, &sequence.targets)?,
            soft_targets: distilled
                .then(|| Targets::new(&self.device, &sequence.soft_targets))
                .transpose()?,
        })
    }

    /// A context with a tape, for step `t`.
    fn training(&self, t: u32) -> Ctx {
        Ctx::training(&self.device, self.options.seed, t)
            .with_comm(self.model.rank_layout().tensor_parallel_comm())
    }

    /// A context without a tape.
    fn inference(&self) -> Ctx {
        Ctx::inference(&self.device).with_comm(self.model.rank_layout().tensor_parallel_comm())
    }

    /// The values of the scalars; 0 on a planning device, which computes nothing.
    fn read(&self, scalars: &[&Tensor]) -> Result<Vec<f64>> {
        if self.device.is_plan() {
            return Ok(vec![0.0; scalars.len()]);
        }
        let values = Tensor::read_scalars(scalars)?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}
