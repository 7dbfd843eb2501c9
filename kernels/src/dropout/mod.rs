//! Dropout of the input of an adapter as a separate op; `lora` fuses it.
//!
//! **math** y = x ⊙ mask / (1 − p), and dx = dy ⊙ mask / (1 − p) (Srivastava et al., JMLR 2014).
//!
//! **shapes** x and y (T, C).
//!
//! **layout** row-major.
//!
//! **launch** one thread per eight channels, which share a call of Philox; one per channel where C or the first channel
//! is not a multiple of eight.
//!
//! **numerics** p is realised as the nearest multiple of 2⁻¹⁶ ([`DropoutRate`]), and 1 / (1 − p) is that of the realised
//! p. One product in f32, rounded once. The mask is a function of token, channel and key: backward recomputes it, and
//! nothing is saved.
//!
//! **traffic** 2·T·C elements in each direction.

mod bugs;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod mask;
pub mod spec;

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};
pub use mask::{Dropout, DropoutRate};

/// Returns `x` (T, C) with channels dropped; `x` itself where the rate is 0.
///
/// # Errors
/// When there is not one token id per row of x.
pub fn dropout(cx: &Ctx, x: &Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
    match dropout.filter(|d| d.rate != DropoutRate::ZERO) {
        Some(dropout) => cx.apply_one(DropoutOp(dropout.clone()), &[x]),
        None => Ok(x.clone()),
    }
}

struct DropoutOp(Dropout);

impl DropoutOp {
    /// Computes x ⊙ mask / (1 − p).
    fn dropped(&self, cx: &Ctx, x: &Tensor) -> Result<Tensor> {
        let mut y = cx.empty(*x.shape(), x.dtype());
        match cx.device() {
            Device::Cpu(_) => cpu::drop(&mut y, x, &self.0)?,
            Device::Cuda(cuda) => cuda::drop(cuda, &mut y, x, &self.0)?,
            Device::Plan(_) => {}
        }
        Ok(y)
    }
}

impl Op for DropoutOp {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], _: &mut Saved) -> Result<Outs> {
        let (x, tokens) = (x[0], &self.0.tokens);
        let rows = x.shape().as_matrix().0;
        if tokens.shape()[..] != [rows] || tokens.dtype() != DType::I32 || x.dtype() == DType::I32 {
            return Err(Error::new(format!("tokens {tokens:?} must be one i32 id per row of x {x:?}")));
        }
        Ok(vec![self.dropped(cx, x)?])
    }

    fn backward(&self, cx: &Ctx, _: &Saved, dy: &[Option<Tensor>], dx: &mut InputGrads<'_>) -> Result<()> {
        dy[0].as_ref().map_or(Ok(()), |dy| dx.add(0, self.dropped(cx, dy)?))
    }
}
