//! sin and cos in the order of operations of Sun's fdlibm (`k_sin.c`, `k_cos.c`, `e_rem_pio2.c`).

use super::reduction::large;
use super::words::{from_high, high};
use std::f64::consts::FRAC_PI_2;

pub fn sin(x: f64) -> f64 {
    let (quarter, r, tail) = reduced(x);
    match quarter & 3 {
        0 => kernel_sin(r, tail),
        1 => kernel_cos(r, tail),
        2 => -kernel_sin(r, tail),
        _ => -kernel_cos(r, tail),
    }
}

pub fn cos(x: f64) -> f64 {
    let (quarter, r, tail) = reduced(x);
    match quarter & 3 {
        0 => kernel_cos(r, tail),
        1 => -kernel_sin(r, tail),
        2 => -kernel_cos(r, tail),
        _ => kernel_sin(r, tail),
    }
}

/// Evaluates a polynomial, the constant term first.
fn polynomial(coefficients: &[f64], z: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| c + z * sum)
}

/// Returns the sine of x + tail, |x| ≤ π/4; `tail` is `None` where x is exact.
fn kernel_sin(x: f64, tail: Option<f64>) -> f64 {
    const S1: f64 = f64::from_bits(0xbfc5_5555_5555_5549);
    const S: [f64; 5] = [
        f64::from_bits(0x3f81_1111_1110_f8a6),
        f64::from_bits(0xbf2a_01a0_19c1_61d5),
        f64::from_bits(0x3ec7_1de3_57b1_fe7d),
        f64::from_bits(0xbe5a_e5e6_8a2b_9ceb),
        f64::from_bits(0x3de5_d93a_5acf_d57c),
    ];
    if high(x.abs()) < 0x3e40_0000 {
        return x;
    }
    let z = x * x;
    let v = z * x;
    let r = polynomial(&S, z);
    match tail {
        None => x + v * (S1 + z * r),
        Some(tail) => x - ((z * (0.5 * tail - v * r) - tail) - v * S1),
    }
}

/// Returns the cosine of x + tail, |x| ≤ π/4: from |x| = 0.3 on, 1 and x²/2 are both lessened by about x/4, which is exact.
fn kernel_cos(x: f64, tail: Option<f64>) -> f64 {
    const C: [f64; 6] = [
        f64::from_bits(0x3fa5_5555_5555_554c),
        f64::from_bits(0xbf56_c16c_16c1_5177),
        f64::from_bits(0x3efa_01a0_19cb_1590),
        f64::from_bits(0xbe92_7e4f_809c_52ad),
        f64::from_bits(0x3e21_ee9e_bdb4_b1c4),
        f64::from_bits(0xbda8_fae9_be88_38d4),
    ];
    if high(x.abs()) < 0x3e40_0000 {
        return 1.0;
    }
    let z = x * x;
    let r = z * polynomial(&C, z);
    let rest = z * r - x * tail.unwrap_or(0.0);
    if high(x.abs()) < 0x3fd3_3333 {
        return 1.0 - (0.5 * z - rest);
    }
    let part = if high(x.abs()) > 0x3fe9_0000 { 0.28125 } else { from_high(high(x.abs()) - 0x20_0000) };
    (1.0 - part) - ((0.5 * z - part) - rest)
}

/// π/2 in parts of 33 bits, each with all that comes after it.
const PARTS: [(f64, f64); 3] = [
    (f64::from_bits(0x3ff9_21fb_5440_0000), f64::from_bits(0x3dd0_b461_1a62_6331)),
    (f64::from_bits(0x3dd0_b461_1a60_0000), f64::from_bits(0x3ba3_198a_2e03_7073)),
    (f64::from_bits(0x3ba3_198a_2e00_0000), f64::from_bits(0x397b_839a_2520_49c1)),
];

/// Returns x − n·π/2 as a number and its tail, |x| at most about π/4, and n modulo 4.
fn reduced(x: f64) -> (i32, f64, Option<f64>) {
    if high(x.abs()) <= 0x3fe9_21fb {
        return (0, x, None);
    }
    let (n, r, tail) = match high(x.abs()) {
        0x7ff0_0000.. => return (0, f64::NAN, None),
        0x4139_21fc.. => large(x.abs()),
        0x4002_d97c.. => medium(x.abs()),
        _ => {
            // Near π/2 the second part is needed from the start.
            let near = high(x.abs()) == 0x3ff9_21fb;
            let (z, rest) = match near {
                false => (x.abs() - PARTS[0].0, PARTS[0].1),
                true => (x.abs() - PARTS[0].0 - PARTS[1].0, PARTS[1].1),
            };
            let r = z - rest;
            (1, r, (z - r) - rest)
        }
    };
    if x < 0.0 { (-n, -r, Some(-tail)) } else { (n, r, Some(tail)) }
}

/// Reduces 3π/4 ≤ x ≤ 2¹⁹·π/2 by as many parts of π/2 as the cancellation asks for.
fn medium(x: f64) -> (i32, f64, f64) {
    const INVERSE: f64 = f64::from_bits(0x3fe4_5f30_6dc9_c883);
    let exponent = |x: f64| (high(x.abs()) >> 20) as i32;
    let n = (x * INVERSE + 0.5) as i32;
    let fraction = f64::from(n);
    let (mut r, mut w) = (x - fraction * PARTS[0].0, fraction * PARTS[0].1);
    let mut first = r - w;
    let cancels = |first: f64, bits: i32| exponent(x) - exponent(first) > bits;
    if n >= 32 || high(x) == high(fraction * FRAC_PI_2) {
        for (part, bits) in PARTS[1..].iter().zip([16, 49]) {
            if !cancels(first, bits) {
                break;
            }
            let before = r;
            w = fraction * part.0;
            r = before - w;
            w = fraction * part.1 - ((before - r) - w);
            first = r - w;
        }
    }
    (n, first, (r - first) - w)
}
