//! Rounding an exact value to any binary format, in any mode.

/// Rounding of a result that is not representable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// To nearest, ties away from zero.
    NearestAway,
    Zero,
    Down,
    Up,
}

/// A binary floating-point format.
#[derive(Clone, Copy)]
pub struct FloatFormat {
    /// Stored mantissa bits.
    mantissa: i32,
    /// Exponent of the smallest normal number.
    min: i32,
    /// Exponent of the largest number.
    max: i32,
}

pub const F32: FloatFormat = FloatFormat { mantissa: 23, min: -126, max: 127 };
pub const F16: FloatFormat = FloatFormat { mantissa: 10, min: -14, max: 15 };
pub const BF16: FloatFormat = FloatFormat { mantissa: 7, min: -126, max: 127 };
pub const TF32: FloatFormat = FloatFormat { mantissa: 10, min: -126, max: 127 };

/// Returns the rounded sum of two doubles and the exact rounding error (Knuth).
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

fn pow2(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Rounds `high + low`, where `low` is no more than half an ulp of `high`, to a format.
/// `high` is far from the double range's ends: it comes from formats no wider than f32.
pub fn round(high: f64, low: f64, format: FloatFormat, rounding: Rounding) -> f64 {
    if high == 0.0 || !high.is_finite() {
        return high;
    }
    let exponent = ((high.abs().to_bits() >> 52) as i32 - 1023).max(format.min);
    let mut quantum = exponent - format.mantissa;
    let negative = high < 0.0;
    let low = if negative { -low } else { low };
    // Just below a power of two the spacing of the format's numbers is half as large.
    if low < 0.0 && exponent > format.min && high.abs() == pow2(exponent) {
        quantum -= 1;
    }
    let scaled = high.abs() * pow2(-quantum);
    let (mut integer, mut fraction) = (scaled.floor(), scaled.fract());
    // `low` decides on which side of a tie or of a whole number the exact value lies.
    if fraction == 0.0 && low < 0.0 {
        (integer, fraction) = (integer - 1.0, 0.75);
    } else if fraction == 0.0 && low > 0.0 {
        fraction = 0.25;
    } else if fraction == 0.5 && low != 0.0 {
        fraction = if low > 0.0 { 0.75 } else { 0.25 };
    }
    let up = match rounding {
        Rounding::Nearest => fraction > 0.5 || fraction == 0.5 && integer % 2.0 == 1.0,
        Rounding::NearestAway => fraction >= 0.5,
        Rounding::Zero => false,
        Rounding::Down => negative && fraction > 0.0,
        Rounding::Up => !negative && fraction > 0.0,
    };
    let magnitude = (integer + up as u32 as f64) * pow2(quantum);
    let largest = (2.0 - pow2(-format.mantissa)) * pow2(format.max);
    let magnitude = if magnitude <= largest {
        magnitude
    } else {
        match rounding {
            Rounding::Nearest | Rounding::NearestAway => f64::INFINITY,
            Rounding::Down if negative => f64::INFINITY,
            Rounding::Up if !negative => f64::INFINITY,
            _ => largest,
        }
    };
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, enough for spread-out bit patterns.
    fn patterns() -> impl Iterator<Item = u64> {
        let mut state = 1u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state ^ state >> 29
        })
    }

    #[test]
    fn nearest_agrees_with_the_hardware() {
        for bits in patterns().take(100_000) {
            let v = f64::from_bits(bits);
            let v = if bits & 1 == 0 { v } else { f32::from_bits(bits as u32) as f64 * 1.000000123 };
            if !v.is_finite() || v.abs() > 1e60 || v != 0.0 && v.abs() < 1e-60 {
                continue;
            }
            assert_eq!(round(v, 0.0, F32, Rounding::Nearest), v as f32 as f64, "{v:e}");
        }
    }

    #[test]
    fn directed_modes_bracket_the_value() {
        for bits in patterns().take(20_000) {
            let v = f32::from_bits(bits as u32) as f64 * 1.0001;
            if v.is_nan() || v.is_infinite() {
                continue;
            }
            let (down, up) = (round(v, 0.0, BF16, Rounding::Down), round(v, 0.0, BF16, Rounding::Up));
            assert!(down <= v && v <= up);
            let zero = round(v, 0.0, BF16, Rounding::Zero);
            assert_eq!(zero, if v < 0.0 { up } else { down });
        }
    }

    #[test]
    fn the_low_part_decides_ties() {
        let tie = 1.0 + f64::powi(2.0, -24);
        let ulp = f64::powi(2.0, -23);
        assert_eq!(round(tie, 0.0, F32, Rounding::Nearest), 1.0);
        assert_eq!(round(tie, 1e-30, F32, Rounding::Nearest), 1.0 + ulp);
        assert_eq!(round(1.0, -1e-30, F32, Rounding::Down), 1.0 - ulp / 2.0);
        assert_eq!(round(1.0, 1e-30, F32, Rounding::Up), 1.0 + ulp);
        assert_eq!(round(-1.0, 1e-30, F32, Rounding::Zero), -(1.0 - ulp / 2.0));
        assert_eq!(round(65520.0, 0.0, F16, Rounding::Nearest), f64::INFINITY);
        assert_eq!(round(65520.0, 0.0, F16, Rounding::Zero), 65504.0);
    }
}
