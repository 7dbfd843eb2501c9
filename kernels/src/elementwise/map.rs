//! Shared parts of elementwise ops: shape checks, outputs, and the loop of the device.

use super::{cpu, cuda};
use crate::cuda::wide;
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};

/// An elementwise op of N inputs and one output, whose gradients follow from the output's gradient and the inputs.
///
/// `value` and `gradients` are functions of one element, each marked `#[inline(always)]`. On the GPU they are the kernels
/// `NAME` and `NAME_backward` of `source`.
pub struct Elementwise<const N: usize, const DY_AND_N: usize, Value, Gradients> {
    /// The op's folder.
    pub name: &'static str,
    /// A source made by [`source`](super::source).
    pub source: &'static Source,
    /// Computes y of x….
    pub value: Value,
    /// Computes dx… of dy and x….
    pub gradients: Gradients,
}

impl<const N: usize, const DY_AND_N: usize, Value, Gradients> Op
    for Elementwise<N, DY_AND_N, Value, Gradients>
where
    Value: Fn([f32; N]) -> [f32; 1] + Copy + Sync + 'static,
    Gradients: Fn([f32; DY_AND_N]) -> [f32; N] + Copy + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let inputs: [&Tensor; N] = std::array::from_fn(|i| x[i]);
        let y = map(cx, (self.source, self.name), inputs, self.value)?;
        save.keep_all(inputs);
        Ok(y.into())
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        const { assert!(DY_AND_N == N + 1, "gradients takes dy and the inputs") };
        let Some(dy) = &dy[0] else { return Ok(()) };
        let inputs = std::array::from_fn(|i| if i == 0 { dy } else { &saved[i - 1] });
        let kernel = format!("{}_backward", self.name);
        let gradients = map(cx, (self.source, &kernel), inputs, self.gradients)?;
        gradients.into_iter().enumerate().try_for_each(|(i, gradient)| dx.add(i, gradient))
    }
}

/// Computes new tensors element by element, in f32, rounded once: on the CPU by `f`, on a GPU by the kernel. Mark `f`
/// `#[inline(always)]`.
///
/// # Errors
/// When the inputs differ in shape or storage type, or are integers.
pub(crate) fn map<const INPUTS: usize, const OUTPUTS: usize>(
    cx: &Ctx,
    kernel: (&'static Source, &str),
    x: [&Tensor; INPUTS],
    f: impl Fn([f32; INPUTS]) -> [f32; OUTPUTS] + Sync,
) -> Result<[Tensor; OUTPUTS]> {
    let (shape, dtype) = (*x[0].shape(), x[0].dtype());
    if dtype == DType::I32 || x.iter().any(|x| *x.shape() != shape || x.dtype() != dtype) {
        return Err(Error::new(format!("{x:?} must have one shape and one storage type, f32 or bf16")));
    }
    let mut y = std::array::from_fn(|_| cx.empty(shape, dtype));
    match cx.device() {
        Device::Cpu(_) => cpu::map(y.each_mut(), x, f)?,
        Device::Cuda(cuda) => cuda::launch(cuda, kernel, wide(dtype), y.each_mut(), x)?,
        Device::Plan(_) => {}
    }
    Ok(y)
}
