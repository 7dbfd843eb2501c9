//! The optimizer: AdamW (Loshchilov & Hutter 2019), and the global gradient norm it is clipped by.
//!
//! **math** with g the gradient times `grad_scale`, at step t = 1, 2, …:
//! p ← p·(1 − lr·λ); m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²;
//! p ← p − lr·m̂ / (√v̂ + ε) with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ).
//! Not on the tape: nothing differentiates through a step.
//!
//! **shapes** any; a parameter, its gradient and its moments are alike.
//!
//! **layout** contiguous, updated in place.
//!
//! **launch** on a GPU one launch walks all parameters, 4096 elements of one of them a block; the hyperparameters
//! are read from device memory.
//!
//! **numerics** masters, gradients and moments are f32; the bias corrections are made in f64 once a step. The
//! norm adds squares in f64 by fixed chunks, so it does not depend on threads.
//!
//! **traffic** reads p, g, m, v and writes p, m, v: 28 bytes a parameter.

mod cpu;
mod cuda;
pub mod spec;

use codelsi_engine::{At, Ctx, DType, Device, Error, Result, Tensor};

/// What one step uses for every parameter.
#[derive(Clone, Copy, Debug)]
pub struct Hyper {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// Counted from 1.
    pub step: u32,
    /// Multiplies every gradient: the clip.
    pub grad_scale: f32,
}

impl Hyper {
    /// 1 − βᵗ of either moment.
    fn corrections(&self) -> [f32; 2] {
        [self.beta1, self.beta2].map(|beta| (1.0 - (beta as f64).powi(self.step as i32)) as f32)
    }
}

/// A parameter with its gradient and moments: f32, one shape.
pub struct Param<'a> {
    pub p: &'a mut Tensor,
    pub g: &'a Tensor,
    pub m: &'a mut Tensor,
    pub v: &'a mut Tensor,
}

/// One step of every parameter, in place.
///
/// # Errors
/// When a parameter's four tensors are not f32 of one shape, or the step is 0.
pub fn adamw(cx: &Ctx, params: &mut [Param<'_>], hyper: &Hyper) -> Result<()> {
    if hyper.step == 0 {
        return Err(Error::op("adamw", "steps are counted from 1"));
    }
    for Param { p, g, m, v } in &*params {
        let like = |t: &&Tensor| t.shape() == p.shape() && t.dtype() == DType::F32;
        if ![&**p, g, m, v].iter().all(like) {
            let message = format!("p {p:?}, g {g:?}, m {m:?} and v {v:?} must be f32 of one shape");
            return Err(Error::op("adamw", message));
        }
    }
    match cx.device() {
        Device::Cpu(_) => {
            params.iter_mut().try_for_each(|Param { p, g, m, v }| cpu::step(p, g, m, v, hyper)).at("adamw")
        }
        Device::Cuda(cuda) => cuda::step(cx, cuda, params, hyper).at("adamw"),
        Device::Plan(_) => Ok(()),
    }
}

/// √Σg² over all elements of all `grads` (f32), the same bits for any number of threads. 0 on the planning
/// device.
///
/// # Errors
/// When a gradient is not f32.
pub fn grad_norm<'a>(cx: &Ctx, grads: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let squares: Result<f64> = match cx.device() {
        Device::Cpu(_) => grads.into_iter().map(cpu::sum_of_squares).sum(),
        Device::Cuda(cuda) => cuda::sum_of_squares(cx, cuda, grads),
        Device::Plan(_) => Ok(0.0),
    };
    squares.map(f64::sqrt).at("grad_norm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::Label;

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        for device in crate::cuda::devices() {
            let ones = device.tensor(Label::Gradients, [70_000], &[1.0f32; 70_000]).unwrap();
            let more = device.tensor(Label::Gradients, [1, 3], &[-100.0f32, 0.0, 10.0]).unwrap();
            let norm = grad_norm(&Ctx::inference(&device), [&ones, &more]).unwrap();
            assert_eq!(norm, (70_000.0f64 + 10_000.0 + 100.0).sqrt());
        }
    }

    #[test]
    fn unlike_tensors_and_step_zero_are_refused() {
        let device = Device::cpu();
        let zeros = |n: usize| device.zeros(Label::Moments, [n], DType::F32);
        let (mut p, g, mut m, mut v) = (zeros(3), zeros(2), zeros(3), zeros(3));
        let mut step = |step| {
            let hyper = Hyper {
                lr: 0.1,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.0,
                step,
                grad_scale: 1.0,
            };
            let param = Param { p: &mut p, g: &g, m: &mut m, v: &mut v };
            adamw(&Ctx::inference(&device), &mut [param], &hyper).unwrap_err().to_string()
        };
        let message = "adamw: p F32 (3), g F32 (2), m F32 (3) and v F32 (3) must be f32 of one shape";
        assert_eq!(step(1), message);
        assert_eq!(step(0), "adamw: steps are counted from 1");
    }
}
