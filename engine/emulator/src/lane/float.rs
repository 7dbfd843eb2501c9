//! f32 and f64 instructions in every rounding mode, and the approximations.

use super::round::{F32, Rounding, round, two_sum};

/// Mode: flush subnormals to zero. (Bits 0 to 2 of a mode are the rounding.)
pub const FTZ: u32 = 1 << 3;
pub const SAT: u32 = 1 << 4;
/// Mode of `min` and `max`: the result is NaN if an operand is.
pub const NAN: u32 = 1 << 5;
/// Mode of `min` and `max`: magnitudes are compared, the sign is the xor of the operands' signs.
pub const XOR_SIGN: u32 = 1 << 6;
pub const RELU: u32 = 1 << 7;

/// The NaN that arithmetic on f32 returns.
pub const NAN32: u32 = 0x7fff_ffff;

/// Returns the mode bits of a rounding.
pub const fn mode(rounding: Rounding) -> u32 {
    rounding as u32
}

pub fn rounding(mode: u32) -> Rounding {
    match mode & 7 {
        0 => Rounding::Nearest,
        1 => Rounding::NearestAway,
        2 => Rounding::Zero,
        3 => Rounding::Down,
        _ => Rounding::Up,
    }
}

/// Flushes a subnormal to the zero of its sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

fn input(raw: u64, mode: u32) -> f32 {
    let x = f32::from_bits(raw as u32);
    if mode & FTZ != 0 { flush(x) } else { x }
}

fn output(x: f32, mode: u32) -> u64 {
    let x = if mode & FTZ != 0 { flush(x) } else { x };
    let x = if mode & SAT == 0 {
        x
    } else if x >= 1.0 {
        1.0
    } else if x > 0.0 {
        x
    } else {
        0.0
    };
    if x.is_nan() { NAN32 as u64 } else { x.to_bits() as u64 }
}

/// Rounds the exact `high + low` once.
fn rounded(high: f64, low: f64, mode: u32) -> f32 {
    round(high, low, F32, rounding(mode)) as f32
}

/// Rounds a + b, doubles that hold f32 operands or their products. An exact zero sum is -0 only when rounding down.
fn sum(a: f64, b: f64, mode: u32) -> f32 {
    let (high, low) = two_sum(a, b);
    if high == 0.0
        && rounding(mode) == Rounding::Down
        && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative())
    {
        return -0.0;
    }
    rounded(high, low, mode)
}

pub fn add(a: &[u64; 4], m: u32) -> u64 {
    output(sum(input(a[0], m) as f64, input(a[1], m) as f64, m), m)
}

pub fn sub(a: &[u64; 4], m: u32) -> u64 {
    output(sum(input(a[0], m) as f64, -input(a[1], m) as f64, m), m)
}

pub fn mul(a: &[u64; 4], m: u32) -> u64 {
    output(rounded(input(a[0], m) as f64 * input(a[1], m) as f64, 0.0, m), m)
}

pub fn fma(a: &[u64; 4], m: u32) -> u64 {
    let product = input(a[0], m) as f64 * input(a[1], m) as f64;
    output(sum(product, input(a[2], m) as f64, m), m)
}

/// Divides in any rounding mode: the remainder decides on which side of the double quotient the exact one lies.
pub fn div(a: &[u64; 4], m: u32) -> u64 {
    let (x, y) = (input(a[0], m), input(a[1], m));
    if rounding(m) == Rounding::Nearest {
        return output(x / y, m);
    }
    let q = x as f64 / y as f64;
    let remainder = (-q).mul_add(y as f64, x as f64);
    output(rounded(q, sticky(q, remainder, y < 0.0), m), m)
}

pub fn rcp(a: &[u64; 4], m: u32) -> u64 {
    div(&[1f32.to_bits() as u64, a[0], 0, 0], m)
}

pub fn sqrt(a: &[u64; 4], m: u32) -> u64 {
    let x = input(a[0], m);
    if rounding(m) == Rounding::Nearest {
        return output(x.sqrt(), m);
    }
    let root = (x as f64).sqrt();
    let remainder = (-root).mul_add(root, x as f64);
    output(rounded(root, sticky(root, remainder, false), m), m)
}

/// Returns a negligible correction with the sign of the remainder; 0 for an exact quotient.
fn sticky(quotient: f64, remainder: f64, flip: bool) -> f64 {
    if remainder == 0.0 || !quotient.is_finite() {
        return 0.0;
    }
    let up = (remainder > 0.0) != flip;
    if up { f64::MIN_POSITIVE } else { -f64::MIN_POSITIVE }
}

pub fn min(a: &[u64; 4], m: u32) -> u64 {
    select(a, m, |x, y| x < y || x == y && x.is_sign_negative())
}

pub fn max(a: &[u64; 4], m: u32) -> u64 {
    select(a, m, |x, y| x > y || x == y && y.is_sign_negative())
}

fn select(a: &[u64; 4], m: u32, first: fn(f32, f32) -> bool) -> u64 {
    let (mut x, mut y) = (input(a[0], m), input(a[1], m));
    let sign = if m & XOR_SIGN != 0 { (x.to_bits() ^ y.to_bits()) & 0x8000_0000 } else { 0 };
    if m & XOR_SIGN != 0 {
        (x, y) = (x.abs(), y.abs());
    }
    let nan = x.is_nan() && y.is_nan() || m & NAN != 0 && (x.is_nan() || y.is_nan());
    if nan {
        return NAN32 as u64;
    }
    let chosen = if y.is_nan() || !x.is_nan() && first(x, y) { x } else { y };
    (chosen.to_bits() | sign) as u64
}

pub fn neg(a: &[u64; 4], m: u32) -> u64 {
    (input(a[0], m).to_bits() ^ 0x8000_0000) as u64
}

pub fn abs(a: &[u64; 4], m: u32) -> u64 {
    (input(a[0], m).to_bits() & 0x7fff_ffff) as u64
}

/// Returns the magnitude of `a[1]` with the sign of `a[0]`.
pub fn copysign(a: &[u64; 4], _: u32) -> u64 {
    a[1] & 0x7fff_ffff | a[0] & 0x8000_0000
}

fn approximate(a: &[u64; 4], m: u32, f: impl Fn(f64) -> f64) -> u64 {
    output(f(input(a[0], m) as f64) as f32, m)
}

pub fn ex2(a: &[u64; 4], m: u32) -> u64 {
    output(input(a[0], m).exp2(), m)
}

pub fn lg2(a: &[u64; 4], m: u32) -> u64 {
    approximate(a, m, f64::log2)
}

pub fn rsqrt(a: &[u64; 4], m: u32) -> u64 {
    approximate(a, m, |x| 1.0 / x.sqrt())
}

pub fn sin(a: &[u64; 4], m: u32) -> u64 {
    approximate(a, m, f64::sin)
}

pub fn cos(a: &[u64; 4], m: u32) -> u64 {
    approximate(a, m, f64::cos)
}

pub fn tanh(a: &[u64; 4], m: u32) -> u64 {
    approximate(a, m, f64::tanh)
}

/// Executes `testp`; modes in the order of the ISA: finite, infinite, number, notanumber, normal, subnormal.
pub fn testp(a: &[u64; 4], m: u32) -> u64 {
    class_test(f32::from_bits(a[0] as u32).classify(), m)
}

pub fn testp64(a: &[u64; 4], m: u32) -> u64 {
    class_test(f64::from_bits(a[0]).classify(), m)
}

fn class_test(class: std::num::FpCategory, test: u32) -> u64 {
    use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal};
    (match test {
        0 => !matches!(class, Nan | Infinite),
        1 => class == Infinite,
        2 => class != Nan,
        3 => class == Nan,
        4 => class == Normal,
        _ => class == Subnormal,
    }) as u64
}

fn f(raw: u64) -> f64 {
    f64::from_bits(raw)
}

fn output64(x: f64, m: u32) -> u64 {
    let x = if m & SAT == 0 {
        x
    } else if x >= 1.0 {
        1.0
    } else if x > 0.0 {
        x
    } else {
        0.0
    };
    x.to_bits()
}

pub fn add64(a: &[u64; 4], m: u32) -> u64 {
    output64(f(a[0]) + f(a[1]), m)
}

pub fn sub64(a: &[u64; 4], m: u32) -> u64 {
    output64(f(a[0]) - f(a[1]), m)
}

pub fn mul64(a: &[u64; 4], m: u32) -> u64 {
    output64(f(a[0]) * f(a[1]), m)
}

pub fn fma64(a: &[u64; 4], m: u32) -> u64 {
    output64(f(a[0]).mul_add(f(a[1]), f(a[2])), m)
}

pub fn div64(a: &[u64; 4], _: u32) -> u64 {
    (f(a[0]) / f(a[1])).to_bits()
}

pub fn rcp64(a: &[u64; 4], _: u32) -> u64 {
    (1.0 / f(a[0])).to_bits()
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64` keep the upper word only.
pub fn rcp64_approx(a: &[u64; 4], _: u32) -> u64 {
    (1.0 / flush64(f(a[0]))).to_bits() & !0xffff_ffff
}

pub fn rsqrt64_approx(a: &[u64; 4], _: u32) -> u64 {
    (1.0 / flush64(f(a[0])).sqrt()).to_bits() & !0xffff_ffff
}

fn flush64(x: f64) -> f64 {
    if x.is_subnormal() { 0f64.copysign(x) } else { x }
}

pub fn sqrt64(a: &[u64; 4], _: u32) -> u64 {
    f(a[0]).sqrt().to_bits()
}

pub fn min64(a: &[u64; 4], _: u32) -> u64 {
    f(a[0]).min(f(a[1])).to_bits()
}

pub fn max64(a: &[u64; 4], _: u32) -> u64 {
    f(a[0]).max(f(a[1])).to_bits()
}

pub fn neg64(a: &[u64; 4], _: u32) -> u64 {
    a[0] ^ 1 << 63
}

pub fn abs64(a: &[u64; 4], _: u32) -> u64 {
    a[0] & !(1 << 63)
}

pub fn copysign64(a: &[u64; 4], _: u32) -> u64 {
    a[1] & !(1 << 63) | a[0] & 1 << 63
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(x: f32) -> u64 {
        x.to_bits() as u64
    }

    fn value(raw: u64) -> f32 {
        f32::from_bits(raw as u32)
    }

    const DIRECTED: [Rounding; 3] = [Rounding::Zero, Rounding::Down, Rounding::Up];

    #[test]
    fn nearest_sums_products_and_fmas_are_the_hardware_s() {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            f32::from_bits(state ^ state >> 13)
        };
        for _ in 0..50_000 {
            let (a, b, c) = (next(), next(), next());
            let x = [bits(a), bits(b), bits(c), 0];
            for (got, want) in [(add(&x, 0), a + b), (mul(&x, 0), a * b), (fma(&x, 0), a.mul_add(b, c))] {
                assert!(value(got) == want || value(got).is_nan() && want.is_nan(), "{a:e} {b:e} {c:e}");
            }
        }
    }

    #[test]
    fn directed_division_and_root_bracket_the_exact_value() {
        for (a, b) in [(1f32, 3f32), (-1.0, 3.0), (2.0, -7.0), (10.0, 5.0), (1e-40, 3.0)] {
            let [zero, down, up] = DIRECTED.map(|r| value(div(&[bits(a), bits(b), 0, 0], mode(r))) as f64);
            let exact = a as f64 / b as f64;
            assert!(down <= exact && exact <= up && zero.abs() <= exact.abs(), "{a} / {b}");
            assert!((down == up) == ((a, b) == (10.0, 5.0)));
        }
        let [zero, down, up] = DIRECTED.map(|r| value(sqrt(&[bits(2.0), 0, 0, 0], mode(r))));
        assert!(zero == down && down < up && (down as f64) < 2f64.sqrt());
    }

    #[test]
    fn flushing_saturation_and_nan() {
        let tiny = bits(f32::MIN_POSITIVE / 2.0);
        assert_eq!(add(&[tiny, 0, 0, 0], FTZ), 0);
        assert_eq!(add(&[tiny, 0, 0, 0], 0), tiny);
        assert_eq!(value(add(&[bits(0.75), bits(0.75), 0, 0], SAT)), 1.0);
        assert_eq!(value(add(&[bits(f32::NAN), 0, 0, 0], SAT)), 0.0);
        assert_eq!(add(&[0xffc0_1234, 0, 0, 0], 0), NAN32 as u64);
        assert_eq!(value(min(&[bits(f32::NAN), bits(2.0), 0, 0], 0)), 2.0);
        assert_eq!(min(&[bits(f32::NAN), bits(2.0), 0, 0], NAN), NAN32 as u64);
        assert_eq!(min(&[bits(-0.0), bits(0.0), 0, 0], 0), bits(-0.0));
        assert_eq!(max(&[bits(-0.0), bits(0.0), 0, 0], 0), 0);
        assert_eq!(value(max(&[bits(-3.0), bits(2.0), 0, 0], XOR_SIGN)), -3.0);
    }

    #[test]
    fn a_zero_sum_is_negative_only_when_rounding_down() {
        let x = [bits(1.5), bits(-1.5), 0, 0];
        assert_eq!(add(&x, 0), 0);
        assert_eq!(add(&x, mode(Rounding::Down)), bits(-0.0));
        assert_eq!(add(&[0, 0, 0, 0], mode(Rounding::Down)), 0);
    }
}
