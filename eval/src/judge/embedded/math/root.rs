//! cbrt in the order of operations of FreeBSD's `s_cbrt.c`, which V8 has.

use super::words::{from_high, high};

/// Approximates the root to 5 bits by a third of the exponent, to 23 by a polynomial, and to 53 by one step of Newton's.
pub fn cbrt(x: f64) -> f64 {
    /// Coefficients of 1/∛r near 1.
    const P: [f64; 5] = [
        f64::from_bits(0x3ffe_03e6_0f61_e692),
        f64::from_bits(0xbffe_28e0_92f0_2420),
        f64::from_bits(0x3ff9_f160_4a49_d6c2),
        f64::from_bits(0xbfe8_44cb_bee7_51d9),
        f64::from_bits(0x3fc2_b000_d4e4_edd7),
    ];
    const BIAS: u32 = 715_094_163;
    const BIAS_OF_SUBNORMAL: u32 = 696_219_795;
    const TWO_54: f64 = 18_014_398_509_481_984.0;
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let a = high(x.abs());
    let third = match a < 0x10_0000 {
        true => high(x.abs() * TWO_54) / 3 + BIAS_OF_SUBNORMAL,
        false => a / 3 + BIAS,
    };
    let t = from_high(third).copysign(x);
    let r = (t * t) * (t / x);
    let t = t * ((P[0] + r * (P[1] + r * P[2])) + ((r * r) * r) * (P[3] + r * P[4]));
    // To 23 bits, away from zero, so that t² is exact.
    let t = f64::from_bits((t.to_bits() + 0x8000_0000) & 0xffff_ffff_c000_0000);
    let quotient = x / (t * t);
    t + t * ((quotient - t) / (t + t + quotient))
}
