//! Embedding: lookup of rows of the embedding table.
//!
//! **math** y_t = table_{ids_t}. dtable_v = Σ dy_t over the tokens t with ids_t = v, ascending; zero
//! elsewhere. A rank that holds a shard of the rows returns zero for ids of other rows (vocabulary-parallel embedding).
//!
//! **shapes** table, dtable (V, C); ids (T); y (T, C).
//!
//! **layout** row-major; the gradient is dense.
//!
//! **launch** forward: one block per token; backward: tokens are sorted by id, then one block per row of the table. On
//! a GPU an id outside the vocabulary traps.
//!
//! **numerics** a copy, rounded once if y's storage type is narrower than the table's. The gradient is summed
//! in f32 and stored in the type of the table.
//!
//! **traffic** forward 2·T·C elements. Backward reads dy and writes all of dtable: T·C + V·C.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use crate::rows::RowShard;
use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Returns row ids_t of `table` (V, C) for every token, as (T, C) in `dtype`; ids (T) i32.
///
/// # Errors
/// When an id is not a row of the table.
pub fn embed(cx: &Ctx, table: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    vocab_parallel_embed(cx, table, ids, dtype, RowShard { first: 0, total: table.shape().as_matrix().0 })
}

/// Computes [`embed`] on a rank that holds the shard `rows` of the table: zeros for ids of rows that other ranks hold.
///
/// # Errors
/// When an id is outside the vocabulary.
pub fn vocab_parallel_embed(
    cx: &Ctx,
    table: &Tensor,
    ids: &Tensor,
    dtype: DType,
    rows: RowShard,
) -> Result<Tensor> {
    cx.apply_one(Embed { dtype, rows }, &[table, ids])
}

struct Embed {
    dtype: DType,
    rows: RowShard,
}

impl Op for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let (table, ids) = (x[0], x[1]);
        let ([_, c], [t]) = (&table.shape()[..], &ids.shape()[..]) else {
            return Err(Error::new(format!("table {table:?} must be (V, C) and ids {ids:?} (T)")));
        };
        let mut y = cx.empty([*t, *c], self.dtype);
        match (cx.device(), table.dtype(), self.dtype) {
            (Device::Cpu(_), DType::F32, DType::F32) => {
                cpu::forward::<f32, f32>(&mut y, table, ids, self.rows)?
            }
            (Device::Cpu(_), DType::F32, DType::BF16) => {
                cpu::forward::<f32, bf16>(&mut y, table, ids, self.rows)?
            }
            (Device::Cpu(_), DType::BF16, DType::F32) => {
                cpu::forward::<bf16, f32>(&mut y, table, ids, self.rows)?
            }
            (Device::Cpu(_), DType::BF16, DType::BF16) => {
                cpu::forward::<bf16, bf16>(&mut y, table, ids, self.rows)?
            }
            (_, DType::I32, _) | (_, _, DType::I32) => {
                return Err(Error::new(format!(
                    "table {table:?} as {:?}: embeddings cannot be integers",
                    self.dtype
                )));
            }
            (Device::Cuda(cuda), ..) => cuda::forward(cuda, &mut y, table, ids, self.rows)?,
            (Device::Plan(_), ..) => {}
        }
        save.keep_all([table, ids]);
        Ok(vec![y])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let (Some(dy), true) = (&dy[0], dx.wants(0)) else { return Ok(()) };
        let (table, ids, first) = (&saved[0], &saved[1], self.rows.first);
        let mut dtable = cx.device().empty(Label::Gradients, *table.shape(), table.dtype());
        let mut order = cx.scratch(*ids.shape(), DType::I32);
        match (cx.device(), table.dtype(), dy.dtype()) {
            (Device::Cpu(_), DType::BF16, DType::BF16) => {
                cpu::backward::<bf16, bf16>(&mut dtable, &mut order, dy, ids, first)?
            }
            (Device::Cpu(_), DType::BF16, _) => {
                cpu::backward::<bf16, f32>(&mut dtable, &mut order, dy, ids, first)?
            }
            (Device::Cpu(_), _, DType::BF16) => {
                cpu::backward::<f32, bf16>(&mut dtable, &mut order, dy, ids, first)?
            }
            (Device::Cpu(_), ..) => cpu::backward::<f32, f32>(&mut dtable, &mut order, dy, ids, first)?,
            (Device::Cuda(cuda), ..) => cuda::backward(cuda, &mut dtable, &mut order, dy, ids, first)?,
            (Device::Plan(_), ..) => {}
        }
        dx.add(0, dtable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let device = Device::cpu();
        let table = device.zeros(Label::Weights, [5, 2], DType::F32);
        for bad in [5, -1] {
            let ids = device.tensor(Label::Activations, [3], &[0, bad, 4]).unwrap();
            let error = embed(&Ctx::inference(&device), &table, &ids, DType::F32).unwrap_err();
            let message = format!("embed: id {bad} of token 1 is outside the vocabulary of 5");
            assert_eq!(error.to_string(), message);
        }
    }
}
