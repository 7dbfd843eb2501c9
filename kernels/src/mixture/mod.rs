//! Gating of a mixture of LoRA experts: the columns of S of each expert, scaled by the expert's routing weight.
//!
//! Dense soft routing as in LoRAMoE (Dou et al., arXiv 2312.09979): y = x Wᵀ + s Σ_e g_e (x A_eᵀ) B_eᵀ with
//! g = softmax(x W_rᵀ). The A of the experts are stacked, so S = x Aᵀ holds one block of R columns per expert, and U Bᵀ
//! sums over the experts.
//!
//! **math** forward: U_e = s g_e S_e with g = softmax(l). Backward: dS_e = s g_e dU_e; with h_e = s Σ_r dU_e S_e,
//! dl_e = g_e (h_e − Σ_f g_f h_f).
//!
//! **shapes** S and U (T, E·R), l (T, E).
//!
//! **layout** row-major; the R columns of an expert are adjacent.
//!
//! **launch** one warp per row.
//!
//! **numerics** f32, rounded once; backward recomputes g. The bits of a row depend on that row only.
//!
//! **traffic** forward 2·T·E·R + T·E elements; backward 3·T·E·R + 2·T·E.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Returns `s` (T, E·R) with the R columns of each expert scaled by `scale` and the softmax of `logits` (T, E).
///
/// # Errors
/// When the columns of `s` are not a multiple of E, or the storage types differ.
pub fn gate(cx: &Ctx, s: &Tensor, logits: &Tensor, scale: f32) -> Result<Tensor> {
    cx.apply_one(Gate { scale }, &[s, logits])
}

struct Gate {
    scale: f32,
}

impl Op for Gate {
    fn name(&self) -> &'static str {
        "mixture"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (s, logits) = (x[0], x[1]);
        let ((rows, width), (of_logits, experts)) = (s.shape().as_matrix(), logits.shape().as_matrix());
        let fits = rows == of_logits && experts > 0 && width.is_multiple_of(experts);
        if !fits || s.dtype() != logits.dtype() || s.dtype() == DType::I32 {
            return Err(Error::new(format!(
                "S {s:?} must have R columns per expert of logits {logits:?}, and their type"
            )));
        }
        let mut u = cx.empty(*s.shape(), s.dtype());
        match (cx.device(), s.dtype()) {
            (Device::Cpu(_), DType::BF16) => cpu::forward::<bf16>(&mut u, s, logits, self.scale)?,
            (Device::Cpu(_), _) => cpu::forward::<f32>(&mut u, s, logits, self.scale)?,
            (Device::Cuda(cuda), _) => cuda::forward(cuda, &mut u, s, logits, self.scale)?,
            (Device::Plan(_), _) => {}
        }
        save.keep_all([s, logits]);
        Ok(vec![u])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let Some(du) = &dy[0] else { return Ok(()) };
        let (s, logits, scale) = (&saved[0], &saved[1], self.scale);
        let mut ds = cx.empty(*s.shape(), s.dtype());
        let mut dl = cx.empty(*logits.shape(), s.dtype());
        let gradients = [&mut ds, &mut dl];
        match (cx.device(), s.dtype()) {
            (Device::Cpu(_), DType::BF16) => cpu::backward::<bf16>(gradients, du, s, logits, scale)?,
            (Device::Cpu(_), _) => cpu::backward::<f32>(gradients, du, s, logits, scale)?,
            (Device::Cuda(cuda), _) => cuda::backward(cuda, gradients, du, s, logits, scale)?,
            (Device::Plan(_), _) => {}
        }
        dx.add(0, ds)?;
        dx.add(1, dl)
    }
}
