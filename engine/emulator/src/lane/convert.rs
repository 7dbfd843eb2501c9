//! Conversions (`cvt`) between any two types.

use super::float::{FTZ, NAN32, RELU, SAT, flush, rounding};
use super::half::{MODE_BF16, narrow, widen};
use super::round::{F32, Rounding, TF32, round};

/// A scalar type of `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CvtType {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F32,
    F64,
}

/// Mode: round to an integral value (`.rni`, `.rzi`, `.rmi`, `.rpi`).
pub const INTEGRAL: u32 = 1 << 10;
/// Mode: `.satfinite`.
pub const FINITE: u32 = 1 << 11;

/// Returns the mode bits of the types of a conversion.
pub const fn types(to: CvtType, from: CvtType) -> u32 {
    (to as u32) << 16 | (from as u32) << 24
}

fn type_at(mode: u32, shift: u32) -> CvtType {
    const ALL: [CvtType; 12] = [
        CvtType::U8,
        CvtType::S8,
        CvtType::U16,
        CvtType::S16,
        CvtType::U32,
        CvtType::S32,
        CvtType::U64,
        CvtType::S64,
        CvtType::F16,
        CvtType::Bf16,
        CvtType::F32,
        CvtType::F64,
    ];
    ALL[(mode >> shift & 15) as usize]
}

impl CvtType {
    pub fn is_float(self) -> bool {
        matches!(self, CvtType::F16 | CvtType::Bf16 | CvtType::F32 | CvtType::F64)
    }

    /// Returns the range of an integer type.
    fn range(self) -> (i128, i128) {
        match self {
            CvtType::U8 => (0, u8::MAX as i128),
            CvtType::S8 => (i8::MIN as i128, i8::MAX as i128),
            CvtType::U16 => (0, u16::MAX as i128),
            CvtType::S16 => (i16::MIN as i128, i16::MAX as i128),
            CvtType::U32 => (0, u32::MAX as i128),
            CvtType::S32 => (i32::MIN as i128, i32::MAX as i128),
            CvtType::U64 => (0, u64::MAX as i128),
            _ => (i64::MIN as i128, i64::MAX as i128),
        }
    }

    fn integer(self, raw: u64) -> i128 {
        match self {
            CvtType::U8 => raw as u8 as i128,
            CvtType::S8 => raw as i8 as i128,
            CvtType::U16 => raw as u16 as i128,
            CvtType::S16 => raw as i16 as i128,
            CvtType::U32 => raw as u32 as i128,
            CvtType::S32 => raw as i32 as i128,
            CvtType::U64 => raw as i128,
            _ => raw as i64 as i128,
        }
    }

    fn float(self, raw: u64, mode: u32) -> f64 {
        match self {
            CvtType::F16 => widen(raw as u16, 0),
            CvtType::Bf16 => widen(raw as u16, MODE_BF16),
            CvtType::F32 => {
                let x = f32::from_bits(raw as u32);
                (if mode & FTZ != 0 { flush(x) } else { x }) as f64
            }
            _ => f64::from_bits(raw),
        }
    }
}

/// Converts between any two types. Integers are returned sign-extended to 64 bits and truncated by the register.
pub fn cvt(a: &[u64; 4], mode: u32) -> u64 {
    let (to, from) = (type_at(mode, 16), type_at(mode, 24));
    match (from.is_float(), to.is_float()) {
        (false, false) => {
            let v = from.integer(a[0]);
            let (low, high) = to.range();
            let v = if mode & SAT != 0 { v.clamp(low, high) } else { v };
            to.integer(v as u64) as u64
        }
        (false, true) => {
            let v = from.integer(a[0]);
            let high = v as f64;
            let low = (v - high as i128) as f64;
            finish(high, low, to, mode)
        }
        (true, false) => {
            let v = from.float(a[0], mode);
            let (low, high) = to.range();
            // NaN becomes the top bit for 64-bit results, zero for narrower ones.
            if v.is_nan() {
                return if matches!(to, CvtType::U64 | CvtType::S64) { 1 << 63 } else { 0 };
            }
            (integral(v, rounding(mode)) as i128).clamp(low, high) as u64
        }
        (true, true) => {
            let v = from.float(a[0], mode);
            finish(if mode & INTEGRAL != 0 { integral(v, rounding(mode)) } else { v }, 0.0, to, mode)
        }
    }
}

fn integral(v: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => v.round_ties_even(),
        Rounding::NearestAway => v.round(),
        Rounding::Zero => v.trunc(),
        Rounding::Down => v.floor(),
        Rounding::Up => v.ceil(),
    }
}

/// Rounds to a float type, with the modifiers of the mode.
fn finish(high: f64, low: f64, to: CvtType, mode: u32) -> u64 {
    let high = if mode & SAT != 0 { if high.is_nan() { 0.0 } else { high.clamp(0.0, 1.0) } } else { high };
    match to {
        CvtType::F64 => high.to_bits(),
        CvtType::F32 => to_f32(high, low, mode) as u64,
        // `.ftz` of a conversion concerns f32 operands only.
        _ => to_half(high, low, to == CvtType::Bf16, mode & !FTZ) as u64,
    }
}

fn to_f32(high: f64, low: f64, mode: u32) -> u32 {
    if high.is_nan() {
        return NAN32;
    }
    let v = round(high, low, F32, rounding(mode)) as f32;
    (if mode & FTZ != 0 { flush(v) } else { v }).to_bits()
}

fn to_half(high: f64, low: f64, is_bf16: bool, mode: u32) -> u16 {
    let mode = if is_bf16 { mode | MODE_BF16 } else { mode & !MODE_BF16 };
    let raw = narrow(high, low, mode & (0x7 | RELU | MODE_BF16));
    let infinity = if is_bf16 { 0x7f80 } else { 0x7c00 };
    if mode & FINITE != 0 && raw & 0x7fff == infinity { raw - 1 } else { raw }
}

/// `cvt.rn.f16x2.f32` and `.bf16x2.f32`: the first operand lands in the upper half.
pub fn pack_half(a: &[u64; 4], mode: u32) -> u64 {
    let part = |raw: u64| to_half(CvtType::F32.float(raw, mode), 0.0, mode & MODE_BF16 != 0, mode) as u64;
    part(a[0]) << 16 | part(a[1])
}

/// `cvt.rna.tf32.f32` and `cvt.rn.tf32.f32`: an f32 whose low 13 mantissa bits are zero.
pub fn tf32(a: &[u64; 4], mode: u32) -> u64 {
    let v = f32::from_bits(a[0] as u32) as f64;
    if v.is_nan() { NAN32 as u64 } else { (round(v, 0.0, TF32, rounding(mode)) as f32).to_bits() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::float::mode as with;
    use half::{bf16, f16};

    fn convert(to: CvtType, from: CvtType, mode: u32, raw: u64) -> u64 {
        cvt(&[raw, 0, 0, 0], types(to, from) | mode)
    }

    #[test]
    fn integers_wrap_or_saturate() {
        assert_eq!(convert(CvtType::S8, CvtType::S32, 0, 0x1ff), u64::MAX);
        assert_eq!(convert(CvtType::U8, CvtType::S32, SAT, (-5i32) as u32 as u64), 0);
        assert_eq!(convert(CvtType::S16, CvtType::S32, SAT, 70_000), 32767);
        assert_eq!(convert(CvtType::S64, CvtType::S32, 0, 0xffff_fffe), (-2i64) as u64);
        assert_eq!(convert(CvtType::U64, CvtType::U32, 0, 0xffff_fffe), 0xffff_fffe);
    }

    #[test]
    fn floats_to_integers_clamp_and_round() {
        let f = |x: f32| x.to_bits() as u64;
        assert_eq!(convert(CvtType::S32, CvtType::F32, with(Rounding::Zero), f(-2.7)) as i32, -2);
        assert_eq!(convert(CvtType::S32, CvtType::F32, with(Rounding::Nearest), f(2.5)), 2);
        assert_eq!(convert(CvtType::S32, CvtType::F32, with(Rounding::Down), f(-2.1)) as i32, -3);
        assert_eq!(convert(CvtType::U32, CvtType::F32, with(Rounding::Zero), f(-7.0)), 0);
        assert_eq!(convert(CvtType::S32, CvtType::F32, with(Rounding::Zero), f(1e20)), i32::MAX as u64);
        assert_eq!(convert(CvtType::S32, CvtType::F32, with(Rounding::Zero), f(f32::NAN)), 0);
        assert_eq!(convert(CvtType::F32, CvtType::F32, INTEGRAL | with(Rounding::Up), f(1.2)), f(2.0));
    }

    #[test]
    fn wide_integers_round_once() {
        for v in [u64::MAX, (1 << 63) + 1, (1 << 53) + 1, 0x0100_0001_0000_0001, 12345] {
            assert_eq!(convert(CvtType::F32, CvtType::U64, 0, v) as u32, (v as f32).to_bits());
            assert_eq!(convert(CvtType::F64, CvtType::S64, 0, v), (v as i64 as f64).to_bits());
        }
    }

    #[test]
    fn halves() {
        for i in (0..u32::MAX).step_by(65_537 * 7) {
            let x = f32::from_bits(i);
            if !x.is_nan() {
                assert_eq!(
                    convert(CvtType::Bf16, CvtType::F32, 0, i as u64) as u16,
                    bf16::from_f32(x).to_bits()
                );
                assert_eq!(
                    convert(CvtType::F16, CvtType::F32, 0, i as u64) as u16,
                    f16::from_f32(x).to_bits()
                );
            }
        }
        let big = 1e30f32.to_bits() as u64;
        assert_eq!(convert(CvtType::F16, CvtType::F32, FINITE, big), 0x7bff);
        assert_eq!(pack_half(&[1f32.to_bits() as u64, 2f32.to_bits() as u64, 0, 0], MODE_BF16), 0x3f80_4000);
        assert_eq!(tf32(&[0x3f80_1000, 0, 0, 0], with(Rounding::NearestAway)), 0x3f80_2000);
        assert_eq!(tf32(&[0x3f80_0fff, 0, 0, 0], with(Rounding::NearestAway)), 0x3f80_0000);
    }
}
