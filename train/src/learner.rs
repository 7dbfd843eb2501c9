//! One optimizer step: micro-batches forward and back, one norm, one update.

use crate::checkpoint::{self, Moments};
use crate::optimizer::{AdamW, Optimizer};
use crate::options::TrainOptions;
use crate::pack::Sequence;
use codelsi_engine::{At, Ctx, Device, Error, Grads, Label, Result, Tensor};
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
        Ok(Learner { options, device: device.clone(), model, optimizer })
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
    /// When loss or gradients are not finite, with the parameters as they were; or when a kernel refuses.
    pub fn step(&mut self, micro_batches: &[Sequence], lr: f64) -> Result<Found> {
        let t = self.optimizer.step + 1;
        let labelled: usize = micro_batches.iter().map(Sequence::labelled).sum();
        let scale = 1.0 / labelled as f32;
        let options =
            ForwardOptions { dropout: self.options.dropout, checkpoint: self.options.checkpointing };
        let (mut grads, mut loss, mut first) = (Grads::default(), 0.0, 0);
        for sequence in micro_batches {
            let cx = Ctx::training(&self.device, self.options.seed, t);
            let (batch, targets) = self.batch(sequence, first)?;
            let (part, _) = self.model.loss(&cx, &batch, &targets, scale, options)?;
            loss += self.read(&part)?;
            let one = self.device.tensor(Label::Activations, [1], &[1.0f32])?;
            cx.backward(&part, one, &mut grads)?;
            first += sequence.tokens.len();
        }
        if !loss.is_finite() {
            return Err(Error::new(format!("step {t}: the loss is {loss}; lower --lr, or check the data")));
        }
        let cx = Ctx::inference(&self.device);
        let grad_norm =
            self.optimizer.step(&cx, &mut self.model, grads, lr as f32).at(format!("step {t}"))?;
        Ok(Found { loss, grad_norm })
    }

    /// Mean loss over the labelled tokens of `sequences`, without dropout.
    pub fn validate(&self, sequences: &[Sequence]) -> Result<f64> {
        let (mut loss, mut labelled) = (0.0, 0);
        for sequence in sequences {
            let cx = Ctx::inference(&self.device);
            let (batch, targets) = self.batch(sequence, 0)?;
            let (part, _) = self.model.loss(&cx, &batch, &targets, 1.0, ForwardOptions::default())?;
            loss += self.read(&part)?;
            labelled += sequence.labelled();
        }
        Ok(loss / labelled as f64)
    }

    /// The sequence on the device; its first token is the step's token `first`.
    fn batch(&self, sequence: &Sequence, first: usize) -> Result<(Batch, Tensor)> {
        let length = sequence.tokens.len();
        let ids: Vec<i32> = sequence.tokens.iter().map(|&id| id as i32).collect();
        let keys: Vec<i32> = (first..first + length).map(|key| key as i32).collect();
        let batch = Batch::with_keys(&self.device, &sequence.lengths, &ids, &keys)?;
        Ok((batch, self.device.tensor(Label::Activations, [length], &sequence.targets)?))
    }

    /// A scalar's value; 0 where nothing is computed.
    fn read(&self, scalar: &Tensor) -> Result<f64> {
        Ok(if self.device.is_plan() { 0.0 } else { scalar.to_vec::<f32>()?[0] as f64 })
    }
}
