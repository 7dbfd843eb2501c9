//! The CPU twin. A chunk of rows is packed once for all products that read it: the adapters and the weights of every target.
//!
//! Many rows are cut into chunks, a task each; the products of few rows are one chunk, and share the threads instead. Neither
//! changes a bit: an element is one chain, whatever the chunk.

use super::{BackwardLinear, Lora, LoraLinear, adapter_gradients, cuda};
use crate::aligned::AlignedVec;
use crate::disjoint::{DisjointRows, DisjointSlice};
use crate::dropout;
use crate::gemm::cpu::packed_rows::RowBuffer;
use crate::gemm::cpu::{
    AccumulatorInit, Elements, Matrix, NR, Precision, Product, ProductTerm, Start, multiply_all,
    multiply_block,
};
use crate::gemm::{columns, elements, nn, precision, tn};
use crate::simd::{Storage, vectorize};
use codelsi_engine::op_times::Pass;
use codelsi_engine::team::{self, ForEachOnTeam};
use codelsi_engine::{Ctx, DType, Error, Outs, Result, Tensor};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a chunk: enough that packing a weight for them is little beside the product.
const CHUNK: Range<usize> = 64..256;
/// Columns of a task of dA or dB, at least.
const GRADIENT_COLUMNS: usize = 64;

impl Lora {
    /// Computes y and S; it also serves the planning device, which allocates the same tensors.
    pub(super) fn forward_cpu(&self, cx: &Ctx, x: &Tensor, targets: &[LoraLinear]) -> Result<cuda::Forward> {
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
        let (rows, c) = x.shape().as_matrix();
        let choice = self.adapter_ids.as_ref().map(Tensor::slice::<i32>).transpose()?;
        if let Some(choice) = choice {
            check_choice(choice, targets[0].adapters())?;
        }
        let targets = targets.iter().zip(s).zip(y);
        let targets: Vec<Target<E>> =
            targets.map(|((t, s), y)| Target::new(t, s, y)).collect::<Result<_>>()?;
        let (x, dropped, precision) = (elements(x)?, elements(dropped)?, Precision::of::<E>());
        for_each_chunk(rows, |chunk| {
            let pack = |x: Elements| {
                let x = Matrix::k_major(x.skip(chunk.start * c), c);
                RowBuffer::pack(&x, (chunk.len(), c), precision)
            };
            let x = pack(x);
            let dropped = self.dropout.is_some().then(|| pack(dropped));
            let down = dropped.as_ref().unwrap_or(&x).operand();
            // SAFETY: chunks do not overlap.
            let mut s: Vec<_> = targets.iter().map(|t| unsafe { t.s.rows(&chunk) }).collect();
            let terms: Vec<_> = targets.iter().map(|t| [ProductTerm { a: down, b: t.a, depth: c }]).collect();
            let products = s.iter_mut().zip(&terms).zip(&targets).map(|((s, terms), t)| Product {
                c: s,
                size: (chunk.len(), t.s.columns),
                start: AccumulatorInit::Zero,
                terms,
            });
            multiply_all(products, precision);
            for (s, t) in s.iter_mut().zip(&targets) {
                scale(s, t.scale);
                if let Some(choice) = choice {
                    keep_chosen(s, &choice[chunk.clone()], (t.s.columns, t.rank));
                }
            }
            let slabs: Vec<_> = s.iter().zip(&targets).map(|(s, t)| t.pack(s, chunk.len())).collect();
            let terms: Vec<_> =
                targets.iter().zip(&slabs).map(|(t, slabs)| t.up_terms(x.operand(), c, slabs)).collect();
            let products = targets.iter().zip(&terms).map(|(t, terms)| Product {
                // SAFETY: chunks do not overlap.
                c: unsafe { t.y.rows(&chunk) },
                size: (chunk.len(), t.y.columns),
                start: AccumulatorInit::Zero,
                terms,
            });
            multiply_all(products, precision);
        });
        Ok(())
    }

    /// Computes dA and dB of each target, and dx if wanted.
    pub(super) fn backward_cpu(
        &self,
        cx: &Ctx,
        x: &Tensor,
        used: &[BackwardLinear],
        wants_dx: bool,
    ) -> Result<(Vec<[Tensor; 2]>, Option<Tensor>)> {
        let dropped = self.drop(cx, x)?;
        let rows = x.shape().as_matrix().0;
        let mut ds = cx.scratch([rows, used.iter().map(|u| u.target.rank()).sum()], x.dtype());
        let mut gradients: Vec<_> = used.iter().map(|u| adapter_gradients(cx, &u.target)).collect();
        let mut dx = wants_dx.then(|| (cx.empty(*x.shape(), x.dtype()), cx.scratch(*x.shape(), DType::F32)));
        if !cx.device().is_plan() {
            match x.dtype() {
                DType::BF16 => self.input_gradients::<bf16>(&mut ds, dx.as_mut(), used)?,
                _ => self.input_gradients::<f32>(&mut ds, dx.as_mut(), used)?,
            }
            sum_over_tokens(&mut gradients, used, &ds, &dropped, precision(x))?;
        }
        Ok((gradients, dx.map(|(dx, _)| dx)))
    }

    /// Computes dS of all targets, side by side, and dx; the sums over adapters are made in f32 beside it.
    fn input_gradients<E: Storage>(
        &self,
        ds: &mut Tensor,
        dx: Option<&mut (Tensor, Tensor)>,
        used: &[BackwardLinear],
    ) -> Result<()> {
        let (rows, _) = ds.shape().as_matrix();
        let precision = Precision::of::<E>();
        let targets: Vec<BackwardTarget> = used.iter().map(BackwardTarget::new).collect::<Result<_>>()?;
        let ds = DisjointRows::<E>::new(ds)?;
        let dx = match dx {
            Some((dx, sums)) => Some((DisjointRows::<E>::new(dx)?, DisjointRows::<f32>::new(sums)?)),
            None => None,
        };
        let tokens = self.dropout.as_ref().map(|dropout| dropout.tokens.slice::<i32>()).transpose()?;
        for_each_chunk(rows, |chunk| {
            let dy: Vec<RowBuffer> = targets.iter().map(|t| t.pack_rows(&chunk, precision)).collect();
            // SAFETY: chunks do not overlap.
            let ds_rows = unsafe { ds.rows(&chunk) };
            let mut at = 0;
            for (t, dy) in targets.iter().zip(&dy) {
                t.low_rank_gradient(ds_rows, (at, ds.columns), dy, precision);
                at += t.rank;
            }
            let Some((dx, sums)) = &dx else { return };
            // SAFETY: as above.
            let (dx_rows, sums) = unsafe { (dx.rows(&chunk), sums.rows(&chunk)) };
            let size = (chunk.len(), dx.columns);
            let packed = BackwardTarget::pack_slabs(&targets, ds_rows, ds.columns);
            let slabs = targets.iter().zip(&packed);
            let slabs = slabs.map(|(t, ds)| ProductTerm { a: ds.operand(), b: t.a, depth: t.rank });
            let main = targets.iter().zip(&dy).map(|(t, dy)| ProductTerm { a: dy.operand(), ..t.main });
            let (start, terms): (_, Vec<ProductTerm>) = match (&self.dropout, tokens) {
                (Some(dropout), Some(tokens)) => {
                    let (start, terms) = (AccumulatorInit::Zero, slabs.collect::<Vec<_>>());
                    multiply_all([Product { c: sums, size, start, terms: &terms }], precision);
                    let rows = sums.par_chunks_mut(dx.columns.max(1)).zip(&tokens[chunk.clone()]);
                    rows.for_each_on_team(|(row, &token)| dropout::cpu::mask_row(row, token, dropout));
                    (AccumulatorInit::From(sums), main.collect())
                }
                _ => (AccumulatorInit::Zero, slabs.chain(main).collect()),
            };
            multiply_all([Product { c: dx_rows, size, start, terms: &terms }], precision);
        });
        Ok(())
    }

    /// Returns drop(x), or x itself without dropout.
    fn drop(&self, cx: &Ctx, x: &Tensor) -> Result<Tensor> {
        let Some(dropout) = &self.dropout else { return Ok(x.detach()) };
        let mut dropped = cx.scratch(*x.shape(), x.dtype());
        if !cx.device().is_plan() {
            cx.timed("dropout", Pass::Forward, || dropout::cpu::drop(&mut dropped, x, dropout))?;
        }
        Ok(dropped)
    }
}

/// Calls `f` on chunks that make up `rows` rows: on one for each task, or on all of them at once where that would leave
/// threads without work.
fn for_each_chunk(rows: usize, f: impl Fn(Range<usize>) + Sync) {
    let threads = team::threads();
    if rows < CHUNK.start * threads {
        return f(0..rows);
    }
    let height = (rows / (2 * threads)).clamp(CHUNK.start, CHUNK.end);
    (0..rows.div_ceil(height)).into_par_iter().for_each_on_team(|i| {
        f(i * height..rows.min((i + 1) * height));
    });
}

/// A target in forward.
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
    fn up_terms<'b>(&'b self, x: Matrix<'b>, c: usize, s: &'b [RowBuffer]) -> Vec<ProductTerm<'b>> {
        let slab = |(s, &b): (&'b RowBuffer, _)| ProductTerm { a: s.operand(), b, depth: self.rank };
        let main = ProductTerm { a: x, b: self.w, depth: c };
        [main].into_iter().chain(s.iter().zip(&self.b).map(slab)).collect()
    }
}

/// A target in backward.
struct BackwardTarget<'a> {
    /// dy W and dy B.
    main: ProductTerm<'a>,
    down: ProductTerm<'a>,
    /// A as rows along k: dS A.
    a: Matrix<'a>,
    rank: usize,
    scale: f32,
}

impl<'a> BackwardTarget<'a> {
    fn new(u: &BackwardLinear<'a>) -> Result<Self> {
        let (rank, c) = u.target.a.shape().as_matrix();
        Ok(BackwardTarget {
            main: nn(u.dy, u.target.w)?,
            down: nn(u.dy, u.target.b)?,
            a: Matrix::mn_major(elements(u.target.a)?, c),
            rank,
            scale: u.target.scale,
        })
    }

    /// Packs rows of dy.
    fn pack_rows(&self, rows: &Range<usize>, precision: Precision) -> RowBuffer {
        let depth = self.main.depth;
        let Matrix { data, outer_stride, .. } = self.main.a;
        let dy = Matrix::k_major(data.skip(rows.start * outer_stride), outer_stride);
        RowBuffer::pack(&dy, (rows.len(), depth), precision)
    }

    /// Computes dS = scale · dy B, in columns of `ds` from `at` on, rounded before the scale and after it.
    fn low_rank_gradient<E: Storage>(
        &self,
        ds: &mut [E],
        (at, columns): (usize, usize),
        dy: &RowBuffer,
        precision: Precision,
    ) {
        let stride = self.rank.next_multiple_of(NR);
        let term = ProductTerm { a: dy.operand(), ..self.down };
        ds.par_chunks_mut(CHUNK.start * columns).enumerate().for_each_on_team(|(i, ds)| {
            let height = ds.len() / columns;
            let mut block = AlignedVec::scratch(height * stride);
            let size = ((i * CHUNK.start, height), (0, self.rank));
            multiply_block((&mut block, stride, Start::Zero), size.0, size.1, &[term], precision);
            for (ds, block) in ds.chunks_exact_mut(columns).zip(block.chunks_exact(stride)) {
                let ds = &mut ds[at..][..self.rank];
                ds.iter_mut().zip(block).for_each(|(ds, &x)| *ds = E::put(x));
                scale(ds, self.scale);
            }
        });
    }

    /// Packs rows of dS of all targets.
    fn pack_slabs<E: Storage>(targets: &[BackwardTarget], ds: &[E], columns: usize) -> Vec<RowBuffer> {
        let mut at = 0;
        let pack = |t: &BackwardTarget| {
            let a = Matrix::k_major(Elements::of(&ds[at..]), columns);
            at += t.rank;
            RowBuffer::pack(&a, (ds.len() / columns, t.rank), Precision::of::<E>())
        };
        targets.iter().map(pack).collect()
    }
}

/// A gradient of adapters that is summed over tokens: Σ_t low_t · wide_t.
struct TokenSum<'a> {
    /// Columns of low rank as rows (R), T deep, and wide ones as columns.
    term: ProductTerm<'a>,
    columns: usize,
    /// Outputs, one after the other along the rows, with their R.
    outs: Vec<(DisjointSlice<'a, f32>, usize)>,
    /// True where outputs are (R, columns): dA. dB is (columns, R).
    along_columns: bool,
}

/// Computes dA of all targets from one read of drop(x), and dB of each from one of its dy: columns in parallel.
fn sum_over_tokens(
    gradients: &mut [[Tensor; 2]],
    used: &[BackwardLinear],
    ds: &Tensor,
    dropped: &Tensor,
    precision: Precision,
) -> Result<()> {
    let mut sums = Vec::with_capacity(1 + used.len());
    let mut da_outs = Vec::with_capacity(used.len());
    for ([da, db], u) in gradients.iter_mut().zip(used) {
        let rank = u.target.rank();
        da_outs.push((DisjointSlice::new(da.slice_mut()?), rank));
        let outs = vec![(DisjointSlice::new(db.slice_mut()?), rank)];
        sums.push(TokenSum {
            term: tn(u.s, u.dy)?,
            columns: u.target.w.shape()[0],
            outs,
            along_columns: false,
        });
    }
    let columns = dropped.shape().as_matrix().1;
    sums.push(TokenSum { term: tn(ds, dropped)?, columns, outs: da_outs, along_columns: true });

    let all: usize = sums.iter().map(|sum| sum.columns).sum();
    let width = all.div_ceil(4 * team::threads()).next_multiple_of(NR).max(GRADIENT_COLUMNS);
    let tasks: Vec<(&TokenSum, Range<usize>)> = sums
        .iter()
        .flat_map(|sum| {
            let starts = (0..sum.columns).step_by(width);
            starts.map(move |start| (sum, start..sum.columns.min(start + width)))
        })
        .collect();
    tasks.into_par_iter().for_each_on_team(|(sum, columns)| sum.compute(columns, precision));
    Ok(())
}

impl TokenSum<'_> {
    /// Computes some columns.
    fn compute(&self, columns: Range<usize>, precision: Precision) {
        let rows: usize = self.outs.iter().map(|(_, rank)| rank).sum();
        let stride = columns.len().next_multiple_of(NR);
        let mut block = AlignedVec::scratch(rows * stride);
        let c = (&mut block[..], stride, Start::Zero);
        multiply_block(c, (0, rows), (columns.start, columns.len()), &[self.term], precision);
        let mut rows = block.chunks_exact(stride).map(|row| &row[..columns.len()]);
        for (out, rank) in &self.outs {
            for r in 0..*rank {
                let row = rows.next().expect("as many rows as ranks");
                match self.along_columns {
                    true => {
                        // SAFETY: no other task has these columns.
                        let out = unsafe { out.slice(r * self.columns + columns.start, row.len()) };
                        out.copy_from_slice(row);
                    }
                    false => {
                        // SAFETY: no other task has these columns, which are rows of the output.
                        let out = unsafe { out.slice(columns.start * rank, columns.len() * rank) };
                        out[r..].iter_mut().step_by(*rank).zip(row).for_each(|(out, &x)| *out = x);
                    }
                }
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
