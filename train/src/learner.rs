//! One optimizer step: micro-batches forward and back, one norm, one update.

use crate::checkpoint::{self, Moments};
use crate::optimizer::{AdamW, Optimizer};
use crate::options::TrainOptions;
use crate::pack::Sequence;
use codelsi_engine::{At, Ctx, Device, Error, Grads, Label, Result, Tensor};
use codelsi_kernels::xent::Targets;
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::{Batch, ForwardOptions, Llama, Train};
use std::collections::BTreeMap;
use std::path::Path;

/// A model in training, with its optimizer.
pub struct Learner<'a> {
    options: &'a TrainOptions,
    device: Device,
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
    /// Loads the model onto `device` to train `adapter` over it or, without one, every weight. Moments are zero.
    pub fn new(
        device: &Device,
        options: &'a TrainOptions,
        base: &Checkpoint,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        let train = if adapter.is_some() { Train::Adapters } else { Train::Everything };
        let mut model = Llama::load(device, base, options.compute, train)?;
        if let Some(adapter) = adapter {
            model.attach(device, adapter, train)?;
        }
        let TrainOptions { weight_decay, clip: max_norm, .. } = *options;
        let rule = AdamW { weight_decay, max_norm, ..AdamW::default() };
        let optimizer = Optimizer::new(device, &model, rule);
        let one = device.tensor(Label::Gradients, [1], &[1.0f32])?;
        Ok(Learner { options, device: device.clone(), model, optimizer, one })
    }

    /// Takes the moments of a checkpoint that was written after `step` steps.
    pub fn restore(&mut self, folder: &Path, step: usize) -> Result<()> {
        self.optimizer.step = step as u32;
        self.optimizer.moments.clear();
        self.optimizer.moments = checkpoint::load_moments(&self.device, folder, &self.model.trainable())?;
        Ok(())
    }

    /// The model as it stands.
    pub fn model(&self) -> &Llama {
        &self.model
    }

    /// The moments by their parameter's name.
    pub fn moments(&self) -> BTreeMap<String, &Moments> {
        self.model.trainable().into_iter().map(|(name, _)| name).zip(&self.optimizer.moments).collect()
    }

    /// The next step, at learning rate `lr`.
    ///
    /// The loss is the sum over all micro-batches divided by all their labelled tokens together, so how a step is cut
    /// into micro-batches changes nothing but rounding. Dropout is keyed by a token's place in the step.
    ///
    /// # Errors
    /// When loss or gradients are not finite (then no parameter moved, unless the gradients were), or when a kernel
    /// refuses.
    pub fn step(&mut self, micro_batches: &[Sequence], lr: f64) -> Result<Found> {
        let t = self.optimizer.step + 1;
        let labelled: usize = micro_batches.iter().map(Sequence::labelled).sum();
        let scale = 1.0 / labelled as f32;
        let options =
            ForwardOptions { dropout: self.options.dropout, checkpoint: self.options.checkpointing };
        let (mut grads, mut losses, mut first) = (Grads::default(), Vec::new(), 0);
        for sequence in micro_batches {
            let cx = Ctx::training(&self.device, self.options.seed, t);
            let (batch, targets) = self.batch(sequence, first)?;
            let (part, _) = self.model.loss(&cx, &batch, &targets, scale, options)?;
            cx.backward(&part, self.one.clone(), &mut grads)?;
            losses.push(part.detach());
            first += sequence.tokens.len();
        }
        let cx = Ctx::inference(&self.device);
        let squares = self.optimizer.step(&cx, &mut self.model, grads, lr as f32).at(format!("step {t}"))?;
        losses.push(squares);
        self.found(&losses).at(format!("step {t}"))
    }

    /// What came of a step, in the one copy to the host: the micro-batches' losses, then the squared gradient norm.
    fn found(&self, scalars: &[Tensor]) -> Result<Found> {
        let mut values = self.read(scalars)?;
        let grad_norm = values.pop().unwrap_or(0.0).sqrt();
        let loss = values.iter().sum::<f64>();
        for (what, value) in [("loss", loss), ("gradient norm", grad_norm)] {
            if !value.is_finite() {
                return Err(Error::new(format!("the {what} is {value}; lower --lr, or check the data")));
            }
        }
        Ok(Found { loss, grad_norm })
    }

    /// Mean loss over the labelled tokens of `sequences`, without dropout.
    pub fn validate(&self, sequences: &[Sequence]) -> Result<f64> {
        let (mut losses, mut labelled) = (Vec::new(), 0);
        for sequence in sequences {
            let cx = Ctx::inference(&self.device);
            let (batch, targets) = self.batch(sequence, 0)?;
            let (part, _) = self.model.loss(&cx, &batch, &targets, 1.0, ForwardOptions::default())?;
            losses.push(part);
            labelled += sequence.labelled();
        }
        Ok(self.read(&losses)?.iter().sum::<f64>() / labelled as f64)
    }

    /// The sequence on the device; its first token is the step's token `first`.
    fn batch(&self, sequence: &Sequence, first: usize) -> Result<(Batch, Targets)> {
        let length = sequence.tokens.len();
        let ids: Vec<i32> = sequence.tokens.iter().map(|&id| id as i32).collect();
        let keys: Vec<i32> = (first..first + length).map(|key| key as i32).collect();
        let batch = Batch::with_keys(&self.device, &sequence.lengths, &ids, &keys)?;
        Ok((batch, Targets::new(&self.device, &sequence.targets)?))
    }

    /// The scalars' values; 0 where nothing is computed.
    fn read(&self, scalars: &[Tensor]) -> Result<Vec<f64>> {
        if self.device.is_plan() {
            return Ok(vec![0.0; scalars.len()]);
        }
        let values = Tensor::read_scalars(&scalars.iter().collect::<Vec<_>>())?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}
