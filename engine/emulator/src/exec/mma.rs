//! `mma.sync`: a warp multiplies two small matrices held in its lanes' registers.
//!
//! With `g = lane / 4` and `t = lane % 4` (PTX: groupID and threadID_in_group), the fragments of m16n8k16 with 16-bit
//! inputs are (row, column of the matrix; a register holds two neighbours along k, the lower one in the low half):
//!
//! | register | A (m x k)          | B (k x n)          | C, D (m x n)    |
//! |----------|--------------------|--------------------|-----------------|
//! | 0        | (g, 2t..2t+1)      | (2t..2t+1, g)      | (g, 2t)         |
//! | 1        | (g+8, 2t..2t+1)    | (2t+8..2t+9, g)    | (g, 2t+1)       |
//! | 2        | (g, 2t+8..2t+9)    |                    | (g+8, 2t)       |
//! | 3        | (g+8, 2t+8..2t+9)  |                    | (g+8, 2t+1)     |
//!
//! m16n8k8 with 16-bit inputs has registers 0 and 1 of A and register 0 of B. With tf32 a register holds one
//! element: A is (g, t), (g+8, t), (g, t+4), (g+8, t+4), B is (t, g), (t+4, g); m16n8k4 has the first half of
//! each. C and D are the same in all shapes.
//!
//! Products are exact and added to the accumulator one by one, k ascending, each sum rounded to nearest; the
//! hardware adds groups of products with more bits and truncates, in an order it does not document.

use super::alu::canonical;
use super::registers::{Registers, row};
use crate::inst::{FULL, Inst, LANES, MmaShape};

/// Returns the numbers of registers that hold A and B.
pub fn registers(kind: MmaShape) -> (usize, usize) {
    match kind {
        MmaShape::Bf16K16 | MmaShape::F16K16 | MmaShape::Tf32K8 => (4, 2),
        MmaShape::Bf16K8 | MmaShape::F16K8 | MmaShape::Tf32K4 => (2, 1),
    }
}

/// Converts f16 to f32 without branches: a multiplication moves the exponent, which is right for subnormals too.
#[inline(always)]
fn f16_value(raw: u32) -> f32 {
    let magnitude = f32::from_bits((raw & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let special = if raw & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (raw & 0x8000) << 16)
}

/// Reads one half of a register as bf16.
#[inline(always)]
fn bf16_half(word: u32, half: usize) -> f32 {
    f32::from_bits(if half == 0 { word << 16 } else { word & 0xffff_0000 })
}

/// Reads one half of a register as f16.
#[inline(always)]
fn f16_half(word: u32, half: usize) -> f32 {
    f16_value(word >> (16 * half) & 0xffff)
}

/// Reads a register as tf32: the tensor core uses the upper 19 bits.
#[inline(always)]
fn tf32(word: u32, _: usize) -> f32 {
    f32::from_bits(word & 0xffff_e000)
}

/// Computes D = A B + C. All 32 lanes take part.
#[inline(always)]
pub fn execute(r: &mut Registers<'_>, i: &Inst, kind: MmaShape) {
    match kind {
        MmaShape::Bf16K16 => product::<2, 2>(r, i, bf16_half),
        MmaShape::Bf16K8 => product::<2, 1>(r, i, bf16_half),
        MmaShape::F16K16 => product::<2, 2>(r, i, f16_half),
        MmaShape::F16K8 => product::<2, 1>(r, i, f16_half),
        MmaShape::Tf32K8 => product::<1, 2>(r, i, tf32),
        MmaShape::Tf32K4 => product::<1, 1>(r, i, tf32),
    }
}

/// Computes the product with `PER` elements in a register and `DEPTH` registers of B.
///
/// Four neighbouring lanes hold a row of A, C and D, so these rows are read from the fragments in place. Only B is
/// transposed, to rows of 8 columns; within a row the even columns come first, as in C.
#[inline(always)]
fn product<const PER: usize, const DEPTH: usize>(
    r: &mut Registers<'_>,
    i: &Inst,
    element: impl Fn(u32, usize) -> f32 + Copy,
) {
    let mut b = [[0f32; 8]; 16];
    for n in 0..DEPTH {
        let words = r.b32(i.src[4 + n]);
        for t in 0..4 {
            for half in 0..PER {
                let b = &mut b[(n * 4 + t) * PER + half];
                for c in 0..4 {
                    b[c] = element(words[8 * c + t], half);
                    b[4 + c] = element(words[8 * c + 4 + t], half);
                }
            }
        }
    }
    // D may share registers with A, B or C: all are read before any is written.
    let mut new = [[0; LANES]; 4];
    for upper in 0..2 {
        let mut a = [[[0f32; LANES]; PER]; DEPTH];
        for (n, a) in a.iter_mut().enumerate() {
            let words = r.b32(i.src[upper + 2 * n]);
            for (half, a) in a.iter_mut().enumerate() {
                *a = row(|lane| element(words[lane], half));
            }
        }
        let (even, odd) = (r.b32(i.src[6 + 2 * upper]), r.b32(i.src[7 + 2 * upper]));
        for first in (0..LANES).step_by(4) {
            let mut sum = [0f32; 8];
            for t in 0..4 {
                (sum[t], sum[4 + t]) = (f32::from_bits(even[first + t]), f32::from_bits(odd[first + t]));
            }
            for n in 0..DEPTH {
                for t in 0..4 {
                    for half in 0..PER {
                        let x = a[n][half][first + t];
                        let b = &b[(n * 4 + t) * PER + half];
                        for c in 0..8 {
                            sum[c] = x.mul_add(b[c], sum[c]);
                        }
                    }
                }
            }
            for t in 0..4 {
                new[2 * upper][first + t] = canonical(sum[t]);
                new[2 * upper + 1][first + t] = canonical(sum[4 + t]);
            }
        }
    }
    for (n, new) in new.iter().enumerate() {
        r.set_b32(i.dst[n], new, FULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_exactly() {
        for raw in 0..=u16::MAX {
            let want = half::f16::from_bits(raw).to_f32();
            let got = f16_value(raw as u32);
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{raw:#x}");
        }
    }
}
