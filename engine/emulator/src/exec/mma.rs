//! `mma.sync`: a warp multiplies two small matrices held in its lanes' registers.
//!
//! With `g = lane / 4` and `t = lane % 4`, the fragments of the shapes m16n8k16 (16-bit inputs) lie so
//! (row, column of the matrix; a register holds a pair of neighbours along k, the lower one in the low half):
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

use super::registers::Registers;
use crate::inst::{FULL, Inst, LANES, Mma};

/// Shape along k, elements per register, registers of A and B.
pub fn shape(kind: Mma) -> (usize, usize, usize, usize) {
    match kind {
        Mma::Bf16K16 | Mma::F16K16 => (16, 2, 4, 2),
        Mma::Bf16K8 | Mma::F16K8 => (8, 2, 2, 1),
        Mma::Tf32K8 => (8, 1, 4, 2),
        Mma::Tf32K4 => (4, 1, 2, 1),
    }
}

/// f16 to f32 without branches: the exponent is moved by a multiplication, which also takes subnormals.
#[inline(always)]
fn f16_value(raw: u32) -> f32 {
    let magnitude = f32::from_bits((raw & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let special = if raw & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (raw & 0x8000) << 16)
}

#[inline(always)]
fn element(kind: Mma, word: u32, half: usize) -> f32 {
    match kind {
        Mma::Bf16K16 | Mma::Bf16K8 => f32::from_bits((word >> (16 * half)) << 16),
        Mma::F16K16 | Mma::F16K8 => f16_value(word >> (16 * half) & 0xffff),
        // The tensor core reads the upper 19 bits.
        Mma::Tf32K8 | Mma::Tf32K4 => f32::from_bits(word & 0xffff_e000),
    }
}

/// D = A B + C. All lanes take part.
#[inline(always)]
pub fn execute(r: &mut Registers<'_>, i: &Inst, kind: Mma) {
    let (k_size, per, a_registers, b_registers) = shape(kind);
    let (mut a, mut b, mut c) = ([[0f32; 16]; 16], [[0f32; 8]; 16], [[0f32; 8]; 16]);
    for n in 0..a_registers {
        let row = r.word(i.src[n]);
        for lane in 0..LANES {
            for half in 0..per {
                let k = (lane % 4) * per + half + (n / 2) * 4 * per;
                a[k][lane / 4 + 8 * (n % 2)] = element(kind, row[lane], half);
            }
        }
    }
    for n in 0..b_registers {
        let row = r.word(i.src[4 + n]);
        for lane in 0..LANES {
            for half in 0..per {
                b[(lane % 4) * per + half + n * 4 * per][lane / 4] = element(kind, row[lane], half);
            }
        }
    }
    for n in 0..4 {
        let row = r.word(i.src[6 + n]);
        for lane in 0..LANES {
            c[lane / 4 + 8 * (n / 2)][(lane % 4) * 2 + n % 2] = f32::from_bits(row[lane]);
        }
    }
    for (m, c) in c.iter_mut().enumerate() {
        for k in 0..k_size {
            for n in 0..8 {
                c[n] = a[k][m].mul_add(b[k][n], c[n]);
            }
        }
    }
    for n in 0..4 {
        let new = std::array::from_fn(|lane| {
            let x: f32 = c[lane / 4 + 8 * (n / 2)][(lane % 4) * 2 + n % 2];
            if x.is_nan() { crate::lane::float::NAN32 } else { x.to_bits() }
        });
        r.set_word(i.dst[n], &new, FULL);
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
