//! pow in the order of operations of Sun's fdlibm (`e_pow.c`), with the one quotient that V8 forms otherwise.

use super::words::{from_high, high, upper, with_high};

/// Computes the power as 2 to y·log2(|x|), with log2 and the product in two parts each.
pub fn pow(x: f64, y: f64) -> f64 {
    if let Some(special) = of_special(x, y) {
        return special;
    }
    let sign = if x < 0.0 && is_odd(y) { -1.0 } else { 1.0 };
    let a = x.abs();
    let near_one = matches!(high(a), 0x3fef_ffff | 0x3ff0_0000);
    let (log, tail) = match high(y.abs()) {
        0x43f0_0001.. => return sign * limit(a, y),
        0x41e0_0001.. if !near_one => return sign * limit(a, y),
        0x41e0_0001.. => log2_near_one(a),
        _ => log2(a),
    };
    let first = upper(y);
    sign * exp2(first * log, (y - first) * log + y * tail)
}

/// Returns the powers that need no computing.
fn of_special(x: f64, y: f64) -> Option<f64> {
    let a = x.abs();
    Some(match y {
        0.0 => 1.0,
        _ if x.is_nan() || y.is_nan() => f64::NAN,
        _ if y.is_infinite() => match a {
            1.0 => f64::NAN,
            _ => limit(a, y),
        },
        1.0 => x,
        -1.0 => 1.0 / x,
        2.0 => x * x,
        0.5 if x.is_sign_positive() => x.sqrt(),
        _ if x < 0.0 && x.is_finite() && y.fract() != 0.0 => f64::NAN,
        _ if matches!(a, 0.0 | 1.0 | f64::INFINITY) => {
            let power = if y < 0.0 { 1.0 / a } else { a };
            if x.is_sign_negative() && is_odd(y) { -power } else { power }
        }
        _ => return None,
    })
}

/// Returns what the power of a number other than 1 tends to as |y| grows.
fn limit(a: f64, y: f64) -> f64 {
    if (a > 1.0) == (y > 0.0) { f64::INFINITY } else { 0.0 }
}

fn is_odd(y: f64) -> bool {
    y % 2.0 == 1.0 || y % 2.0 == -1.0
}

/// 1/ln 2, and in two parts of which the first has 21 bits.
const LOG2_E: f64 = f64::from_bits(0x3ff7_1547_652b_82fe);
const LOG2_E_PARTS: [f64; 2] = [f64::from_bits(0x3ff7_1547_6000_0000), f64::from_bits(0x3e54_ae0b_f85d_df44)];

/// Returns log2 of a number within 2⁻²⁰ of 1: a number without lower half, and its tail.
fn log2_near_one(a: f64) -> (f64, f64) {
    let t = a - 1.0;
    let w = (t * t) * (0.5 - t * (1.0 / 3.0 - t * 0.25));
    let u = LOG2_E_PARTS[0] * t;
    let v = t * LOG2_E_PARTS[1] - w * LOG2_E;
    let log = upper(u + v);
    (log, v - (log - u))
}

/// Returns log2 of a positive number: a number without lower half, and its tail. With the nearest c of 1 and 3/2, and
/// s = (a − c)/(a + c), log2(a) = log2(c) + 2/(3·ln 2)·(3s + s³·L(s²)).
fn log2(a: f64) -> (f64, f64) {
    const TWO_53: f64 = 9_007_199_254_740_992.0;
    const L: [f64; 6] = [
        f64::from_bits(0x3fe3_3333_3333_3303),
        f64::from_bits(0x3fdb_6db6_db6f_abff),
        f64::from_bits(0x3fd5_5555_518f_264d),
        f64::from_bits(0x3fd1_7460_a91d_4101),
        f64::from_bits(0x3fcd_864a_93c9_db65),
        f64::from_bits(0x3fca_7e28_4a45_4eef),
    ];
    /// 2/(3·ln 2), and in two parts.
    const FACTOR: f64 = f64::from_bits(0x3fee_c709_dc3a_03fd);
    const FACTOR_PARTS: [f64; 2] =
        [f64::from_bits(0x3fee_c709_e000_0000), f64::from_bits(0xbe3e_2fe0_145b_01f5)];
    let (a, below) = if a < f64::MIN_POSITIVE { (a * TWO_53, 53) } else { (a, 0) };
    let mut exponent = (high(a) >> 20) as i32 - 1023 - below;
    let fraction = high(a) & 0xf_ffff;
    let mut normalized = fraction | 0x3ff0_0000;
    // The number c, a shift that makes a + c of the bits of a, and log2(c) in two parts.
    let (c, shift, log_c) = match fraction {
        0x3_988f..0xb_b67a => {
            (1.5, 1 << 18, [f64::from_bits(0x3fe2_b803_4000_0000), f64::from_bits(0x3e4c_fdeb_43cf_d006)])
        }
        _ => (1.0, 0, [0.0, 0.0]),
    };
    if fraction >= 0xb_b67a {
        exponent += 1;
        normalized -= 0x10_0000;
    }
    let a = with_high(a, normalized);
    let (u, v) = (a - c, 1.0 / (a + c));
    let s = u * v;
    let s_high = upper(s);
    let sum_high = from_high((normalized >> 1 | 0x2000_0000) + 0x8_0000 + shift);
    let s_low = v * ((u - s_high * sum_high) - s_high * (a - (sum_high - c)));
    let z = s * s;
    let series = L[..5].iter().rev().fold(L[5], |sum, l| l + z * sum);
    let r = z * z * series + s_low * (s_high + s);
    let z = s_high * s_high;
    let t_high = upper(3.0 + z + r);
    let t_low = r - ((t_high - 3.0) - z);
    let (u, v) = (s_high * t_high, s_low * t_high + t_low * s);
    let product = upper(u + v);
    let first = FACTOR_PARTS[0] * product;
    let rest = FACTOR_PARTS[1] * product + (v - (product - u)) * FACTOR + log_c[1];
    let exponent = f64::from(exponent);
    let log = upper(((first + rest) + log_c[0]) + exponent);
    (log, rest - (((log - exponent) - log_c[0]) - first))
}

/// Returns 2 to the sum of both.
fn exp2(first: f64, rest: f64) -> f64 {
    const LN_2: f64 = std::f64::consts::LN_2;
    const LN_2_PARTS: [f64; 2] =
        [f64::from_bits(0x3fe6_2e43_0000_0000), f64::from_bits(0xbe20_5c61_0ca8_6c39)];
    const P: [f64; 5] = [
        f64::from_bits(0x3fc5_5555_5555_553e),
        f64::from_bits(0xbf66_c16c_16be_bd93),
        f64::from_bits(0x3f11_566a_af25_de2c),
        f64::from_bits(0xbebb_bd41_c5d2_6bf1),
        f64::from_bits(0x3e66_3769_72be_a4d0),
    ];
    /// The largest addition to an exponent of 1024 before the power rounds to infinity.
    const ROOM: f64 = 8.008_566_259_537_294e-17;
    let sum = rest + first;
    if sum > 1024.0 || sum == 1024.0 && rest + ROOM > sum - first {
        return f64::INFINITY;
    }
    if sum < -1075.0 || sum == -1075.0 && rest <= sum - first {
        return 0.0;
    }
    let exponent = if high(sum.abs()) > 0x3fe0_0000 { sum.round() } else { 0.0 };
    let first = first - exponent;
    let t = upper(rest + first);
    let u = t * LN_2_PARTS[0];
    let v = (rest - (t - first)) * LN_2 + t * LN_2_PARTS[1];
    let z = u + v;
    let w = v - (z - u);
    let t = z * z;
    let t = z - t * P[..4].iter().rev().fold(P[4], |sum, p| p + t * sum);
    // In fdlibm, the bracket at the end is no part of the divisor.
    let r = (z * t) / ((t - 2.0) - (w + z * w));
    libm::scalbn(1.0 - (r - z), exponent as i32)
}
