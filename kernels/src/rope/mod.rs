//! Rotary position embedding (RoPE, Su et al., arXiv 2104.09864), in the half-split form of Hugging Face's Llama.
//!
//! **math** with the angle a_j = position · f_j for j < D/2, where the inverse frequency f_j is θ^(−2j/D) or a model's
//! scaling of it, the pair (x_j, x_{j+D/2}) of every head is rotated by it: y_j = x_j·cos a_j − x_{j+D/2}·sin a_j and
//! y_{j+D/2} = x_{j+D/2}·cos a_j + x_j·sin a_j. A rotation's transpose is its inverse: dx is dy rotated by −a. Where a
//! scaling has an attention factor (YaRN), cos and sin are multiplied by it, in both directions.
//!
//! **shapes** x, y (T, H·D); positions (T); table (P, D): cos in the first half of a row, sin in the second.
//!
//! **layout** row-major; a row is one token, its heads one after the other.
//!
//! **launch** one block per token; a thread rotates 16 bytes of either half of a head. On a GPU a position outside the
//! table traps.
//!
//! **numerics** angles in f64, cos and sin rounded once to f32; products in f32, rounded where y is stored.
//!
//! **traffic** 2·T·H·D elements, and one row of the table per token.

mod bugs;
mod cpu;
pub(crate) mod cuda;
pub mod spec;

use codelsi_engine::{Ctx, DType, Device, Error, InputGrads, Label, Op, Outs, Result, Saved, Tensor};
use half::bf16;

/// Rotates every head of x (T, H·D) by the position of its token: positions (T) i32, table (P, D) of [`cos_sin_table`].
///
/// # Errors
/// When the shapes do not fit, or a position is outside the table.
pub fn rope(cx: &Ctx, x: &Tensor, positions: &Tensor, table: &Tensor, heads: usize) -> Result<Tensor> {
    cx.apply_one(Rope { heads }, &[x, positions, table])
}

/// Returns `theta`^(−2j/D) for j < D/2: the angles per position of a head of `head_dim` D channels, not scaled.
pub fn inverse_frequencies(head_dim: usize, theta: f64) -> Vec<f64> {
    (0..head_dim / 2).map(|j| theta.powf(-2.0 * j as f64 / head_dim as f64)).collect()
}

/// Returns cos and sin of position · f_j for the D/2 `inverse_frequencies` f, times `attention_factor`, as (P, D) f32.
///
/// # Errors
/// When there is no frequency, or an angle or the factor is not finite.
pub fn cos_sin_table(
    device: &Device,
    positions: usize,
    inverse_frequencies: &[f64],
    attention_factor: f64,
) -> Result<Tensor> {
    let finite = |f: &f64| (f * positions as f64).is_finite();
    if inverse_frequencies.is_empty() || !inverse_frequencies.iter().chain([&attention_factor]).all(finite) {
        let message =
            "inverse frequencies and attention factor must be finite, and at least one frequency given";
        return Err(Error::op("rope", message));
    }
    if matches!(device, Device::Cuda(_)) && !device.is_plan() {
        // Computed once on the host, in f64: angles of far positions need it.
        let table = cos_sin_table(&Device::cpu(), positions, inverse_frequencies, attention_factor)?;
        return table.to(device, Label::Weights);
    }
    let mut table = device.empty(Label::Weights, [positions, 2 * inverse_frequencies.len()], DType::F32);
    if let Device::Cpu(_) = device {
        cpu::table(&mut table, inverse_frequencies, attention_factor)?;
    }
    Ok(table)
}

struct Rope {
    heads: usize,
}

impl Op for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn forward(&self, cx: &Ctx, x: &[&Tensor], save: &mut Saved) -> Result<Outs> {
        let [x, positions, table] = x else { unreachable!("rope has three inputs") };
        let (rows, columns) = x.shape().as_matrix();
        let (limit, dim) = table.shape().as_matrix();
        if columns != self.heads * dim || x.dtype() == DType::I32 {
            let heads = self.heads;
            return Err(Error::new(format!("a row of x {x:?} is not {heads} heads of the table {table:?}")));
        }
        if positions.shape()[..] != [rows] {
            return Err(Error::new(format!("positions {positions:?} are not one for each row of x {x:?}")));
        }
        if let Device::Cpu(_) = cx.device() {
            check_positions(positions.slice()?, limit)?;
        }
        save.keep_all([*positions, *table]);
        Ok(vec![rotated(cx, x, positions, table, 1.0)?])
    }

    fn backward(
        &self,
        cx: &Ctx,
        saved: &Saved,
        dy: &[Option<Tensor>],
        dx: &mut InputGrads<'_>,
    ) -> Result<()> {
        let Some(dy) = &dy[0] else { return Ok(()) };
        dx.add(0, rotated(cx, dy, &saved[0], &saved[1], -1.0)?)
    }
}

fn check_positions(positions: &[i32], limit: usize) -> Result<()> {
    match positions.iter().position(|&p| p < 0 || p as usize >= limit) {
        Some(t) => {
            Err(Error::new(format!("token {t} is at position {}, the table has {limit}", positions[t])))
        }
        None => Ok(()),
    }
}

/// Returns x rotated forwards (`direction` 1) or backwards (−1).
fn rotated(cx: &Ctx, x: &Tensor, positions: &Tensor, table: &Tensor, direction: f32) -> Result<Tensor> {
    let mut y = cx.empty(*x.shape(), x.dtype());
    match (cx.device(), x.dtype()) {
        (Device::Cpu(_), DType::BF16) => cpu::rotate::<bf16>(&mut y, x, positions, table, direction)?,
        (Device::Cpu(_), _) => cpu::rotate::<f32>(&mut y, x, positions, table, direction)?,
        (Device::Cuda(cuda), _) => cuda::rotate(cuda, &mut y, x, positions, table, direction)?,
        (Device::Plan(_), _) => {}
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_outside_the_table_is_named() {
        let device = Device::cpu();
        let angles = cos_sin_table(&device, 4, &[1.0], 1.0).unwrap();
        let x = device.zeros(Label::Activations, [3, 2], DType::F32);
        for bad in [4, -1] {
            let positions = device.tensor(Label::Activations, [3], &[0, 3, bad]).unwrap();
            let error = rope(&Ctx::inference(&device), &x, &positions, &angles, 1).unwrap_err();
            assert_eq!(error.to_string(), format!("rope: token 2 is at position {bad}, the table has 4"));
        }
    }

    #[test]
    fn angles_of_far_positions_are_exact_to_one_rounding() {
        let angles = cos_sin_table(&Device::cpu(), 16384, &inverse_frequencies(8, 1e6), 1.25).unwrap();
        let row = &angles.slice::<f32>().unwrap()[16383 * 8..];
        for j in 0..4 {
            let angle = 16383.0 * 1e6f64.powf(-2.0 * j as f64 / 8.0);
            assert_eq!(row[j], (1.25 * angle.cos()) as f32);
            assert_eq!(row[j + 4], (1.25 * angle.sin()) as f32);
        }
    }

    #[test]
    fn frequencies_that_overflow_are_refused() {
        for (frequencies, factor) in
            [(vec![1.0, f64::INFINITY], 1.0), (vec![1e308], 1.0), (vec![1.0], f64::NAN), (vec![], 1.0)]
        {
            let error = cos_sin_table(&Device::cpu(), 4096, &frequencies, factor).unwrap_err().to_string();
            assert!(error.contains("must be finite"), "{error}");
        }
    }
}
