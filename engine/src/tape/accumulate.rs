//! Gradient accumulation: of a value that is used more than once, and over micro-batches.

use crate::cuda::Memory;
use crate::team::ForEachOnTeam;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use half::bf16;
use rayon::prelude::*;

/// Elements per parallel task: fewer are not worth one.
const TASK: usize = 1 << 16;

/// Adds `g` to `sum` in f32 and rounds to their storage type. A shared buffer of `sum` is copied first.
///
/// # Errors
/// When shapes or types differ, the type is an integer, or a device fails.
pub fn accumulate(sum: &mut Tensor, g: &Tensor) -> Result<()> {
    if sum.shape() != g.shape() || sum.dtype() != g.dtype() {
        return Err(Error::op("accumulate", format!("gradient {sum:?} and its addend {g:?} differ")));
    }
    // An op may have given one gradient to two inputs.
    sum.unshare()?;
    if g.is_planned() {
        return Ok(());
    }
    if let Some(memory) = Memory::of(g)? {
        return memory.device().accumulate(sum, g);
    }
    match g.dtype() {
        DType::F32 => {
            let pairs = sum.slice_mut::<f32>()?.par_iter_mut().with_min_len(TASK).zip(g.slice::<f32>()?);
            pairs.for_each_on_team(|(s, g)| *s += g);
        }
        DType::BF16 => {
            let pairs = sum.slice_mut::<bf16>()?.par_iter_mut().with_min_len(TASK).zip(g.slice::<bf16>()?);
            pairs.for_each_on_team(|(s, g)| *s = bf16::from_f32(s.to_f32() + g.to_f32()));
        }
        DType::I32 => return Err(Error::op("accumulate", "integers have no gradient")),
    }
    Ok(())
}
