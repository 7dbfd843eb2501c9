//! One optimizer step: micro-batches forward and back, one norm, one update.

use crate::checkpoint::{self, Moments};
use crate::optimizer::{AdamW, Optimizer};
use crate::options::TrainOptions;
use crate::pack::Sequence;
use crate::summed::{Deal, summed};
use codelsi_engine::{At, Comm, Ctx, Device, Error, Grads, Label, Reduce, Result, Tensor};
use codelsi_kernels::xent::Targets;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::{Batch, ForwardOptions, Llama, Train};
use codelsi_model::parallel::Split;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A model in training, with its optimizer.
pub struct Learner<'a> {
    options: &'a TrainOptions,
    device: Device,
    /// To the ranks that run other micro-batches.
    comm: Arc<dyn Comm>,
    model: Llama,
    optimizer: Optimizer,
    /// The gradient that every backward begins with: (1) f32, 1.
    one: Tensor,
}

/// What a step found before it moved anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Mean over the step's labelled tokens.
    pub loss: f64,
    /// Global norm of the gradients, before clipping.
    pub grad_norm: f64,
}

impl<'a> Learner<'a> {
    /// Loads the model as `split` says, to train `adapter` over it or, without one, every weight. Moments are zero.
    pub fn new(
        split: impl Into<Split>,
        options: &'a TrainOptions,
        base: &Checkpoint,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        let split = split.into();
        let (device, comm) = (split.device().clone(), split.across_batches());
        let train = if adapter.is_some() { Train::Adapters } else { Train::Everything };
        let mut model = Llama::load(split, base, options.compute, train)?;
        if let Some(adapter) = adapter {
            model.attach(adapter, train)?;
        }
        let TrainOptions { weight_decay, clip: max_norm, .. } = *options;
        let rule = AdamW { weight_decay, max_norm, ..AdamW::default() };
        let optimizer = Optimizer::new(&device, &model, rule);
        let one = device.tensor(Label::Gradients, [1], &[1.0f32])?;
        Ok(Learner { options, device, comm, model, optimizer, one })
    }

    /// Takes the moments of a checkpoint that was written after `step` steps.
    pub fn restore(&mut self, folder: &Path, step: usize) -> Result<()> {
        self.optimizer.step = step as u32;
        self.optimizer.moments.clear();
        self.optimizer.moments =
            checkpoint::load_moments(self.model.split(), folder, &self.model.trainable())?;
        Ok(())
    }

    /// The model as it stands.
    pub fn model(&self) -> &Llama {
        &self.model
    }

    /// Every trained tensor by its name, whole. All ranks call it.
    ///
    /// # Errors
    /// When a rank is gone, or the device fails.
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>> {
        self.wholes(|_, t| t)
    }

    /// The moments by their parameter's name, whole. All ranks call it.
    ///
    /// # Errors
    /// As [`Learner::weights`].
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>> {
        let m = self.wholes(|i, _| &self.optimizer.moments[i].0)?;
        let mut v = self.wholes(|i, _| &self.optimizer.moments[i].1)?;
        Ok(m.into_iter().filter_map(|(name, m)| v.remove(&name).map(|v| (name, (m, v)))).collect())
    }

    /// The whole of what `of` gives for each trained tensor.
    fn wholes<'t>(
        &'t self,
        of: impl Fn(usize, &'t Tensor) -> &'t Tensor,
    ) -> Result<BTreeMap<String, Tensor>> {
        let trained = self.model.trainable().into_iter().enumerate();
        let wholes = trained.map(|(i, (name, t))| Ok((name.clone(), self.model.whole(&name, of(i, t))?)));
        wholes.collect()
    }

    /// The next step, at learning rate `lr`: all ranks are given all of its micro-batches, and share them.
    ///
    /// The loss is the sum over all micro-batches divided by all their labelled tokens together, so how a step is cut
    /// into micro-batches changes nothing but rounding, and the number of ranks nothing at all. Dropout is keyed by a
    /// token's place in the step.
    ///
    /// # Errors
    /// When loss or gradients are not finite (then no parameter moved, unless the gradients were), when a kernel
    /// refuses, or when another rank is gone.
    pub fn step(&mut self, micro_batches: &[Sequence], lr: f64) -> Result<Found> {
        let t = self.optimizer.step + 1;
        let (grads, loss) = self.gradients(micro_batches, t).at(format!("step {t}"))?;
        let cx = self.inference();
        let squares = self.optimizer.step(&cx, &mut self.model, grads, lr as f32).at(format!("step {t}"))?;
        self.found(&loss, &squares).at(format!("step {t}"))
    }

    /// What came of a step, in its one copy to the host.
    fn found(&self, loss: &Tensor, squares: &Tensor) -> Result<Found> {
        let values = self.read(&[loss, squares])?;
        let found = Found { loss: values[0], grad_norm: values[1].sqrt() };
        for (what, value) in [("loss", found.loss), ("gradient norm", found.grad_norm)] {
            if !value.is_finite() {
                return Err(Error::new(format!("the {what} is {value}; lower --lr, or check the data")));
            }
        }
        Ok(found)
    }

    /// Gradients and loss of step `t`, summed over all micro-batches.
    fn gradients(&self, micro_batches: &[Sequence], t: u32) -> Result<(Grads, Tensor)> {
        let labelled: usize = micro_batches.iter().map(Sequence::labelled).sum();
        let scale = 1.0 / labelled as f32;
        let recompute = self.options.checkpointing.of(self.model.config().layers);
        let options = ForwardOptions { dropout: self.options.dropout, recompute };
        let deal = Deal::new(micro_batches.len(), self.comm.world());
        summed(&self.device, &*self.comm, &self.model.trainable(), deal, |adder| {
            let mine = adder.range();
            let mut first = micro_batches[..mine.start].iter().map(|before| before.tokens.len()).sum();
            for i in mine {
                let cx = self.training(t);
                let (batch, targets) = self.batch(&micro_batches[i], first)?;
                let (loss, _) = self.model.loss(&cx, &batch, &targets, scale, options)?;
                adder.loss(i, &loss)?;
                cx.backward([(&loss, self.one.clone())], &mut |id, gradient| adder.add(i, id, gradient))?;
                self.model.finish_backward(&cx)?;
                first += micro_batches[i].tokens.len();
            }
            let idle = deal.most() - adder.range().len();
            let cx = self.training(t);
            (0..idle).try_for_each(|_| self.model.idle(&cx))
        })
    }

    /// Mean loss over the labelled tokens of `sequences`, without dropout; the ranks share the work.
    pub fn validate(&self, sequences: &[Sequence]) -> Result<f64> {
        let mut losses = vec![0.0f32; sequences.len()];
        let deal = Deal::new(sequences.len(), self.comm.world());
        let mine = deal.range(self.comm.rank());
        let each = |sequence: &Sequence| -> Result<Tensor> {
            let cx = self.inference();
            let (batch, targets) = self.batch(sequence, 0)?;
            Ok(self.model.loss(&cx, &batch, &targets, 1.0, ForwardOptions::default())?.0)
        };
        let found: Vec<Tensor> = sequences[mine.clone()].iter().map(each).collect::<Result<_>>()?;
        let idle = deal.most() - mine.len();
        (0..idle).try_for_each(|_| self.model.idle(&self.inference()))?;
        let found = self.read(&found.iter().collect::<Vec<_>>())?;
        losses[mine].iter_mut().zip(found).for_each(|(loss, found)| *loss = found as f32);
        let mut losses = self.device.tensor(Label::Scratch, [losses.len()], &losses)?;
        // One rank knows a sequence's loss and the others add 0: no rounding, in whatever order.
        self.comm.all_reduce(&mut losses, Reduce::Sum)?;
        let labelled: usize = sequences.iter().map(Sequence::labelled).sum();
        Ok(losses.to_vec::<f32>()?.into_iter().map(f64::from).sum::<f64>() / labelled as f64)
    }

    /// The sequence on the device; its first token is the step's token `first`.
    fn batch(&self, sequence: &Sequence, first: usize) -> Result<(Batch, Targets)> {
        let length = sequence.tokens.len();
        let ids: Vec<i32> = sequence.tokens.iter().map(|&id| id as i32).collect();
        let keys: Vec<i32> = (first..first + length).map(|key| key as i32).collect();
        let batch = Batch::with_keys(&self.device, &sequence.lengths, &ids, &keys)?;
        Ok((batch, Targets::new(&self.device, &sequence.targets)?))
    }

    /// A context of step `t` with a tape.
    fn training(&self, t: u32) -> Ctx {
        Ctx::training(&self.device, self.options.seed, t).with_comm(self.model.split().within_batch())
    }

    /// A context without a tape.
    fn inference(&self) -> Ctx {
        Ctx::inference(&self.device).with_comm(self.model.split().within_batch())
    }

    /// The scalars' values; 0 where nothing is computed.
    fn read(&self, scalars: &[&Tensor]) -> Result<Vec<f64>> {
        if self.device.is_plan() {
            return Ok(vec![0.0; scalars.len()]);
        }
        let values = Tensor::read_scalars(scalars)?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}
