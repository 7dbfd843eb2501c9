//! Writes keys and values of new tokens into the pages of the KV cache (PagedAttention, Kwon et al., arXiv
//! 2309.06180).
//!
//! **math** pages_{slot_t} = rows_t; or y_t = rope(q_t), k_pages_{slot_t} = rope(k_t) and v_pages_{slot_t} = v_t at
//! once. Inference only.
//!
//! **shapes** rows, k, v (T, K·D); q, y (T, H·D); positions, slots (T); pages (N, K, S, D) with S tokens per page.
//!
//! **layout** row-major: a page of one head is contiguous, so that attention fetches it in one piece. A slot is
//! page · S + offset (vLLM's `slot_mapping`).
//!
//! **launch** one block per token, 16 bytes an access where a head is a multiple of that; with the rotation, one block
//! per token and a few of the heads of q, k and v, so that a decode step of few rows fills the chip. On a GPU a slot
//! outside the pages traps.
//!
//! **numerics** copies, and the rotation of `rope`. Slots must be distinct: rows are written in no particular order.
//!
//! **traffic** 2·T·K·D elements for keys, and as many for values; 2·T·H·D for queries.

mod bugs;
mod cuda;
pub mod spec;

use crate::flash::Heads;
use crate::rope::rope;
use codelsi_engine::op_times::Pass;
use codelsi_engine::{At, Ctx, Device, Error, Result, Tensor};

/// Writes row t of `rows` (T, K·D) into slot t of `pages` (N, K, S, D), in place; slots (T) i32.
///
/// # Errors
/// When the shapes or storage types do not fit, a slot lies outside the pages, or `rows` wants a gradient.
pub fn kvstore(cx: &Ctx, pages: &mut Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    write(cx, pages, rows, slots).at("kvstore")
}

/// Positions and cache slots of new tokens, all in device memory.
#[derive(Clone, Copy)]
pub struct TokenSlots<'a> {
    /// (T) i32: position of each token.
    pub positions: &'a Tensor,
    /// (P, D) f32: cos and sin of the angles, from [`crate::rope::cos_sin_table`].
    pub rope_table: &'a Tensor,
    /// (T) i32: slot of each token.
    pub slots: &'a Tensor,
}

/// Returns q (T, H·D), rotated by the positions of its tokens; writes k (T, K·D), rotated too, and v (T, K·D) into
/// their slots of `k_pages` and `v_pages` (N, K, S, D), in place: [`rope`] twice and [`kvstore`] twice, fused.
///
/// # Errors
/// As [`rope`] and [`kvstore`].
pub fn rope_kvstore(
    cx: &Ctx,
    [k_pages, v_pages]: [&mut Tensor; 2],
    [q, k, v]: [&Tensor; 3],
    rows: TokenSlots,
    heads: Heads,
) -> Result<Tensor> {
    let Device::Cuda(cuda) = cx.device() else {
        check_all(cx, [k_pages, v_pages], [q, k, v], rows, heads).at("rope_kvstore")?;
        let rotated = rope(cx, k, rows.positions, rows.rope_table, heads.kv_heads)?;
        cx.timed("kvstore", Pass::Forward, || {
            kvstore(cx, k_pages, &rotated, rows.slots)?;
            kvstore(cx, v_pages, v, rows.slots)
        })?;
        return rope(cx, q, rows.positions, rows.rope_table, heads.heads);
    };
    let run = || {
        check_all(cx, [k_pages, v_pages], [q, k, v], rows, heads)?;
        let mut y = cx.empty(*q.shape(), q.dtype());
        cuda::rope_store(cuda, &mut y, [k_pages, v_pages], [q, k, v], rows)?;
        Ok(y)
    };
    cx.timed("rope_kvstore", Pass::Forward, run).at("rope_kvstore")
}

/// Checks the arguments of [`rope_kvstore`].
fn check_all(
    cx: &Ctx,
    [k_pages, v_pages]: [&Tensor; 2],
    [q, k, v]: [&Tensor; 3],
    rows: TokenSlots,
    Heads { heads, kv_heads, head_dim }: Heads,
) -> Result<()> {
    if k_pages.shape() != v_pages.shape() || k_pages.shape().get(1) != Some(&kv_heads) {
        return Err(Error::new(format!("pages {k_pages:?} and {v_pages:?} do not have {kv_heads} heads")));
    }
    check(cx, k_pages, k, rows.slots)?;
    check(cx, v_pages, v, rows.slots)?;
    let rotates = |x: &Tensor, heads: usize| {
        x.shape().as_matrix() == (k.shape()[0], heads * head_dim) && x.dtype() == k.dtype()
    };
    if !rotates(q, heads) || !rotates(k, kv_heads) || rows.rope_table.shape().as_matrix().1 != head_dim {
        let table = rows.rope_table.shape();
        return Err(Error::new(format!(
            "q {q:?} and k {k:?} are not {heads} and {kv_heads} heads of the table {table}"
        )));
    }
    if rows.positions.shape() != rows.slots.shape() {
        return Err(Error::new(format!("positions {:?} do not fit slots {:?}", rows.positions, rows.slots)));
    }
    match cx.is_recording() && q.id().is_some() {
        true => Err(Error::new("has no backward, and q wants a gradient")),
        false => Ok(()),
    }
}

fn check(cx: &Ctx, pages: &Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    let (t, width) = rows.shape().as_matrix();
    let heads_fit = matches!(pages.shape()[..], [_, k, _, d] if k * d == width);
    if !heads_fit || pages.dtype() != rows.dtype() || slots.shape()[..] != [t] {
        return Err(Error::new(format!("rows {rows:?} at slots {slots:?} do not fit pages {pages:?}")));
    }
    if cx.is_recording() && rows.id().is_some() {
        return Err(Error::new("has no backward, and the rows want a gradient"));
    }
    Ok(())
}

fn write(cx: &Ctx, pages: &mut Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    check(cx, pages, rows, slots)?;
    match cx.device() {
        Device::Cpu(_) => {
            let &[n, k, s, d] = &pages.shape()[..] else { unreachable!("checked") };
            // Heads are copied as bytes, whatever their storage type.
            let (slots, head_bytes, limit) = (slots.slice::<i32>()?, d * rows.dtype().size(), n * s);
            if let Some(t) = slots.iter().position(|&slot| slot < 0 || slot as usize >= limit) {
                return Err(Error::new(format!(
                    "slot {} of token {t} is outside the {limit} slots",
                    slots[t]
                )));
            }
            let pages = pages.bytes_mut()?;
            for (i, head) in rows.bytes()?.chunks_exact(head_bytes).enumerate() {
                let (slot, kv_head) = (slots[i / k] as usize, i % k);
                let row = (slot / s * k + kv_head) * s + slot % s;
                pages[row * head_bytes..][..head_bytes].copy_from_slice(head);
            }
        }
        Device::Cuda(cuda) => cuda::store(cuda, pages, rows, slots)?,
        Device::Plan(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use codelsi_engine::{DType, Label};

    fn store(cx: &Ctx, slots: &[i32], row: usize) -> Result<()> {
        let zeros = |shape: &[usize]| cx.device().zeros(Label::Kv, shape, DType::F32);
        let slots = cx.device().tensor(Label::Activations, [slots.len()], slots)?;
        kvstore(cx, &mut zeros(&[2, 2, 3, 2]), &zeros(&[2, row]).with_grad(), &slots)
    }

    #[test]
    fn misfits_are_refused_by_name() {
        let cx = Ctx::inference(&Device::cpu());
        assert!(store(&cx, &[5, 0], 4).is_ok());
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(message(store(&cx, &[5, 6], 4)), "kvstore: slot 6 of token 1 is outside the 6 slots");
        assert_eq!(message(store(&cx, &[-1, 0], 4)), "kvstore: slot -1 of token 0 is outside the 6 slots");
        let shapes = "kvstore: rows F32 (2, 3) at slots I32 (2) do not fit pages F32 (2, 2, 3, 2)";
        assert_eq!(message(store(&cx, &[5, 0], 3)), shapes);
        let training = Ctx::training(&Device::cpu(), 0, 0);
        let gradient = "kvstore: has no backward, and the rows want a gradient";
        assert_eq!(message(store(&training, &[5, 0], 4)), gradient);
    }

    #[test]
    fn pages_of_other_heads_are_refused() {
        let (cx, device) = (Ctx::inference(&Device::cpu()), Device::cpu());
        let zeros = |shape: &[usize]| device.zeros(Label::Kv, shape, DType::F32);
        let index = device.tensor(Label::Activations, [1], &[0]).unwrap();
        let rope_table = crate::rope::cos_sin_table(&device, 8, &[1.0], 1.0).unwrap();
        let rows = TokenSlots { positions: &index, rope_table: &rope_table, slots: &index };
        let store = |pages: &[usize]| {
            let x = zeros(&[1, 4]);
            let heads = Heads { heads: 2, kv_heads: 2, head_dim: 2 };
            rope_kvstore(&cx, [&mut zeros(pages), &mut zeros(pages)], [&x; 3], rows, heads)
        };
        assert!(store(&[2, 2, 3, 2]).is_ok());
        let error = store(&[2, 1, 3, 4]).unwrap_err().to_string();
        assert!(error.ends_with("F32 (2, 1, 3, 4) do not have 2 heads"), "{error}");
    }

    #[test]
    fn planning_touches_no_content() {
        assert!(store(&Ctx::inference(&Device::plan()), &[5, 600], 4).is_ok());
    }
}
