//! `flash`: causal attention in tiles with an online softmax (arXiv 1805.02867); the score matrix is never
//! materialized.
//!
//! FlashAttention-2 (Dao, arXiv 2307.08691): algorithm 1 forward, algorithm 2 backward, in one pass of five matrix
//! products over key tiles, which add to dq one after another, in an order that the positions fix. `doc/03-flash.md` derives both directions and explains the kernels.
//!
//! **math** P = softmax(q kᵀ / √D, causal), o = P v; L = log-sum-exp of a row of scores. Backward with Δ = Σ_d do·o:
//! dS = P ⊙ (do vᵀ − Δ) / √D, dq = dS k, dk = dSᵀ q, dv = Pᵀ do.
//!
//! **shapes** q, o (T, H·D); k, v (T, K·D), or KV pages (N, K, page, D); L (T, H) f32, on a GPU in base 2 for bf16.
//! Grouped-query attention (GQA): H is a multiple of K, and query head h reads kv head h / (H/K).
//!
//! **layout** T holds packed documents (varlen): a row attends to the rows of its own document up to itself. Tiles are
//! 64 positions, counted from the start of the document.
//!
//! **launch** `flash_forward`: one block per 128 or 256 rows (f32: 64) of a document and query head; `flash_backward`: one
//! block per 128 keys (f32: 64) of a document and kv head, for all its query heads; `flash_delta`: one per 64 rows of o.
//! Over KV pages, `flash_pages` takes runs of consecutive rows as `flash_forward` does; `flash_decode` takes single rows
//! with split-KV, one block per split of 256 keys for all query heads of a kv head, and the block of a row that arrives
//! last joins its splits. 128 threads (256 rows, f32 and `flash_backward`: 256); a multiprocessor holds two blocks of 128
//! rows, one of 256, or one of backward, at D = 128 in bf16. Documents, positions and block tables are read on the device.
//!
//! **numerics** scores, softmax and sums in f32; when q is bf16, P and dS are rounded to bf16 for their products. The
//! bits of a row depend only on its own values and on those before it: not on the other rows of the batch, the page
//! size, or whether k and v come from pages. Every 256 keys have their own softmax, and these are joined in ascending
//! order, by one block or by many.
//!
//! **traffic** reads q, k, v once per row of tiles, writes o; 4·T²/2·H·D flops for a document of T tokens, backward
//! 10. The backward of the CPU sums dq in 4·(T, H, D) bytes of working memory. On a GPU, documents and sequences longer than 256 tokens keep partial results in working memory, 4·(T, H, D)
//! bytes, which stay in the second-level cache; so does the backward of documents longer than 128 (f32: 64).

mod backward_bugs;
mod bugs;
mod cpu;
mod cuda;
mod paged;
mod paged_bugs;
pub mod paged_spec;
pub mod spec;
#[cfg(test)]
mod tests;

pub use paged::{PagedBatch, arrivals, flash_paged};

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Keys of a split, which has its own softmax; splits are joined in ascending order. A multiple of the tiles' keys.
const SPLIT: usize = 256;

/// Head counts and head dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, H.
    pub heads: usize,
    /// Key and value heads, K.
    pub kv_heads: usize,
    /// Channels of a head, D.
    pub head_dim: usize,
}

/// Returns o (T, H·D) of packed documents; `documents` (n + 1) i32 holds their cumulative lengths (FlashAttention's
/// `cu_seqlens`): the start of each, and T.
///
/// # Errors
/// When shapes do not fit the heads or the documents.
pub fn flash(
    cx: &Ctx,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    documents: &Tensor,
    heads: Heads,
) -> Result<Tensor> {
    cx.apply_one(FlashAttention { heads }, &[q, k, v, documents])
}

struct FlashAttention {
    heads: Heads,
}

impl Op for FlashAttention {
    fn name(&self) -> &'static str {
        "flash"
    }

    /// Saves q, k, v, documents, o and L for backward.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [q, k, v, documents] = x else { unreachable!("flash takes q, k, v and documents") };
        let rows = self.check(q, k, v)?;
        let mut o = cx.empty([rows, self.heads.heads * self.heads.head_dim], q.dtype());
        let mut lse = cx.empty([rows, self.heads.heads], DType::F32);
        match cx.device() {
            Device::Cpu(_) => {
                let l = lse.slice_mut()?;
                match q.dtype() {
                    DType::BF16 => {
                        cpu::forward::<bf16>(o.slice_mut()?, l, self.heads, q, k, v, documents)?;
                    }
                    _ => cpu::forward::<f32>(o.slice_mut()?, l, self.heads, q, k, v, documents)?,
                }
            }
            Device::Cuda(cuda) => {
                cuda::forward(cx, cuda, [&mut o, &mut lse], [q, k, v, documents], self.heads)?;
            }
            Device::Plan(_) => cuda::plan_forward(cx, rows, self.heads),
        }
        save.keep_all([*q, *k, *v, *documents, &o, &lse]);
        Ok(vec![o])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let [q, k, v, documents, o, lse] = &saved[..] else { unreachable!("forward saved six") };
        let Some(d_o) = &dy[0] else { return Ok(()) };
        let mut dq = cx.empty(*q.shape(), q.dtype());
        let mut dk = cx.empty(*k.shape(), q.dtype());
        let mut dv = cx.empty(*v.shape(), q.dtype());
        let mut delta = cx.scratch(*lse.shape(), DType::F32);
        match cx.device() {
            Device::Cpu(_) => {
                let saved = cpu::SavedForward { q, k, v, documents, o, lse };
                let delta = delta.slice_mut()?;
                let out = (&mut dq, &mut dk, &mut dv);
                match q.dtype() {
                    DType::BF16 => cpu::backward::<bf16>(cx, out, delta, self.heads, saved, d_o)?,
                    _ => cpu::backward::<f32>(cx, out, delta, self.heads, saved, d_o)?,
                }
            }
            Device::Cuda(cuda) => {
                let saved = [q, k, v, documents, o, lse];
                cuda::backward(cx, cuda, [&mut dq, &mut dk, &mut dv], &mut delta, saved, d_o, self.heads)?;
            }
            Device::Plan(_) => cuda::plan_backward(cx, q, documents, self.heads),
        }
        dx.add(0, dq)?;
        dx.add(1, dk)?;
        dx.add(2, dv)
    }
}

impl FlashAttention {
    /// Checks shapes and types; returns the number of rows T.
    fn check(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<usize> {
        let Heads { heads, kv_heads, head_dim } = self.heads;
        let (rows, columns) = q.shape().as_matrix();
        let kv = (rows, kv_heads * head_dim);
        let same_type = q.dtype() == k.dtype() && q.dtype() == v.dtype();
        if !heads.is_multiple_of(kv_heads)
            || columns != heads * head_dim
            || k.shape().as_matrix() != kv
            || v.shape().as_matrix() != kv
            || !same_type
        {
            return Err(Error::new(format!(
                "q is {q:?}, k {k:?}, v {v:?}: they do not fit {heads} heads over {kv_heads} of {head_dim}"
            )));
        }
        Ok(rows)
    }
}
