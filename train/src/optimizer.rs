//! AdamW over all trainable tensors of a model, with its moments.

use codelsi_engine::tape::accumulate;
use codelsi_engine::{Ctx, DType, Device, Error, Grads, Label, ReduceOp, Result, Tensor};
use codelsi_kernels::adamw::{AdamWParam, Hyperparameters, adamw, sum_of_squares};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::TensorParallelRule;

/// Hyperparameters of AdamW (Loshchilov & Hutter, arXiv 1711.05101) and of gradient clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// The maximum global gradient norm; `None` does not clip.
    pub max_norm: Option<f64>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, max_norm: None }
    }
}

/// The optimizer and its state.
pub struct Optimizer {
    config: AdamWConfig,
    /// Steps taken.
    pub step: u32,
    /// First and second moment of every trainable tensor, in the model's order.
    pub moments: Vec<(Tensor, Tensor)>,
}

impl Optimizer {
    /// Creates zero moments for every trainable tensor of `model`.
    pub fn new(device: &Device, model: &Llama, config: AdamWConfig) -> Self {
        let zeros = |t: &Tensor| device.zeros(Label::Moments, *t.shape(), DType::F32);
        let moments = model.trainable().iter().map(|(_, t)| (zeros(t), zeros(t))).collect();
        Optimizer { config, step: 0, moments }
    }

    /// Updates the parameters with learning rate `lr`. Returns the squared global gradient norm before clipping, (1)
    /// f32, on the device. When it is not finite, the kernel leaves parameters and moments unchanged.
    ///
    /// # Errors
    /// When a tensor got no gradient.
    pub fn step(&mut self, cx: &Ctx, model: &mut Llama, mut grads: Grads, lr: f32) -> Result<Tensor> {
        let split = model.rank_layout().clone();
        let trainable = model.trainable_mut()?;
        let mut gradients = Vec::with_capacity(trainable.len());
        for (name, t) in &trainable {
            let missing = || Error::new(format!("{name} got no gradient"));
            gradients.push(grads.take(t).ok_or_else(missing)?);
        }
        let is_sharded = |(name, _): &(String, _)| split.rule(name) != TensorParallelRule::Replicated;
        let sharded: Vec<bool> = trainable.iter().map(is_sharded).collect();
        let squares = squared_norm(cx, &gradients, &sharded)?;
        self.step += 1;
        let hyper = Hyperparameters {
            lr,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: self.config.weight_decay,
            step: self.step,
            max_norm: self.config.max_norm.map_or(f32::INFINITY, |max| max as f32),
        };
        let tensors = trainable.into_iter().zip(&gradients).zip(&mut self.moments);
        let mut params: Vec<AdamWParam> =
            tensors.map(|(((_, p), g), (m, v))| AdamWParam { p, g, m, v }).collect();
        adamw(cx, &mut params, &hyper, &squares)?;
        Ok(squares)
    }
}

/// The squared global norm of the gradients: slices of sharded tensors are summed over ranks, replicated tensors count
/// once.
fn squared_norm(cx: &Ctx, gradients: &[Tensor], sharded: &[bool]) -> Result<Tensor> {
    let select = |of: bool| gradients.iter().zip(sharded).filter(move |(_, s)| **s == of).map(|(g, _)| g);
    let mut squares = sum_of_squares(cx, select(false))?;
    if sharded.contains(&true) {
        let mut slices = sum_of_squares(cx, select(true))?;
        cx.comm().all_reduce(&mut slices, ReduceOp::Sum)?;
        accumulate(&mut squares, &slices)?;
    }
    Ok(squares)
}
