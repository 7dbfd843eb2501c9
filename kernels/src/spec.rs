//! The declaration of an op, from which its tests, gradient check, batch-invariance check, GPU checks and bench follow.
//!
//! A worked example to copy, the complete `spec.rs` of an elementwise op, GELU (`kernels/tests/recipe/gelu` has its
//! other files, and is tested as every op is):
//!
//! ```ignore
#![doc = include_str!("../tests/recipe/gelu/spec.rs")]
//! ```
//!
//! Another op fills in its [`Spec`] field by field, as `concat` does:
//!
//! ```ignore
#![doc = include_str!("concat/spec.rs")]
//! ```

mod draw;
mod elementwise;

pub use draw::Draw;
pub use elementwise::ElementwiseSpec;

use crate::bug::Bug;
use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, DType, Outs, Result, Shape, Tensor};
use std::ops::Range;

/// The declaration of an op.
pub struct Spec {
    /// Its name: that of its folder, or of a part of it.
    pub name: &'static str,
    /// Makes tiny, ragged and realistic cases. Called once for each storage type.
    pub cases: fn(DType) -> Vec<Case>,
    /// Makes a case of drawn sizes, ragged or not, in a second or less; the checks run a few beside the others.
    pub random: fn(DType, &mut Draw) -> Case,
    /// The CUDA sources of its kernels.
    pub sources: &'static [&'static Source],
    /// Makes cases of any size, for checks and timings from the command line.
    pub shapes: Shapes,
    /// Calls that show batch invariance, or the reason why there is none.
    pub invariance: Invariance,
    /// Seeded bugs, from `bugs.rs`: at least three of each source.
    pub bugs: &'static [&'static [Bug]],
}

/// Makes cases from sizes.
pub struct Shapes {
    /// The sizes' names, in their order: `T,C`.
    pub sizes: &'static str,
    pub case: fn(DType, &[usize]) -> Case,
    /// Computes the minimum cost of its backward, if it has one.
    pub backward: Option<fn(DType, &[usize]) -> Cost>,
    /// Sizes of Code Llama 13B.
    pub real: &'static [&'static [usize]],
}

/// Batch invariance: a row's bits do not depend on the other rows of the batch.
pub enum Invariance {
    /// Calls whose output has a row for each row of the batch.
    Rows(&'static [RowCall]),
    /// No row of the output belongs to one row of the input. The text gives the reason, or names the test that
    /// shows invariance instead.
    NotByRow(&'static str),
}

/// A call of an op on the rows of a batch.
pub struct RowCall {
    pub name: &'static str,
    pub run: fn(&RowBatch) -> Result<Tensor>,
}

/// Some rows of one and the same batch of `BATCH` rows; `check` makes their inputs.
pub struct RowBatch<'a> {
    pub cx: &'a Ctx,
    /// The storage type.
    pub dtype: DType,
    pub rows: Range<usize>,
}

/// Runs an op on tensors made from a case's inputs.
pub type RunCase = Box<dyn Fn(&Ctx, &[&Tensor]) -> Result<Outs>>;

/// Computes an op's outputs in float64, by plain loops.
pub type Reference = Box<dyn Fn(&[F64Tensor]) -> Vec<F64Tensor>>;

/// One call of an op on random inputs, and the reference for its outputs.
pub struct Case {
    /// The sizes, e.g. `T=7 C=33`.
    pub name: String,
    pub inputs: Vec<Input>,
    pub run: RunCase,
    pub reference: Reference,
    /// Comparison of outputs on a device with those of the CPU.
    pub compare: Compare,
    /// Terms in the longest sum: the float32 error may grow with its square root.
    pub terms: usize,
    pub cost: Cost,
}

/// Comparison of outputs on a device with those of the CPU twin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// By their error against the reference.
    Error,
    /// Likewise, with twice as much allowed: errors of a few numbers of any size vary.
    Loose,
    /// Bit by bit: the op copies.
    Bits,
}

impl Compare {
    /// Returns the limit of an error, from the usual one.
    pub(crate) fn limit(self, usual: f64) -> f64 {
        if self == Compare::Loose { 2.0 * usual } else { usual }
    }
}

/// Minimum bytes that a call moves and minimum operations that it performs.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    pub bytes: f64,
    pub flops: f64,
}

/// An input of a case.
pub struct Input {
    pub shape: Shape,
    pub content: InputContent,
    /// True when the op differentiates with respect to it.
    pub grad: bool,
    /// True when rows select parts of it: the CPU twin multiplies the others by 0, and a device may leave them out.
    pub selected: bool,
}

/// The content of an input.
pub enum InputContent {
    /// Normal deviates of this standard deviation, in the case's storage type.
    Storage(f32),
    /// Normal deviates, always f32 (adapters, statistics).
    F32(f32),
    /// Normal deviates, always bf16 (frozen weights under f32 activations).
    BF16(f32),
    /// Normal deviates that bf16 holds, in f32 (weights whose rounding would hide other errors).
    Coarse(f32),
    /// The given numbers, in the case's storage type.
    Given(Vec<f32>),
    /// The given integers (token ids, positions, tables).
    Int(Vec<i32>),
}

impl Input {
    /// Random values in the storage type, with a gradient.
    pub fn storage(shape: impl Into<Shape>) -> Self {
        Input { shape: shape.into(), content: InputContent::Storage(1.0), grad: true, selected: false }
    }

    /// Random f32 values, with a gradient.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Input { shape: shape.into(), content: InputContent::F32(1.0), grad: true, selected: false }
    }

    /// Random bf16 values, without a gradient.
    pub fn bf16(shape: impl Into<Shape>) -> Self {
        Input { shape: shape.into(), content: InputContent::BF16(1.0), grad: false, selected: false }
    }

    /// Random f32 values that bf16 holds, without a gradient.
    pub fn coarse(shape: impl Into<Shape>) -> Self {
        Input { shape: shape.into(), content: InputContent::Coarse(1.0), grad: false, selected: false }
    }

    /// Given numbers, without a gradient.
    pub fn given(shape: impl Into<Shape>, data: Vec<f32>) -> Self {
        Input { shape: shape.into(), content: InputContent::Given(data), grad: false, selected: false }
    }

    /// Given integers.
    pub fn ints(data: Vec<i32>) -> Self {
        Input { shape: [data.len()].into(), content: InputContent::Int(data), grad: false, selected: false }
    }

    /// Sets the standard deviation.
    pub fn scaled(mut self, std: f32) -> Self {
        use InputContent::{BF16, Coarse, F32, Storage};
        if let Storage(s) | F32(s) | BF16(s) | Coarse(s) = &mut self.content {
            *s = std;
        }
        self
    }

    /// Marks it as one of which rows select parts.
    pub fn selected(self) -> Self {
        Input { selected: true, ..self }
    }

    /// Removes the gradient.
    pub fn frozen(self) -> Self {
        Input { grad: false, ..self }
    }
}

/// A float64 array, for references.
#[derive(Clone, Debug)]
pub struct F64Tensor {
    pub shape: Shape,
    pub data: Vec<f64>,
}

impl F64Tensor {
    /// Zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        F64Tensor { shape, data: vec![0.0; shape.elements()] }
    }

    /// `(rows, columns)`, leading dimensions folded into rows.
    pub fn dims(&self) -> (usize, usize) {
        self.shape.as_matrix()
    }

    /// Row `r` of the matrix of [`F64Tensor::dims`].
    pub fn row(&self, r: usize) -> &[f64] {
        let columns = self.dims().1;
        &self.data[r * columns..][..columns]
    }

    /// Row `r`, mutable.
    pub fn row_mut(&mut self, r: usize) -> &mut [f64] {
        let columns = self.dims().1;
        &mut self.data[r * columns..][..columns]
    }

    /// Element `i` of an integer input.
    pub fn int(&self, i: usize) -> usize {
        self.data[i] as usize
    }
}
