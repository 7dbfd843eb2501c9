//! One declaration of an op serves its test, gradient check and bench.

use codelsi_engine::cuda::Source;
use codelsi_engine::{Ctx, DType, Outs, Result, Shape, Tensor};

/// An op: its name (that of its folder) and its cases.
pub struct Spec {
    pub name: &'static str,
    /// Tiny, awkward and real sizes. Called once for each storage type.
    pub cases: fn(DType) -> Vec<Case>,
    /// The CUDA sources of its kernels.
    pub sources: &'static [&'static Source],
    /// Cases of any size, for checks and timings of one's own.
    pub shapes: Shapes,
}

/// How a case is made from sizes.
pub struct Shapes {
    /// The sizes' names, in their order: `T,C`.
    pub sizes: &'static str,
    pub case: fn(DType, &[usize]) -> Case,
    /// What its backward must move and compute at the least, if it has one.
    pub backward: Option<fn(DType, &[usize]) -> Cost>,
    /// Sizes of Code Llama 13B.
    pub real: &'static [&'static [usize]],
}

/// Runs an op on tensors made from a case's inputs.
pub type Run = Box<dyn Fn(&Ctx, &[&Tensor]) -> Result<Outs>>;

/// An op's outputs in float64, by plain loops.
pub type Reference = Box<dyn Fn(&[Value]) -> Vec<Value>>;

/// One call of an op on random inputs, and what it should give.
pub struct Case {
    /// The sizes, e.g. `T=7 C=33`.
    pub name: String,
    pub inputs: Vec<Input>,
    pub run: Run,
    pub reference: Reference,
    /// Terms in the longest sum: the float32 error may grow with its square root.
    pub terms: usize,
    pub cost: Cost,
}

/// What a call must move and compute at the least.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    pub bytes: f64,
    pub flops: f64,
}

/// How an input is made.
pub struct Input {
    pub shape: Shape,
    pub kind: Kind,
    /// True when the op differentiates with respect to it.
    pub grad: bool,
}

/// The content of an input.
pub enum Kind {
    /// Normal deviates of this standard deviation, in the case's storage type.
    Storage(f32),
    /// Normal deviates, always f32 (adapters, statistics).
    F32(f32),
    /// These very integers (token ids, positions, tables).
    Int(Vec<i32>),
}

impl Input {
    /// Random values in the storage type, with a gradient.
    pub fn storage(shape: impl Into<Shape>) -> Self {
        Input { shape: shape.into(), kind: Kind::Storage(1.0), grad: true }
    }

    /// Random f32 values, with a gradient.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Input { shape: shape.into(), kind: Kind::F32(1.0), grad: true }
    }

    /// Given integers.
    pub fn ints(data: Vec<i32>) -> Self {
        Input { shape: [data.len()].into(), kind: Kind::Int(data), grad: false }
    }

    /// The same with another standard deviation.
    pub fn scaled(mut self, std: f32) -> Self {
        if let Kind::Storage(s) | Kind::F32(s) = &mut self.kind {
            *s = std;
        }
        self
    }

    /// The same without a gradient.
    pub fn frozen(self) -> Self {
        Input { grad: false, ..self }
    }
}

/// A float64 array, for references.
#[derive(Clone, Debug)]
pub struct Value {
    pub shape: Shape,
    pub data: Vec<f64>,
}

impl Value {
    /// Zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Value { shape, data: vec![0.0; shape.elements()] }
    }

    /// `(rows, columns)`, leading dimensions folded into rows.
    pub fn dims(&self) -> (usize, usize) {
        self.shape.as_matrix()
    }

    /// Row `r` of the matrix of [`Value::dims`].
    pub fn row(&self, r: usize) -> &[f64] {
        let columns = self.dims().1;
        &self.data[r * columns..][..columns]
    }

    /// Row `r`, to be written.
    pub fn row_mut(&mut self, r: usize) -> &mut [f64] {
        let columns = self.dims().1;
        &mut self.data[r * columns..][..columns]
    }

    /// Element `i` of an integer input.
    pub fn int(&self, i: usize) -> usize {
        self.data[i] as usize
    }
}
