//! The optimizer: AdamW (Loshchilov & Hutter, arXiv 1711.05101) with clipping by the global gradient norm.
//!
//! **math** with n the global gradient norm and g the gradient times min(1, max_norm / (n + 10⁻⁶)), at step
//! t = 1, 2, …: p ← p·(1 − lr·λ); m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²;
//! p ← p − lr·m̂ / (√v̂ + ε) with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ).
//! Where n is not finite nothing changes. Not recorded on the tape: nothing differentiates through a step.
//!
//! **shapes** any; a parameter, its gradient and its moments have the same shape.
//!
//! **layout** contiguous, updated in place.
//!
//! **launch** on a GPU one launch for all parameters (multi-tensor), one block per 4096 elements; the hyperparameters
//! and n² are read from device memory, so the host never waits between backward and the step.
//!
//! **numerics** master weights, gradients and moments are f32; the bias corrections are computed in f64 once per step.
//! n² sums squares in f64 by fixed chunks, so it does not depend on the number of threads, and is rounded to f32 once.
//!
//! **traffic** reads p, g, m, v and writes p, m, v: 28 bytes per parameter.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use codelsi_engine::op_times::Pass;
use codelsi_engine::{At, Ctx, DType, Device, Error, Result, Tensor};

/// Hyperparameters of one step, the same for every parameter.
#[derive(Clone, Copy, Debug)]
pub struct Hyperparameters {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// Number of the step, counted from 1.
    pub step: u32,
    /// Maximum of the global gradient norm; +∞ does not clip.
    pub max_norm: f32,
}

impl Hyperparameters {
    /// Returns the bias corrections 1 − βᵗ of both moments.
    fn bias_corrections(&self) -> [f32; 2] {
        [self.beta1, self.beta2].map(|beta| (1.0 - (beta as f64).powi(self.step as i32)) as f32)
    }

    /// Returns the clipping factor of the gradients, whose squared global norm is `squares`.
    fn clip_factor(&self, squares: f32) -> f32 {
        (self.max_norm as f64 / ((squares as f64).sqrt() + 1e-6)).min(1.0) as f32
    }
}

/// A parameter with its gradient and moments: all f32 and of one shape.
pub struct AdamWParam<'a> {
    pub p: &'a mut Tensor,
    pub g: &'a Tensor,
    pub m: &'a mut Tensor,
    pub v: &'a mut Tensor,
}

/// Performs one step of every parameter, in place; none if `squares` (1) f32, the squared global norm of the gradients,
/// is not finite.
///
/// # Errors
/// When a parameter's four tensors are not f32 of one shape, or the step is 0.
pub fn adamw(
    cx: &Ctx,
    params: &mut [AdamWParam<'_>],
    hyper: &Hyperparameters,
    squares: &Tensor,
) -> Result<()> {
    if hyper.step == 0 {
        return Err(Error::op("adamw", "steps are counted from 1"));
    }
    for AdamWParam { p, g, m, v } in &*params {
        let like = |t: &&Tensor| t.shape() == p.shape() && t.dtype() == DType::F32;
        if ![&**p, g, m, v].iter().all(like) {
            let message = format!("p {p:?}, g {g:?}, m {m:?} and v {v:?} must be f32 of one shape");
            return Err(Error::op("adamw", message));
        }
    }
    let step = || match cx.device() {
        Device::Cpu(_) => cpu::step(params, hyper, squares),
        Device::Cuda(cuda) => cuda::step(cx, cuda, params, hyper, squares),
        Device::Plan(_) => Ok(()),
    };
    cx.timed("adamw", Pass::Forward, step).at("adamw")
}

/// Returns Σg² over all elements of all `grads` (f32) as (1) f32 on the device: the square of the global norm, with the
/// same bits for any number of threads.
///
/// # Errors
/// When a gradient is not f32.
pub fn sum_of_squares<'a>(cx: &Ctx, grads: impl IntoIterator<Item = &'a Tensor>) -> Result<Tensor> {
    let mut sum = cx.scratch([1], DType::F32);
    let summed = match cx.device() {
        Device::Cpu(_) => cpu::sum_of_squares(&mut sum, grads),
        Device::Cuda(cuda) => cuda::sum_of_squares(cx, cuda, &mut sum, grads),
        Device::Plan(_) => Ok(()),
    };
    summed.at("sum_of_squares")?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::Label;

    const HYPER: Hyperparameters = Hyperparameters {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
        max_norm: f32::INFINITY,
    };

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        for device in crate::cuda::devices() {
            let ones = device.tensor(Label::Gradients, [70_000], &[1.0f32; 70_000]).unwrap();
            let more = device.tensor(Label::Gradients, [1, 3], &[-100.0f32, 0.0, 10.0]).unwrap();
            let squares = sum_of_squares(&Ctx::inference(&device), [&ones, &more]).unwrap();
            assert_eq!(squares.to_vec::<f32>().unwrap(), [70_000.0 + 10_000.0 + 100.0]);
        }
    }

    #[test]
    fn a_norm_that_is_not_finite_moves_nothing() {
        for device in crate::cuda::devices() {
            let tensor = |x: &[f32]| device.tensor(Label::Moments, [x.len()], x).unwrap();
            let (mut p, g, mut m, mut v) =
                (tensor(&[1.0, 2.0]), tensor(&[f32::NAN, 1.0]), tensor(&[0.0; 2]), tensor(&[0.0; 2]));
            let cx = Ctx::inference(&device);
            let squares = sum_of_squares(&cx, [&g]).unwrap();
            let param = AdamWParam { p: &mut p, g: &g, m: &mut m, v: &mut v };
            adamw(&cx, &mut [param], &HYPER, &squares).unwrap();
            let values = [&p, &m, &v].map(|t| t.to_vec::<f32>().unwrap());
            assert_eq!(values, [[1.0, 2.0], [0.0; 2], [0.0; 2]], "{}", device.name());
        }
    }

    #[test]
    fn unlike_tensors_and_step_zero_are_refused() {
        let device = Device::cpu();
        let zeros = |n: usize| device.zeros(Label::Moments, [n], DType::F32);
        let (mut p, g, mut m, mut v, squares) = (zeros(3), zeros(2), zeros(3), zeros(3), zeros(1));
        let mut step = |step| {
            let param = AdamWParam { p: &mut p, g: &g, m: &mut m, v: &mut v };
            let hyper = Hyperparameters { step, ..HYPER };
            adamw(&Ctx::inference(&device), &mut [param], &hyper, &squares).unwrap_err().to_string()
        };
        let message = "adamw: p F32 (3), g F32 (2), m F32 (3) and v F32 (3) must be f32 of one shape";
        assert_eq!(step(1), message);
        assert_eq!(step(0), "adamw: steps are counted from 1");
    }
}
