//! Backward: dS and dx from one packing of each dy, then dA and dB, which are sums over tokens.

use super::{CHUNK, for_each_chunk};
use crate::aligned::AlignedVec;
use crate::disjoint::{DisjointRows, DisjointSlice};
use crate::dropout::{self, Dropout};
use crate::gemm::cpu::packed_rows::RowBuffer;
use crate::gemm::cpu::{
    AccumulatorInit, Elements, Matrix, NR, Precision, Product, ProductTerm, Start, multiply_all,
    multiply_block,
};
use crate::gemm::{elements, nn, precision, tn};
use crate::lora::{BackwardLinear, Lora, adapter_gradients};
use crate::simd::{Storage, vectorize};
use codelsi_engine::team::{self, ForEachOnTeam};
use codelsi_engine::{Ctx, DType, Result, Tensor};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Columns of a task of dA or dB, at least.
const GRADIENT_COLUMNS: usize = 64;

impl Lora {
    /// Computes dA and dB of each target, and dx if wanted.
    pub(in super::super) fn backward_cpu(
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
        let rows = ds.shape().as_matrix().0;
        let targets: Vec<Target> = used.iter().map(Target::new).collect::<Result<_>>()?;
        let ds = DisjointRows::<E>::new(ds)?;
        let dx = match dx {
            Some((dx, sums)) => Some((DisjointRows::<E>::new(dx)?, DisjointRows::<f32>::new(sums)?)),
            None => None,
        };
        let mask = match &self.dropout {
            Some(dropout) => Some((dropout, dropout.tokens.slice::<i32>()?)),
            None => None,
        };
        for_each_chunk(rows, |rows| {
            let dy: Vec<RowBuffer> = targets.iter().map(|t| t.pack::<E>(&rows)).collect();
            // SAFETY: chunks do not overlap.
            let ds_rows = unsafe { ds.rows(&rows) };
            low_rank(&targets, &dy, ds_rows, ds.columns);
            if let Some((dx, sums)) = &dx {
                // SAFETY: as above.
                let (dx_rows, sums) = unsafe { (dx.rows(&rows), sums.rows(&rows)) };
                let mask = mask.map(|(dropout, tokens)| (dropout, &tokens[rows.clone()]));
                input_gradient((dx_rows, sums, dx.columns), &targets, &dy, (ds_rows, ds.columns), mask);
            }
        });
        Ok(())
    }
}

/// A target's operands.
struct Target<'a> {
    /// dy W and dy B.
    main: ProductTerm<'a>,
    down: ProductTerm<'a>,
    /// A as rows along k: dS A.
    a: Matrix<'a>,
    rank: usize,
    scale: f32,
}

impl<'a> Target<'a> {
    fn new(u: &BackwardLinear<'a>) -> Result<Self> {
        let (rank, c) = u.target.a.shape().as_matrix();
        Ok(Target {
            main: nn(u.dy, u.target.w)?,
            down: nn(u.dy, u.target.b)?,
            a: Matrix::mn_major(elements(u.target.a)?, c),
            rank,
            scale: u.target.scale,
        })
    }

    /// Packs rows of dy.
    fn pack<E: Storage>(&self, rows: &Range<usize>) -> RowBuffer {
        let Matrix { data, outer_stride, .. } = self.main.a;
        let dy = Matrix::k_major(data.skip(rows.start * outer_stride), outer_stride);
        RowBuffer::pack(&dy, (rows.len(), self.main.depth), Precision::of::<E>())
    }
}

/// Computes dS = scale · dy B of all targets, side by side in rows of `ds`, rounded before the scale and after it.
fn low_rank<E: Storage>(targets: &[Target], dy: &[RowBuffer], ds: &mut [E], columns: usize) {
    ds.par_chunks_mut(CHUNK.start * columns).enumerate().for_each_on_team(|(i, ds)| {
        let rows = (i * CHUNK.start, ds.len() / columns);
        let mut at = 0;
        for (t, dy) in targets.iter().zip(dy) {
            let stride = t.rank.next_multiple_of(NR);
            let mut block = AlignedVec::scratch(rows.1 * stride);
            let term = ProductTerm { a: dy.operand(), ..t.down };
            let c = (&mut block[..], stride, Start::Zero);
            multiply_block(c, rows, (0, t.rank), &[term], Precision::of::<E>());
            vectorize(
                #[inline(always)]
                || {
                    for (ds, block) in ds.chunks_exact_mut(columns).zip(block.chunks_exact(stride)) {
                        let ds = ds[at..][..t.rank].iter_mut();
                        ds.zip(block).for_each(|(ds, &x)| *ds = E::put(E::put(x).get() * t.scale));
                    }
                },
            );
            at += t.rank;
        }
    });
}

/// Computes rows of dx (rows, C); `sums` is working memory of as many f32. `mask` holds the tokens of the rows.
fn input_gradient<E: Storage>(
    (dx, sums, c): (&mut [E], &mut [f32], usize),
    targets: &[Target],
    dy: &[RowBuffer],
    (ds, columns): (&[E], usize),
    mask: Option<(&Dropout, &[i32])>,
) {
    let (size, precision) = ((ds.len() / columns, c), Precision::of::<E>());
    let mut at = 0;
    let pack = |t: &Target| {
        let a = Matrix::k_major(Elements::of(&ds[at..]), columns);
        at += t.rank;
        RowBuffer::pack(&a, (size.0, t.rank), precision)
    };
    let ds: Vec<RowBuffer> = targets.iter().map(pack).collect();
    let slabs = targets.iter().zip(&ds).map(|(t, ds)| ProductTerm { a: ds.operand(), b: t.a, depth: t.rank });
    let main = targets.iter().zip(dy).map(|(t, dy)| ProductTerm { a: dy.operand(), ..t.main });
    let (start, terms): (_, Vec<ProductTerm>) = match mask {
        None => (AccumulatorInit::Zero, slabs.chain(main).collect()),
        Some((dropout, tokens)) => {
            let (start, terms) = (AccumulatorInit::Zero, slabs.collect::<Vec<_>>());
            multiply_all([Product { c: sums, size, start, terms: &terms }], precision);
            let rows = sums.par_chunks_mut(c.max(1)).zip(tokens);
            rows.for_each_on_team(|(row, &token)| dropout::cpu::mask_row(row, token, dropout));
            (AccumulatorInit::From(sums), main.collect())
        }
    };
    multiply_all([Product { c: dx, size, start, terms: &terms }], precision);
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
