//! Concatenation of columns: joins the logits that vocabulary-parallel ranks computed for their shards. Inference only.
//!
//! **math** y_t = (x_t of the first part, x_t of the second, …).
//!
//! **shapes** parts (T, V_i), any V_i; y (T, Σ V_i).
//!
//! **layout** row-major.
//!
//! **launch** one launch per part, one block per row.
//!
//! **numerics** copies.
//!
//! **traffic** 2·T·Σ V_i elements.

mod bugs;
mod cpu;
mod cuda;
pub mod spec;

use codelsi_engine::{At, Ctx, DType, Device, Error, Result, Tensor};
use half::bf16;

/// Returns the columns of `parts` (T, V_i), in their order, as (T, Σ V_i).
///
/// # Errors
/// When there is no part, their rows or storage types differ, or one wants a gradient.
pub fn concat(cx: &Ctx, parts: &[Tensor]) -> Result<Tensor> {
    joined(cx, parts).at("concat")
}

fn joined(cx: &Ctx, parts: &[Tensor]) -> Result<Tensor> {
    let first = parts.first().ok_or_else(|| Error::new("there is no part"))?;
    let (rows, dtype) = (first.shape().as_matrix().0, first.dtype());
    if parts.iter().any(|p| p.shape().as_matrix().0 != rows || p.dtype() != dtype) {
        return Err(Error::new(format!("parts {parts:?} must have the same rows and storage type")));
    }
    if cx.is_recording() && parts.iter().any(|p| p.id().is_some()) {
        return Err(Error::new("has no backward, and a part wants a gradient"));
    }
    let columns = parts.iter().map(|p| p.shape().as_matrix().1).sum();
    let mut y = cx.empty([rows, columns], dtype);
    match (cx.device(), dtype) {
        (_, DType::I32) => return Err(Error::new("integers cannot be concatenated")),
        (Device::Cpu(_), DType::F32) => cpu::concat::<f32>(&mut y, parts)?,
        (Device::Cpu(_), DType::BF16) => cpu::concat::<bf16>(&mut y, parts)?,
        (Device::Cuda(cuda), _) => cuda::concat(cuda, &mut y, parts)?,
        (Device::Plan(_), _) => {}
    }
    Ok(y)
}
