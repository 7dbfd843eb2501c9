//! AdamW over everything a model trains, with its moments.

use codelsi_engine::tape::accumulate;
use codelsi_engine::{Ctx, DType, Device, Error, Grads, Label, Reduce, Result, Tensor};
use codelsi_kernels::adamw::{Hyper, Param, adamw, sum_of_squares};
use codelsi_model::llama::Llama;
use codelsi_model::parallel::Cut;

/// Constants of AdamW (Loshchilov & Hutter, arXiv 1711.05101) and of clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// The largest global gradient norm; `None` for no clipping.
    pub max_norm: Option<f64>,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, max_norm: None }
    }
}

/// The state of one run's optimizer.
pub struct Optimizer {
    rule: AdamW,
    /// Steps taken.
    pub step: u32,
    /// First and second moment of every trainable tensor, in the model's order.
    pub moments: Vec<(Tensor, Tensor)>,
}

impl Optimizer {
    /// Zero moments for everything that `model` trains.
    pub fn new(device: &Device, model: &Llama, rule: AdamW) -> Self {
        let zeros = |t: &Tensor| device.zeros(Label::Moments, *t.shape(), DType::F32);
        let moments = model.trainable().iter().map(|(_, t)| (zeros(t), zeros(t))).collect();
        Optimizer { rule, step: 0, moments }
    }

    /// Takes one step with learning rate `lr`; returns the squared global gradient norm before clipping, (1) f32, as
    /// the device will have it. Where that is not finite nothing is changed.
    ///
    /// # Errors
    /// When a tensor got no gradient.
    pub fn step(&mut self, cx: &Ctx, model: &mut Llama, mut grads: Grads, lr: f32) -> Result<Tensor> {
        let split = model.split().clone();
        let trainable = model.trainable_mut()?;
        let mut gradients = Vec::with_capacity(trainable.len());
        for (name, t) in &trainable {
            let missing = || Error::new(format!("{name} got no gradient"));
            gradients.push(grads.take(t).ok_or_else(missing)?);
        }
        let is_cut = |(name, _): &(String, _)| split.cut(name) != Cut::Whole;
        let cut: Vec<bool> = trainable.iter().map(is_cut).collect();
        let squares = squares(cx, &gradients, &cut)?;
        self.step += 1;
        let hyper = Hyper {
            lr,
            beta1: self.rule.beta1,
            beta2: self.rule.beta2,
            eps: self.rule.eps,
            weight_decay: self.rule.weight_decay,
            step: self.step,
            max_norm: self.rule.max_norm.map_or(f32::INFINITY, |max| max as f32),
        };
        let tensors = trainable.into_iter().zip(&gradients).zip(&mut self.moments);
        let mut params: Vec<Param> = tensors.map(|(((_, p), g), (m, v))| Param { p, g, m, v }).collect();
        adamw(cx, &mut params, &hyper, &squares)?;
        Ok(squares)
    }
}

/// The squared norm of all ranks' gradients: parts of what is cut are summed over ranks, what is copied counts once.
fn squares(cx: &Ctx, gradients: &[Tensor], cut: &[bool]) -> Result<Tensor> {
    let of = |kind: bool| gradients.iter().zip(cut).filter(move |(_, cut)| **cut == kind).map(|(g, _)| g);
    let mut squares = sum_of_squares(cx, of(false))?;
    if cut.contains(&true) {
        let mut parts = sum_of_squares(cx, of(true))?;
        cx.comm().all_reduce(&mut parts, Reduce::Sum)?;
        accumulate(&mut squares, &parts)?;
    }
    Ok(squares)
}
