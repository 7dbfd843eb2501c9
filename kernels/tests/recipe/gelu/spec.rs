//! GELU by plain float64 arithmetic.

use super::{SOURCE, bugs, gelu};
use crate::bug::Bug;
use crate::spec::{ElementwiseSpec, Spec};
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, Result, Tensor};

/// The declaration of `gelu`.
pub static SPEC: Spec = Spec::elementwise::<1, Gelu>();

struct Gelu;

impl ElementwiseSpec<1> for Gelu {
    const NAME: &'static str = "gelu";
    const SOURCE: &'static Source = &SOURCE;
    const BUGS: &'static [Bug] = bugs::BUGS;
    const SCALES: [f32; 1] = [2.0];
    const FLOPS: [usize; 2] = [9, 16];

    fn apply(cx: &Ctx, [x]: [&Tensor; 1]) -> Result<Tensor> {
        gelu(cx, x)
    }

    fn reference([x]: [f64; 1]) -> f64 {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + u.tanh())
    }
}
