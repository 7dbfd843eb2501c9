//! Forward: S of all targets, then y, from one packing of x.

use super::for_each_chunk;
use crate::disjoint::DisjointRows;
use crate::gemm::cpu::packed_rows::RowBuffer;
use crate::gemm::cpu::{AccumulatorInit, Elements, Matrix, Precision, Product, ProductTerm, multiply_all};
use crate::gemm::{columns, elements};
use crate::lora::{Lora, LoraLinear, cuda};
use crate::simd::{Storage, vectorize};
use codelsi_engine::{Ctx, DType, Error, Outs, Result, Tensor};
use half::bf16;
use std::ops::Range;

impl Lora {
    /// Computes y and S; it also serves the planning device, which allocates the same tensors.
    pub(in super::super) fn forward_cpu(
        &self,
        cx: &Ctx,
        x: &Tensor,
        targets: &[LoraLinear],
    ) -> Result<cuda::Forward> {
        let rows = x.shape().as_matrix().0;
        let dropped = self.drop(cx, x)?;
        let mut s: Outs =
            targets.iter().map(|t| cx.empty([rows, t.a.shape().as_matrix().0], x.dtype())).collect();
        let mut outs: Outs = targets.iter().map(|t| cx.empty([rows, t.w.shape()[0]], x.dtype())).collect();
        match (cx.device().is_plan(), x.dtype()) {
            (true, _) => {}
            (false, DType::BF16) => self.forward_in::<bf16>((&mut outs, &mut s), x, &dropped, targets)?,
            (false, _) => self.forward_in::<f32>((&mut outs, &mut s), x, &dropped, targets)?,
        }
        Ok(cuda::Forward { outs, s, mask: None })
    }

    fn forward_in<E: Storage>(
        &self,
        (y, s): (&mut Outs, &mut Outs),
        x: &Tensor,
        dropped: &Tensor,
        targets: &[LoraLinear],
    ) -> Result<()> {
        let choice = self.adapter_ids.as_ref().map(Tensor::slice::<i32>).transpose()?;
        if let Some(choice) = choice {
            check_choice(choice, targets[0].adapters())?;
        }
        let outputs = targets.iter().zip(s).zip(y);
        let forward = Forward::<E> {
            x: elements(x)?,
            dropped: self.dropout.as_ref().map(|_| elements(dropped)).transpose()?,
            c: x.shape().as_matrix().1,
            targets: outputs.map(|((t, s), y)| Target::new(t, s, y)).collect::<Result<_>>()?,
            choice,
        };
        for_each_chunk(x.shape().as_matrix().0, |rows| {
            let x = forward.pack(forward.x, &rows);
            let dropped = forward.dropped.map(|dropped| forward.pack(dropped, &rows));
            let s = forward.low_rank(dropped.as_ref().unwrap_or(&x), &rows);
            forward.outputs(&x, &s, &rows);
        });
        Ok(())
    }
}

/// Operands of all targets, and their outputs.
struct Forward<'a, E> {
    /// (T, C).
    x: Elements<'a>,
    dropped: Option<Elements<'a>>,
    c: usize,
    targets: Vec<Target<'a, E>>,
    /// The adapter of each row, where rows select one.
    choice: Option<&'a [i32]>,
}

impl<E: Storage> Forward<'_, E> {
    /// Packs rows of x, or of drop(x).
    fn pack(&self, x: Elements, rows: &Range<usize>) -> RowBuffer {
        let x = Matrix::k_major(x.skip(rows.start * self.c), self.c);
        RowBuffer::pack(&x, (rows.len(), self.c), Precision::of::<E>())
    }

    /// Computes rows of S of all targets, and returns them packed for each target and adapter.
    fn low_rank(&self, x: &RowBuffer, rows: &Range<usize>) -> Vec<Vec<RowBuffer>> {
        // SAFETY: chunks do not overlap.
        let mut s: Vec<_> = self.targets.iter().map(|t| unsafe { t.s.rows(rows) }).collect();
        let down = self.targets.iter().map(|t| [ProductTerm { a: x.operand(), b: t.a, depth: self.c }]);
        let terms: Vec<_> = down.collect();
        let products = s.iter_mut().zip(&terms).zip(&self.targets).map(|((s, terms), t)| Product {
            c: s,
            size: (rows.len(), t.s.columns),
            start: AccumulatorInit::Zero,
            terms,
        });
        multiply_all(products, Precision::of::<E>());
        for (s, t) in s.iter_mut().zip(&self.targets) {
            scale(s, t.scale);
            if let Some(choice) = self.choice {
                keep_chosen(s, &choice[rows.clone()], (t.s.columns, t.rank));
            }
        }
        s.iter().zip(&self.targets).map(|(s, t)| t.pack(s, rows.len())).collect()
    }

    /// Computes rows of y of all targets.
    fn outputs(&self, x: &RowBuffer, s: &[Vec<RowBuffer>], rows: &Range<usize>) {
        let terms = self.targets.iter().zip(s).map(|(t, s)| t.terms(x.operand(), self.c, s));
        let terms: Vec<Vec<ProductTerm>> = terms.collect();
        let products = self.targets.iter().zip(&terms).map(|(t, terms)| Product {
            // SAFETY: chunks do not overlap.
            c: unsafe { t.y.rows(rows) },
            size: (rows.len(), t.y.columns),
            start: AccumulatorInit::Zero,
            terms,
        });
        multiply_all(products, Precision::of::<E>());
    }
}

/// A target's operands and outputs.
struct Target<'a, E> {
    /// Adapters' A as columns (G·R), C deep.
    a: Matrix<'a>,
    w: Matrix<'a>,
    /// B of each adapter as columns (N), R deep.
    b: Vec<Matrix<'a>>,
    rank: usize,
    scale: f32,
    /// (T, G·R).
    s: DisjointRows<'a, E>,
    /// (T, N).
    y: DisjointRows<'a, E>,
}

impl<'a, E: Storage> Target<'a, E> {
    fn new(t: &LoraLinear<'a>, s: &'a mut Tensor, y: &'a mut Tensor) -> Result<Self> {
        let (n, rank) = (t.w.shape()[0], t.rank());
        let b = elements(t.b)?;
        Ok(Target {
            a: columns(t.a)?,
            w: columns(t.w)?,
            b: (0..t.adapters()).map(|g| Matrix::k_major(b.skip(g * n * rank), rank)).collect(),
            rank,
            scale: t.scale,
            s: DisjointRows::new(s)?,
            y: DisjointRows::new(y)?,
        })
    }

    /// Packs rows of S for each adapter.
    fn pack(&self, s: &[E], rows: usize) -> Vec<RowBuffer> {
        let pack = |g: usize| {
            let s = Matrix::k_major(Elements::of(&s[g * self.rank..]), self.s.columns);
            RowBuffer::pack(&s, (rows, self.rank), Precision::of::<E>())
        };
        (0..self.b.len()).map(pack).collect()
    }

    /// Returns the terms x Wᵀ, C deep, and S Bᵀ of each adapter.
    fn terms<'b>(&'b self, x: Matrix<'b>, c: usize, s: &'b [RowBuffer]) -> Vec<ProductTerm<'b>> {
        let slab = |(s, &b): (&'b RowBuffer, _)| ProductTerm { a: s.operand(), b, depth: self.rank };
        let main = ProductTerm { a: x, b: self.w, depth: c };
        [main].into_iter().chain(s.iter().zip(&self.b).map(slab)).collect()
    }
}

/// Checks that every row selects an adapter of the stack, or none.
fn check_choice(choice: &[i32], adapters: usize) -> Result<()> {
    match choice.iter().position(|&g| g >= adapters as i32) {
        Some(t) => {
            let g = choice[t];
            Err(Error::new(format!("row {t} selects adapter {g} of a stack of {adapters}")))
        }
        None => Ok(()),
    }
}

/// Zeroes, in each row of `s` (rows, columns), the columns of all adapters but the selected one.
fn keep_chosen<E: Storage>(s: &mut [E], choice: &[i32], (columns, rank): (usize, usize)) {
    for (s, &chosen) in s.chunks_exact_mut(columns.max(1)).zip(choice) {
        for (g, s) in (0..).zip(s.chunks_exact_mut(rank)) {
            if g != chosen {
                s.fill(E::put(0.0));
            }
        }
    }
}

/// Computes `x *= scale`, rounded to storage.
fn scale<E: Storage>(x: &mut [E], scale: f32) {
    vectorize(
        #[inline(always)]
        || x.iter_mut().for_each(|x| *x = E::put(x.get() * scale)),
    );
}
