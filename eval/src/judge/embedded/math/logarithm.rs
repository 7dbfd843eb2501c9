//! log, log1p and log10 in the order of operations of Sun's fdlibm (`e_log.c`, `s_log1p.c`, and `log10` as V8 has it).
//!
//! x = 2ᵏ·(1 + f); with s = f/(2 + f), log(1 + f) = 2s + s·R(s²), of which the largest part, f − f²/2, is added last.

use super::words::{high, with_high};

const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
/// Coefficients of R, a polynomial in s² without constant term.
const R: [f64; 7] = [
    f64::from_bits(0x3fe5_5555_5555_5593),
    f64::from_bits(0x3fd9_9999_9997_fa04),
    f64::from_bits(0x3fd2_4924_9422_9359),
    f64::from_bits(0x3fcc_71c5_1d8e_78af),
    f64::from_bits(0x3fc7_4664_96cb_03de),
    f64::from_bits(0x3fc3_9a09_d078_c69f),
    f64::from_bits(0x3fc2_f112_df3e_5244),
];
const TWO_53: f64 = 9_007_199_254_740_992.0;
const TWO_54: f64 = 2.0 * TWO_53;

/// Returns the exponent of a positive normal number.
fn exponent(x: f64) -> i32 {
    (high(x) >> 20) as i32 - 1023
}

/// Returns the logarithm of zero, of a negative number, of infinity and of NaN; `None` for all others.
fn of_special(x: f64) -> Option<f64> {
    match x {
        0.0 => Some(f64::NEG_INFINITY),
        x if x < 0.0 => Some(f64::NAN),
        x if !x.is_finite() => Some(x),
        _ => None,
    }
}

/// Splits a positive finite number into a factor in [1, 2) and the exponent of 2.
fn split(x: f64) -> (f64, i32) {
    let (x, below) = if x < f64::MIN_POSITIVE { (x * TWO_54, 54) } else { (x, 0) };
    (with_high(x, high(x) & 0xf_ffff | 0x3ff0_0000), exponent(x) - below)
}

pub fn log(x: f64) -> f64 {
    if let Some(special) = of_special(x) {
        return special;
    }
    let (m, mut k) = split(x);
    let fraction = high(m) & 0xf_ffff;
    // A factor above √2 is halved.
    let halved = (fraction + 0x9_5f64) & 0x10_0000;
    let f = with_high(m, fraction | (halved ^ 0x3ff0_0000)) - 1.0;
    k += (halved >> 20) as i32;
    let dk = f64::from(k);
    if 0xf_ffff & (fraction + 2) < 3 {
        // |f| < 2⁻²⁰
        let r = f * f * (0.5 - 1.0 / 3.0 * f);
        return match (f == 0.0, k) {
            (true, _) => dk * LN2_HIGH + dk * LN2_LOW,
            (_, 0) => f - r,
            _ => dk * LN2_HIGH - ((r - dk * LN2_LOW) - f),
        };
    }
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * (R[1] + w * (R[3] + w * R[5]));
    let odd = z * (R[0] + w * (R[2] + w * (R[4] + w * R[6])));
    let r = odd + even;
    // Where f is large, f²/2 is kept apart.
    let large = (fraction as i32 - 0x6_147a) | (0x6_b851 - fraction as i32) > 0;
    let half = 0.5 * f * f;
    match (large, k) {
        (true, 0) => f - (half - s * (half + r)),
        (true, _) => dk * LN2_HIGH - ((half - (s * (half + r) + dk * LN2_LOW)) - f),
        (false, 0) => f - s * (f - r),
        (false, _) => dk * LN2_HIGH - ((s * (f - r) - dk * LN2_LOW) - f),
    }
}

pub fn log1p(x: f64) -> f64 {
    /// Upper halves.
    const SQRT_2_LESS_1: u32 = 0x3fda_827a;
    /// The upper half of √½ − 1, which is negative.
    const SQRT_HALF_LESS_1: u32 = 0xbfd2_bec4;
    if x <= -1.0 || !x.is_finite() {
        return if x == -1.0 {
            f64::NEG_INFINITY
        } else if x == f64::INFINITY {
            x
        } else {
            f64::NAN
        };
    }
    let a = high(x) & 0x7fff_ffff;
    if a < 0x3e20_0000 {
        // |x| < 2⁻²⁹
        return if a < 0x3c90_0000 { x } else { x - x * x * 0.5 };
    }
    let near_one = if x > 0.0 { high(x) < SQRT_2_LESS_1 } else { high(x) <= SQRT_HALF_LESS_1 };
    if near_one {
        return of_factor(x, 0, 0.0, false);
    }
    // The rounded 1 + x, and what the rounding has lost relative to it.
    let (u, lost) = if x < TWO_53 {
        let u = 1.0 + x;
        let lost = if exponent(u) > 0 { 1.0 - (u - x) } else { x - (u - 1.0) };
        (u, lost / u)
    } else {
        (x, 0.0)
    };
    let fraction = high(u) & 0xf_ffff;
    match fraction < 0x6_a09e {
        true => of_factor(with_high(u, fraction | 0x3ff0_0000) - 1.0, exponent(u), lost, fraction == 0),
        false => {
            let tiny = (0x10_0000 - fraction) >> 2 == 0;
            of_factor(with_high(u, fraction | 0x3fe0_0000) - 1.0, exponent(u) + 1, lost, tiny)
        }
    }
}

/// Returns log(2ᵏ·(1 + f)) + `lost`; `tiny` says that |f| < 2⁻²⁰.
fn of_factor(f: f64, k: i32, lost: f64, tiny: bool) -> f64 {
    let dk = f64::from(k);
    let half = 0.5 * f * f;
    if tiny {
        if f == 0.0 {
            return if k == 0 { 0.0 } else { dk * LN2_HIGH + (lost + dk * LN2_LOW) };
        }
        let r = half * (1.0 - 2.0 / 3.0 * f);
        return if k == 0 { f - r } else { dk * LN2_HIGH - ((r - (dk * LN2_LOW + lost)) - f) };
    }
    let s = f / (2.0 + f);
    let z = s * s;
    let r = R.iter().rev().fold(0.0, |sum, c| z * (c + sum));
    match k {
        0 => f - (half - s * (half + r)),
        _ => dk * LN2_HIGH - ((half - (s * (half + r) + (dk * LN2_LOW + lost))) - f),
    }
}

/// Computes log10(2ᵏ·m) as k·log10(2) + log(m)/log(10), log10(2) in two parts.
pub fn log10(x: f64) -> f64 {
    const LOG10_2: [f64; 2] = [f64::from_bits(0x3fd3_4413_509f_6000), f64::from_bits(0x3d59_fef3_11f1_2b36)];
    const INVERSE_LN_10: f64 = f64::from_bits(0x3fdb_cb7b_1526_e50e);
    if let Some(special) = of_special(x) {
        return special;
    }
    let (m, k) = split(x);
    // In [1, 2) where k is not negative, else in [1/2, 1).
    let (m, k) = if k < 0 { (0.5 * m, k + 1) } else { (m, k) };
    let k = f64::from(k);
    k * LOG10_2[1] + INVERSE_LN_10 * log(m) + k * LOG10_2[0]
}
