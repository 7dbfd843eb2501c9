//! SwiGLU: the gated activation of Llama's MLP (Shazeer, arXiv 2002.05202).
//!
//! **math** with s = 1/(1 + e^−gate): y = gate·s·up.
//! dup = dy·gate·s and dgate = dy·up·s·(1 + gate·(1 − s)).
//!
//! **shapes** gate, up, y (T, F).
//!
//! **layout** contiguous.
//!
//! **launch** one thread per 16 bytes of each array.
//!
//! **numerics** f32 from load to store, one rounding. Backward recomputes s.
//!
//! **traffic** forward 3·T·F elements; backward reads gate, up, dy and writes both gradients: 5·T·F.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};

/// Returns silu(gate) · up, elementwise: all (T, F).
///
/// # Errors
/// When gate and up differ in shape or storage type.
pub fn swiglu(cx: &Ctx, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    cx.apply_one(SwiGlu, &[gate, up])
}

struct SwiGlu;

impl Op for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (gate, up) = (x[0], x[1]);
        if gate.shape() != up.shape() || gate.dtype() != up.dtype() || gate.dtype() == DType::I32 {
            return Err(Error::new(format!(
                "gate {gate:?} and up {up:?} must have one shape and storage type, f32 or bf16"
            )));
        }
        let mut y = cx.empty(*gate.shape(), gate.dtype());
        match cx.device() {
            Device::Cpu(_) => cpu::forward(&mut y, gate, up)?,
            Device::Cuda(cuda) => cuda::forward(cuda, &mut y, gate, up)?,
            Device::Plan(_) => {}
        }
        save.keep_all([gate, up]);
        Ok(vec![y])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        let (gate, up) = (&saved[0], &saved[1]);
        let mut dgate = cx.empty(*gate.shape(), gate.dtype());
        let mut dup = cx.empty(*up.shape(), up.dtype());
        match cx.device() {
            Device::Cpu(_) => cpu::backward(&mut dgate, &mut dup, dy, gate, up)?,
            Device::Cuda(cuda) => cuda::backward(cuda, &mut dgate, &mut dup, dy, gate, up)?,
            Device::Plan(_) => {}
        }
        dx.add(0, dgate)?;
        dx.add(1, dup)
    }
}
