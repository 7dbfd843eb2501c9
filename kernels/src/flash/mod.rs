//! `flash`: causal attention by tiles with an online softmax; the score matrix never exists.
//!
//! FlashAttention-2 (Dao, arXiv 2307.08691): algorithm 1 forward, algorithm 2 backward, the latter in two passes
//! (dq by rows, dk and dv by columns) so that no sum needs an atomic. Forming P and dS twice costs seven products
//! where one pass over both would take five; the bits are the same every time, and nothing but Δ is kept between.
//! `doc/03-flash.md` derives both directions and walks through the kernels.
//!
//! **math** P = softmax(q kᵀ / √D, causal), o = P v; L = the row's log-sum-exp. Backward with Δ = Σ_d do·o:
//! dS = P ⊙ (do vᵀ − Δ) / √D, dq = dS k, dk = dSᵀ q, dv = Pᵀ do.
//!
//! **shapes** q, o (T, H·D); k, v (T, K·D), or pages (N, page, K·D); L (T, H) f32, on a GPU in base 2 for bf16. H is a
//! multiple of K: query head h reads kv head h / (H/K).
//!
//! **layout** T holds packed documents: a row attends to the rows of its own document up to itself. Tiles are
//! 64 positions, counted from the document's start.
//!
//! **launch** `flash_forward`, `flash_dq`: a block is 128 rows (f32: 64) of a document and query head; `flash_dkdv`:
//! 64 keys of a document and kv head, for all its query heads; `flash_delta`: 64 rows of o. Over pages, `flash_pages`
//! takes runs of rows as `flash_forward` does; `flash_decode` takes single rows, a block for each split of 512 keys
//! and for all query heads of a kv head, and `flash_merge` joins the splits. 128 threads (f32: 256), two blocks of
//! forward or backward on a multiprocessor at D = 128 in bf16. Documents, positions and tables are read on the device.
//!
//! **numerics** scores, softmax and sums in f32; when q is in bf16, P and dS are rounded to bf16 for their
//! products. A row's bits depend on its own values and on those before it: not on the rows beside it, on the
//! page size, or on whether k and v come from pages. On a GPU every 512 keys are summed apart and joined in order,
//! whoever sums them: one block after another, or many at once.
//!
//! **traffic** reads q, k, v once a tile row, writes o; 4·T²/2·H·D flops a document of T tokens, backward 14.
//! Documents and sequences longer than 512 tokens keep unfinished rows in working memory, 4·(T, H, D) bytes.

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

pub use paged::{Paged, flash_paged};

use codelsi_engine::{Ctx, DType, Device, Error, Op, Outs, Result, Saved, Sink, Tensor};
use half::bf16;

/// How many heads there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, H.
    pub heads: usize,
    /// Key and value heads, K.
    pub kv_heads: usize,
    /// Channels of a head, D.
    pub head_dim: usize,
}

/// o (T, H·D) of packed documents; `documents` (n + 1) i32 holds their starts and, last, T.
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
    cx.apply_one(Flash { heads }, &[q, k, v, documents])
}

struct Flash {
    heads: Heads,
}

impl Op for Flash {
    fn name(&self) -> &'static str {
        "flash"
    }

    /// Saves q, k, v, documents, o and L.
    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [q, k, v, documents] = x else { unreachable!("flash takes q, k, v and documents") };
        let rows = self.check(q, k, v)?;
        let mut o = cx.empty([rows, self.heads.heads * self.heads.head_dim], q.dtype());
        let mut lse = cx.empty([rows, self.heads.heads], DType::F32);
        match cx.device() {
            Device::Cpu(_) => {
                let blocks = cpu::blocks_of_documents(documents.slice()?, rows)?;
                let l = lse.slice_mut()?;
                match q.dtype() {
                    DType::BF16 => {
                        cpu::forward::<bf16>(o.slice_mut()?, l, self.heads, q, k, v, &blocks)?;
                    }
                    _ => cpu::forward::<f32>(o.slice_mut()?, l, self.heads, q, k, v, &blocks)?,
                }
            }
            Device::Cuda(cuda) => {
                cuda::forward(cx, cuda, [&mut o, &mut lse], [q, k, v, documents], self.heads)?;
            }
            Device::Plan(_) => {}
        }
        save.keep_all([*q, *k, *v, *documents, &o, &lse]);
        Ok(vec![o])
    }

    fn backward(&self, cx: &Ctx, saved: &Saved, dy: &[Option<Tensor>], dx: &mut Sink<'_>) -> Result<()> {
        let [q, k, v, documents, o, lse] = &saved[..] else { unreachable!("forward saved six") };
        let Some(d_o) = &dy[0] else { return Ok(()) };
        let mut dq = cx.empty(*q.shape(), q.dtype());
        let mut dk = cx.empty(*k.shape(), q.dtype());
        let mut dv = cx.empty(*v.shape(), q.dtype());
        let mut delta = cx.scratch(*lse.shape(), DType::F32);
        match cx.device() {
            Device::Cpu(_) => {
                let blocks = cpu::blocks_of_documents(documents.slice()?, q.shape()[0])?;
                let saved = cpu::Forward { q, k, v, o, lse };
                let delta = delta.slice_mut()?;
                let out = (&mut dq, &mut dk, &mut dv);
                match q.dtype() {
                    DType::BF16 => cpu::backward::<bf16>(out, delta, self.heads, saved, d_o, &blocks)?,
                    _ => cpu::backward::<f32>(out, delta, self.heads, saved, d_o, &blocks)?,
                }
            }
            Device::Cuda(cuda) => {
                let saved = [q, k, v, documents, o, lse];
                cuda::backward(cuda, [&mut dq, &mut dk, &mut dv], &mut delta, saved, d_o, self.heads)?;
            }
            Device::Plan(_) => {}
        }
        dx.add(0, dq)?;
        dx.add(1, dk)?;
        dx.add(2, dv)
    }
}

impl Flash {
    /// The number of rows T.
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
