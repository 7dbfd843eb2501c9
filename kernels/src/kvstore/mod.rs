//! Writes keys or values of new tokens into the pages of a cache.
//!
//! **math** pages_{slot_t} = rows_t. Inference only.
//!
//! **shapes** rows (T, K·D); slots (T); pages (N, S, K·D) with S tokens a page.
//!
//! **layout** row-major. A slot is page · S + offset: the pages seen as one list of rows.
//!
//! **numerics** a copy. Of two rows for one slot the later one stays.
//!
//! **traffic** 2·T·K·D elements.

pub mod spec;

use codelsi_engine::{At, Ctx, Device, Error, Result, Tensor};

/// Writes row t of `rows` (T, K·D) into slot t of `pages` (N, S, K·D), in place; slots (T) i32.
///
/// # Errors
/// When the shapes or storage types do not fit, a slot lies outside the pages, or `rows` wants a gradient.
pub fn kvstore(cx: &Ctx, pages: &mut Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    write(cx, pages, rows, slots).at("kvstore")
}

fn write(cx: &Ctx, pages: &mut Tensor, rows: &Tensor, slots: &Tensor) -> Result<()> {
    let (t, width) = rows.shape().as_matrix();
    let (limit, page_width) = pages.shape().as_matrix();
    if width != page_width || pages.dtype() != rows.dtype() || slots.shape()[..] != [t] {
        return Err(Error::new(format!("rows {rows:?} at slots {slots:?} do not fit pages {pages:?}")));
    }
    if cx.records() && rows.id().is_some() {
        return Err(Error::new("has no backward, and the rows want a gradient"));
    }
    match cx.device() {
        Device::Cpu(_) => {
            // Bytes: a copy needs no storage type.
            let (slots, row_bytes) = (slots.slice::<i32>()?, width * rows.dtype().size());
            if let Some(t) = slots.iter().position(|&slot| slot < 0 || slot as usize >= limit) {
                return Err(Error::new(format!(
                    "slot {} of token {t} is outside the {limit} slots",
                    slots[t]
                )));
            }
            let pages = pages.bytes_mut()?;
            for (row, &slot) in rows.bytes()?.chunks_exact(row_bytes).zip(slots) {
                pages[slot as usize * row_bytes..][..row_bytes].copy_from_slice(row);
            }
        }
        Device::Cuda(cuda) => cuda.lacks("kvstore")?,
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
        kvstore(cx, &mut zeros(&[2, 3, 4]), &zeros(&[2, row]).with_grad(), &slots)
    }

    #[test]
    fn misfits_are_refused_by_name() {
        let cx = Ctx::inference(&Device::cpu());
        assert!(store(&cx, &[5, 0], 4).is_ok());
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(message(store(&cx, &[5, 6], 4)), "kvstore: slot 6 of token 1 is outside the 6 slots");
        assert_eq!(message(store(&cx, &[-1, 0], 4)), "kvstore: slot -1 of token 0 is outside the 6 slots");
        let shapes = "kvstore: rows F32 (2, 3) at slots I32 (2) do not fit pages F32 (2, 3, 4)";
        assert_eq!(message(store(&cx, &[5, 0], 3)), shapes);
        let training = Ctx::training(&Device::cpu(), 0, 0);
        let gradient = "kvstore: has no backward, and the rows want a gradient";
        assert_eq!(message(store(&training, &[5, 0], 4)), gradient);
    }

    #[test]
    fn planning_touches_no_content() {
        assert!(store(&Ctx::inference(&Device::plan()), &[5, 600], 4).is_ok());
    }
}
