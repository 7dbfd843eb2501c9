//! silu(gate)·up by plain float64 arithmetic.

use super::{SOURCE, bugs, swiglu};
use crate::bug::Bug;
use crate::spec::{ElementwiseSpec, Spec};
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, Result, Tensor};

/// The declaration of `swiglu`.
pub static SPEC: Spec = Spec::elementwise::<2, SwiGlu>();

struct SwiGlu;

impl ElementwiseSpec<2> for SwiGlu {
    const NAME: &'static str = "swiglu";
    const SOURCE: &'static Source = &SOURCE;
    const BUGS: &'static [Bug] = bugs::BUGS;
    const SIZES: &'static str = "T,F";
    const SCALES: [f32; 2] = [3.0, 1.0];
    const FLOPS: [usize; 2] = [4, 9];

    fn apply(cx: &Ctx, [gate, up]: [&Tensor; 2]) -> Result<Tensor> {
        swiglu(cx, gate, up)
    }

    fn reference([gate, up]: [f64; 2]) -> f64 {
        gate / (1.0 + (-gate).exp()) * up
    }
}
