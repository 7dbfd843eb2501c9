//! f16 and bf16 instructions, scalar and packed.
//!
//! Every operand is exact in f64; a sum's rounding error is exact too, so each result is rounded once.

use super::float::{FTZ, NAN, RELU, SAT, XOR_SIGN, rounding};
use super::round::{BF16, F16, round, two_sum};
use half::{bf16, f16};

/// Mode: operands are bf16 instead of f16.
pub const MODE_BF16: u32 = 1 << 8;
/// Mode: two values packed in 32 bits.
pub const PACKED: u32 = 1 << 9;

const NAN16: u16 = 0x7fff;

pub fn widen(raw: u16, mode: u32) -> f64 {
    if mode & MODE_BF16 != 0 { bf16::from_bits(raw).to_f64() } else { f16::from_bits(raw).to_f64() }
}

/// Rounds once to the format of the mode.
pub fn narrow(high: f64, low: f64, mode: u32) -> u16 {
    if high.is_nan() {
        return NAN16;
    }
    let is_bf16 = mode & MODE_BF16 != 0;
    let v = round(high, low, if is_bf16 { BF16 } else { F16 }, rounding(mode));
    let v = if mode & FTZ != 0 && v.abs() < f16::MIN_POSITIVE.to_f64() { 0f64.copysign(v) } else { v };
    let v = if mode & SAT != 0 { v.clamp(0.0, 1.0) } else { v };
    let v = if mode & RELU != 0 && v < 0.0 { 0.0 } else { v };
    // The value is representable, so these conversions are exact.
    if is_bf16 { ((v as f32).to_bits() >> 16) as u16 } else { f16::from_f32(v as f32).to_bits() }
}

fn input(raw: u64, mode: u32) -> f64 {
    let v = widen(raw as u16, mode);
    if mode & FTZ != 0 && v.abs() < f16::MIN_POSITIVE.to_f64() { 0f64.copysign(v) } else { v }
}

/// Applies `f` to the value, or to both packed values.
fn map_halves(a: &[u64; 4], mode: u32, f: impl Fn(&[u64; 4]) -> u16) -> u64 {
    let low = f(a) as u64;
    if mode & PACKED == 0 { low } else { low | (f(&a.map(|x| x >> 16)) as u64) << 16 }
}

fn sum(a: f64, b: f64, mode: u32) -> u16 {
    let (high, low) = two_sum(a, b);
    narrow(high, if low.is_nan() { 0.0 } else { low }, mode)
}

pub fn add(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| sum(input(x[0], m), input(x[1], m), m))
}

pub fn sub(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| sum(input(x[0], m), -input(x[1], m), m))
}

pub fn mul(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| narrow(input(x[0], m) * input(x[1], m), 0.0, m))
}

pub fn fma(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| sum(input(x[0], m) * input(x[1], m), input(x[2], m), m))
}

pub fn min(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| select(x, m, |p, q| p < q || p == q && p.is_sign_negative()))
}

pub fn max(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| select(x, m, |p, q| p > q || p == q && q.is_sign_negative()))
}

fn select(x: &[u64; 4], m: u32, first: fn(f64, f64) -> bool) -> u16 {
    let magnitude = if m & XOR_SIGN != 0 { 0x7fff } else { 0xffff };
    let sign = if m & XOR_SIGN != 0 { (x[0] ^ x[1]) as u16 & 0x8000 } else { 0 };
    let (p, q) = (input(x[0] & magnitude, m), input(x[1] & magnitude, m));
    if p.is_nan() && q.is_nan() || m & NAN != 0 && (p.is_nan() || q.is_nan()) {
        return NAN16;
    }
    let chosen = if q.is_nan() || !p.is_nan() && first(p, q) { x[0] & magnitude } else { x[1] & magnitude };
    let flushed = if m & FTZ != 0 && input(chosen, m) == 0.0 { chosen & 0x8000 } else { chosen };
    flushed as u16 | sign
}

pub fn neg(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| x[0] as u16 ^ 0x8000)
}

pub fn abs(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| x[0] as u16 & 0x7fff)
}

pub fn ex2(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| narrow(input(x[0], m).exp2(), 0.0, m))
}

pub fn tanh(a: &[u64; 4], m: u32) -> u64 {
    map_halves(a, m, |x| narrow(input(x[0], m).tanh(), 0.0, m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_sum_rounds_as_the_exact_sum_does() {
        for i in (0..=u16::MAX).step_by(97) {
            for j in (0..=u16::MAX).step_by(1009) {
                let (x, y) = (f16::from_bits(i), f16::from_bits(j));
                // f32 holds the sum of two f16 to within far less than half an ulp of f16 unless it is a tie.
                let want = f16::from_f32(x.to_f32() + y.to_f32());
                let got = f16::from_bits(add(&[i as u64, j as u64, 0, 0], 0) as u16);
                assert!(got == want || got.is_nan() && want.is_nan(), "{x} + {y}");
            }
        }
    }

    #[test]
    fn packed_halves_are_independent() {
        let one = f16::ONE.to_bits() as u64;
        let x = one | (f16::from_f32(3.0).to_bits() as u64) << 16;
        let y = add(&[x, x, 0, 0], PACKED);
        assert_eq!(f16::from_bits(y as u16).to_f32(), 2.0);
        assert_eq!(f16::from_bits((y >> 16) as u16).to_f32(), 6.0);
    }

    #[test]
    fn bf16_fma_rounds_once() {
        let b = |x: f32| bf16::from_f32(x).to_bits() as u64;
        // 1.0078125² + 2⁻²⁰ is just above a tie that two roundings would take the wrong way.
        let x = bf16::from_bits(0x3f81);
        let got = fma(&[0x3f81, 0x3f81, b(2f32.powi(-20)), 0], MODE_BF16) as u16;
        let exact = x.to_f64() * x.to_f64() + 2f64.powi(-20);
        let (below, above) = (bf16::from_bits(got - 1).to_f64(), bf16::from_bits(got + 1).to_f64());
        let error = (bf16::from_bits(got).to_f64() - exact).abs();
        assert!(error <= (below - exact).abs() && error <= (above - exact).abs());
        assert_eq!(fma(&[b(-1.0), b(1.0), b(0.5), 0], MODE_BF16 | RELU), 0);
        assert_eq!(add(&[b(f32::NAN), 0, 0, 0], MODE_BF16), 0x7fff);
    }
}
