//! Elementwise ops: an op's function in float64, of which cases, costs and calls by row follow.

use super::{Case, Compare, Cost, Draw, F64Tensor, Input, Invariance, RowBatch, RowCall, Shapes, Spec};
use crate::bug::Bug;
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, DType, Result, Tensor};
use std::array::from_fn;

/// Declares an op of N inputs and one output to [`Spec::elementwise`].
pub trait ElementwiseSpec<const N: usize> {
    /// The op's folder.
    const NAME: &'static str;
    const SOURCE: &'static Source;
    const BUGS: &'static [Bug];
    /// The sizes' names.
    const SIZES: &'static str = "T,C";
    /// Standard deviations of the inputs.
    const SCALES: [f32; N] = [1.0; N];
    /// Operations for one element, forward and backward.
    const FLOPS: [usize; 2];

    /// Calls the op.
    ///
    /// # Errors
    /// When the op fails.
    fn apply(cx: &Ctx, x: [&Tensor; N]) -> Result<Tensor>;

    /// Computes an element of the output in float64.
    fn reference(x: [f64; N]) -> f64;
}

/// Sizes of the cases: tiny, ragged, ragged beyond one block, and a row of Code Llama's MLP.
const SIZES: [[usize; 2]; 5] = [[1, 1], [3, 17], [5, 33], [7, 701], [2, 13824]];

impl Spec {
    /// Declares an elementwise op.
    pub const fn elementwise<const N: usize, S: ElementwiseSpec<N>>() -> Spec {
        Spec {
            name: S::NAME,
            cases: |dtype| SIZES.map(|size| case::<N, S>(dtype, size)).into(),
            random: |dtype, draw: &mut Draw| case::<N, S>(dtype, [draw.size(40), draw.width(3000)]),
            sources: const { &[S::SOURCE] },
            shapes: Shapes {
                sizes: S::SIZES,
                case: |dtype, s| case::<N, S>(dtype, [s[0], s[1]]),
                // Reads dy and the inputs, writes a gradient for each.
                backward: Some(|dtype, s| Cost::elementwise(dtype, s[0] * s[1], 2 * N + 1, S::FLOPS[1])),
                real: &[&[4096, 13824]],
            },
            invariance: Invariance::Rows(const { &[RowCall { name: S::NAME, run: rows::<N, S> }] }),
            bugs: const { &[S::BUGS] },
        }
    }
}

fn case<const N: usize, S: ElementwiseSpec<N>>(dtype: DType, size: [usize; 2]) -> Case {
    let sizes: Vec<_> = S::SIZES.split(',').zip(size).map(|(name, n)| format!("{name}={n}")).collect();
    let inputs = S::SCALES.map(|std| Input::storage(size).scaled(std));
    Case::elementwise(sizes.join(" "), dtype, inputs, S::FLOPS[0], S::apply, S::reference)
}

fn rows<const N: usize, S: ElementwiseSpec<N>>(batch: &RowBatch) -> Result<Tensor> {
    let x: Vec<Tensor> = (0..N).map(|i| batch.storage(40, i as u32)).collect::<Result<_>>()?;
    S::apply(batch.cx, from_fn(|i| &x[i]))
}

impl Case {
    /// Makes a case of an elementwise op: all inputs have one shape and the storage type, and so has the output.
    /// `flops` counts one element's operations.
    pub fn elementwise<const N: usize>(
        name: String,
        dtype: DType,
        inputs: [Input; N],
        flops: usize,
        apply: fn(&Ctx, [&Tensor; N]) -> Result<Tensor>,
        reference: fn([f64; N]) -> f64,
    ) -> Self {
        let cost = Cost::elementwise(dtype, inputs[0].shape.elements(), N + 1, flops);
        let reference = move |x: &[F64Tensor]| {
            let element = |i: usize| reference(from_fn(|k| x[k].data[i]));
            vec![F64Tensor { shape: x[0].shape, data: (0..x[0].data.len()).map(element).collect() }]
        };
        Case {
            name,
            inputs: inputs.into(),
            run: Box::new(move |cx, x| Ok(vec![apply(cx, from_fn(|i| x[i]))?])),
            reference: Box::new(reference),
            compare: Compare::Error,
            terms: 1,
            cost,
        }
    }
}

impl Cost {
    /// The cost of moving `arrays` arrays of `elements` each, with `flops` operations an element.
    pub fn elementwise(dtype: DType, elements: usize, arrays: usize, flops: usize) -> Self {
        Cost { bytes: (arrays * elements * dtype.size()) as f64, flops: (flops * elements) as f64 }
    }
}
