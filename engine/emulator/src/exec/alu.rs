//! Instructions that only access registers. Each is a loop over a row; inactive lanes are computed and discarded.

use super::registers::{Registers, row};
use crate::inst::{BoolOp, CmpOp, CmpType, CvtOp, FloatOp, Inst, IntOp, LANES, Opcode, PredicateOp};
use crate::lane::convert;
use crate::lane::float::{NAN32, flush};
use crate::lane::half::{MODE_BF16, widen};
use std::array::from_fn;

type B32Lanes = [u32; LANES];

#[inline(always)]
fn map_lanes<T: Copy, U: Copy + Default>(a: &[T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    row(|k| f(a[k]))
}

#[inline(always)]
fn b32_unary(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u32) -> u32) {
    let a = r.b32(i.src[0]);
    let new: B32Lanes = row(|k| f(a[k]));
    r.set_b32(i.dst[0], &new, mask);
}

#[inline(always)]
fn b32_binary(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u32, u32) -> u32) {
    let (a, b) = (r.b32(i.src[0]), r.b32(i.src[1]));
    let new: B32Lanes = row(|k| f(a[k], b[k]));
    r.set_b32(i.dst[0], &new, mask);
}

#[inline(always)]
fn b32_ternary(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u32, u32, u32) -> u32) {
    let (a, b, c) = (r.b32(i.src[0]), r.b32(i.src[1]), r.b32(i.src[2]));
    let new: B32Lanes = row(|k| f(a[k], b[k], c[k]));
    r.set_b32(i.dst[0], &new, mask);
}

#[inline(always)]
fn b64_unary(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u64) -> u64) {
    let a = r.b64(i.src[0]);
    let new: [u64; LANES] = row(|k| f(a[k]));
    r.set_b64(i.dst[0], &new, mask);
}

#[inline(always)]
fn b64_binary(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u64, u64) -> u64) {
    let (a, b) = (r.b64(i.src[0]), r.b64(i.src[1]));
    let new: [u64; LANES] = row(|k| f(a[k], b[k]));
    r.set_b64(i.dst[0], &new, mask);
}

/// A 64-bit operand shifted by a 32-bit one.
#[inline(always)]
fn b64_shift(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u64, u32) -> u64) {
    let (a, b) = (r.b64(i.src[0]), r.b32(i.src[1]));
    let new: [u64; LANES] = row(|k| f(a[k], b[k]));
    r.set_b64(i.dst[0], &new, mask);
}

/// Executes an instruction that only accesses registers. Returns false for all others.
#[inline(always)]
pub fn execute(r: &mut Registers<'_>, i: &Inst, mask: u32) -> bool {
    match i.op {
        Opcode::Int32(op) => int32(r, i, mask, op),
        Opcode::Int64(op) => int64(r, i, mask, op),
        Opcode::Float(op, false) => float(r, i, mask, op, |x| x),
        Opcode::Float(op, true) => float(r, i, mask, op, flush),
        Opcode::Mov32 => b32_unary(r, i, mask, |a| a),
        Opcode::Mov64 => b64_unary(r, i, mask, |a| a),
        Opcode::MulWide(signed) => multiply_wide(r, i, mask, signed, false),
        Opcode::MadWide(signed) => multiply_wide(r, i, mask, signed, true),
        Opcode::Shl32 => b32_binary(r, i, mask, |a, b| if b < 32 { a << b } else { 0 }),
        Opcode::ShrU32 => b32_binary(r, i, mask, |a, b| if b < 32 { a >> b } else { 0 }),
        Opcode::ShrS32 => b32_binary(r, i, mask, |a, b| (a as i32 >> b.min(31)) as u32),
        Opcode::Shl64 => b64_shift(r, i, mask, |a, b| if b < 64 { a << b } else { 0 }),
        Opcode::ShrU64 => b64_shift(r, i, mask, |a, b| if b < 64 { a >> b } else { 0 }),
        Opcode::ShrS64 => b64_shift(r, i, mask, |a, b| (a as i64 >> b.min(63)) as u64),
        Opcode::Lop3(table) => b32_ternary(r, i, mask, |a, b, c| lop3(table, a, b, c)),
        Opcode::Convert(op) => convert(r, i, mask, op),
        Opcode::Setp(ty, cmp, bool_op, ftz) => setp(r, i, mask, ty, cmp, bool_op, ftz),
        Opcode::Selp32 => {
            let p = r.predicate(i.src[2]);
            let (a, b) = (r.b32(i.src[0]), r.b32(i.src[1]));
            let new: B32Lanes = row(|k| if p >> k & 1 != 0 { a[k] } else { b[k] });
            r.set_b32(i.dst[0], &new, mask);
        }
        Opcode::Selp64 => {
            let p = r.predicate(i.src[2]);
            let (a, b) = (r.b64(i.src[0]), r.b64(i.src[1]));
            let new: [u64; LANES] = row(|k| if p >> k & 1 != 0 { a[k] } else { b[k] });
            r.set_b64(i.dst[0], &new, mask);
        }
        Opcode::Logic(op) => logic(r, i, mask, op),
        Opcode::Lanes(f, mode, _) => {
            let mut s = [[0; LANES]; 4];
            for (s, &slot) in s.iter_mut().zip(&i.src).filter(|(_, slot)| !slot.is_none()) {
                *s = r.bits(slot);
            }
            let mut new = [0; LANES];
            for k in 0..LANES {
                if mask >> k & 1 != 0 {
                    new[k] = f(&[s[0][k], s[1][k], s[2][k], s[3][k]], mode);
                }
            }
            r.set_bits(i.dst[0], &new, mask);
        }
        Opcode::Carry { subtract, read, write, double } => carry(r, i, mask, subtract, read, write, double),
        Opcode::Pack64
        | Opcode::Unpack64
        | Opcode::Pack32
        | Opcode::Unpack32
        | Opcode::PackQuarters
        | Opcode::UnpackQuarters => {
            pack(r, i, mask);
        }
        Opcode::Nop | Opcode::Fence => {}
        _ => return false,
    }
    true
}

#[inline(always)]
fn int32(r: &mut Registers<'_>, i: &Inst, mask: u32, op: IntOp) {
    match op {
        IntOp::Add => b32_binary(r, i, mask, u32::wrapping_add),
        IntOp::Sub => b32_binary(r, i, mask, u32::wrapping_sub),
        IntOp::Mul => b32_binary(r, i, mask, u32::wrapping_mul),
        IntOp::Mad => b32_ternary(r, i, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        IntOp::MinU => b32_binary(r, i, mask, u32::min),
        IntOp::MinS => b32_binary(r, i, mask, |a, b| (a as i32).min(b as i32) as u32),
        IntOp::MaxU => b32_binary(r, i, mask, u32::max),
        IntOp::MaxS => b32_binary(r, i, mask, |a, b| (a as i32).max(b as i32) as u32),
        IntOp::And => b32_binary(r, i, mask, |a, b| a & b),
        IntOp::Or => b32_binary(r, i, mask, |a, b| a | b),
        IntOp::Xor => b32_binary(r, i, mask, |a, b| a ^ b),
        IntOp::Not => b32_unary(r, i, mask, |a| !a),
        IntOp::Neg => b32_unary(r, i, mask, u32::wrapping_neg),
    }
}

#[inline(always)]
fn int64(r: &mut Registers<'_>, i: &Inst, mask: u32, op: IntOp) {
    match op {
        IntOp::Add => b64_binary(r, i, mask, u64::wrapping_add),
        IntOp::Sub => b64_binary(r, i, mask, u64::wrapping_sub),
        IntOp::Mul => b64_binary(r, i, mask, u64::wrapping_mul),
        IntOp::Mad => {
            let (a, b, c) = (r.b64(i.src[0]), r.b64(i.src[1]), r.b64(i.src[2]));
            let new: [u64; LANES] = row(|k| a[k].wrapping_mul(b[k]).wrapping_add(c[k]));
            r.set_b64(i.dst[0], &new, mask);
        }
        IntOp::MinU => b64_binary(r, i, mask, u64::min),
        IntOp::MinS => b64_binary(r, i, mask, |a, b| (a as i64).min(b as i64) as u64),
        IntOp::MaxU => b64_binary(r, i, mask, u64::max),
        IntOp::MaxS => b64_binary(r, i, mask, |a, b| (a as i64).max(b as i64) as u64),
        IntOp::And => b64_binary(r, i, mask, |a, b| a & b),
        IntOp::Or => b64_binary(r, i, mask, |a, b| a | b),
        IntOp::Xor => b64_binary(r, i, mask, |a, b| a ^ b),
        IntOp::Not => b64_unary(r, i, mask, |a| !a),
        IntOp::Neg => b64_unary(r, i, mask, u64::wrapping_neg),
    }
}

/// Returns the bits of a result, with every NaN replaced by the canonical NaN of PTX.
#[inline(always)]
pub fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

#[inline(always)]
fn float(r: &mut Registers<'_>, i: &Inst, mask: u32, op: FloatOp, z: impl Fn(f32) -> f32 + Copy) {
    let f = move |bits: u32| z(f32::from_bits(bits));
    match op {
        FloatOp::Add => b32_binary(r, i, mask, |a, b| canonical(z(f(a) + f(b)))),
        FloatOp::Sub => b32_binary(r, i, mask, |a, b| canonical(z(f(a) - f(b)))),
        FloatOp::Mul => b32_binary(r, i, mask, |a, b| canonical(z(f(a) * f(b)))),
        FloatOp::Fma => b32_ternary(r, i, mask, |a, b, c| canonical(z(f(a).mul_add(f(b), f(c))))),
        FloatOp::Min => b32_binary(r, i, mask, |a, b| {
            min_or_max(f(a), f(b), f(a) < f(b), f(a).to_bits() | f(b).to_bits())
        }),
        FloatOp::Max => b32_binary(r, i, mask, |a, b| {
            min_or_max(f(a), f(b), f(a) > f(b), f(a).to_bits() & f(b).to_bits())
        }),
        FloatOp::FmaDown => b32_ternary(r, i, mask, |a, b, c| canonical(z(fma_down(f(a), f(b), f(c))))),
        FloatOp::Saturate => b32_unary(r, i, mask, |a| saturate(f(a)).to_bits()),
        FloatOp::Ex2 => b32_unary(r, i, mask, |a| canonical(z(f(a).exp2()))),
        FloatOp::Lg2 => b32_unary(r, i, mask, |a| canonical(z((f(a) as f64).log2() as f32))),
        FloatOp::Div => b32_binary(r, i, mask, |a, b| canonical(z(f(a) / f(b)))),
        FloatOp::Rcp => b32_unary(r, i, mask, |a| canonical(z(1.0 / f(a)))),
        FloatOp::Sqrt => b32_unary(r, i, mask, |a| canonical(z(f(a).sqrt()))),
        FloatOp::Rsqrt => b32_unary(r, i, mask, |a| canonical(z((1.0 / (f(a) as f64).sqrt()) as f32))),
        FloatOp::Neg => b32_unary(r, i, mask, |a| f(a).to_bits() ^ 0x8000_0000),
        FloatOp::Abs => b32_unary(r, i, mask, |a| f(a).to_bits() & 0x7fff_ffff),
    }
}

/// Returns a b + c, rounded down once: the product is exact in f64, and so is the error of the sum.
#[inline(always)]
fn fma_down(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (a as f64 * b as f64, c as f64);
    let sum = product + c;
    let part = sum - product;
    let low = (product - (sum - part)) + (c - part);
    let nearest = sum as f32;
    let above = nearest as f64 > sum || nearest as f64 == sum && low < 0.0;
    let zero = sum == 0.0 && (product != 0.0 || product.is_sign_negative() != c.is_sign_negative());
    let rounded = if above { nearest.next_down() } else { nearest };
    if zero { -0.0 } else { rounded }
}

/// Clamps to 0 and 1; NaN becomes 0.
#[inline(always)]
fn saturate(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

/// Returns a if `first`, else b; `equal` if they compare equal; NaN only if both are.
#[inline(always)]
fn min_or_max(a: f32, b: f32, first: bool, equal: u32) -> u32 {
    let chosen = if first { a.to_bits() } else { b.to_bits() };
    let chosen = if a == b { equal } else { chosen };
    let chosen = if a.is_nan() { canonical(b) } else { chosen };
    if b.is_nan() { canonical(a) } else { chosen }
}

#[inline(always)]
fn multiply_wide(r: &mut Registers<'_>, i: &Inst, mask: u32, signed: bool, add: bool) {
    let (a, b) = (r.b32(i.src[0]), r.b32(i.src[1]));
    let product: [u64; LANES] = match signed {
        true => row(|k| (a[k] as i32 as i64).wrapping_mul(b[k] as i32 as i64) as u64),
        false => row(|k| a[k] as u64 * b[k] as u64),
    };
    if add {
        let c = r.b64(i.src[2]);
        let sum: [u64; LANES] = row(|k| product[k].wrapping_add(c[k]));
        r.set_b64(i.dst[0], &sum, mask);
    } else {
        r.set_b64(i.dst[0], &product, mask);
    }
}

/// Evaluates a truth table: bit n of the table is the result where the bits of a, b and c form the number n.
#[inline(always)]
fn lop3(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let term = |n: u8, x: u32| if table >> n & 1 != 0 { x } else { 0 };
    term(0, !a & !b & !c)
        | term(1, !a & !b & c)
        | term(2, !a & b & !c)
        | term(3, !a & b & c)
        | term(4, a & !b & !c)
        | term(5, a & !b & c)
        | term(6, a & b & !c)
        | term(7, a & b & c)
}

/// Rounds f32 to bf16, to nearest even.
#[inline(always)]
fn to_bf16(bits: u32) -> u32 {
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

#[inline(always)]
fn convert(r: &mut Registers<'_>, i: &Inst, mask: u32, op: CvtOp) {
    match op {
        CvtOp::U32ToU64 => {
            let a = r.b32(i.src[0]);
            let new: [u64; LANES] = row(|k| a[k] as u64);
            r.set_b64(i.dst[0], &new, mask);
        }
        CvtOp::S32ToS64 => {
            let a = r.b32(i.src[0]);
            let new: [u64; LANES] = row(|k| a[k] as i32 as i64 as u64);
            r.set_b64(i.dst[0], &new, mask);
        }
        CvtOp::U64ToU32 => {
            let a = r.b64(i.src[0]);
            let new: B32Lanes = row(|k| a[k] as u32);
            r.set_b32(i.dst[0], &new, mask);
        }
        CvtOp::S32ToF32 => b32_unary(r, i, mask, |a| (a as i32 as f32).to_bits()),
        CvtOp::U32ToF32 => b32_unary(r, i, mask, |a| (a as f32).to_bits()),
        CvtOp::F32ToBf16 => b32_unary(r, i, mask, to_bf16),
        CvtOp::F32ToBf16x2 => b32_binary(r, i, mask, |a, b| to_bf16(a) << 16 | to_bf16(b)),
        CvtOp::F32ToF16 => b32_unary(r, i, mask, |a| convert::pack_half(&[0, a as u64, 0, 0], 0) as u32),
        CvtOp::F32ToF16x2 => {
            b32_binary(r, i, mask, |a, b| convert::pack_half(&[a as u64, b as u64, 0, 0], 0) as u32);
        }
        CvtOp::F16ToF32 => b32_unary(r, i, mask, |a| canonical(widen(a as u16, 0) as f32)),
        CvtOp::Bf16ToF32 => b32_unary(r, i, mask, |a| canonical(widen(a as u16, MODE_BF16) as f32)),
    }
}

/// Evaluates a condition in every lane: bit k of the result is lane k.
#[inline(always)]
fn bits(f: impl Fn(usize) -> bool) -> u32 {
    let mut out = 0;
    for k in 0..LANES {
        out |= (f(k) as u32) << k;
    }
    out
}

#[inline(always)]
fn compare_integers<T: Copy + Ord>(cmp: CmpOp, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    match cmp {
        CmpOp::Eq => bits(|k| a[k] == b[k]),
        CmpOp::Ne => bits(|k| a[k] != b[k]),
        CmpOp::Lt => bits(|k| a[k] < b[k]),
        CmpOp::Le => bits(|k| a[k] <= b[k]),
        CmpOp::Gt => bits(|k| a[k] > b[k]),
        _ => bits(|k| a[k] >= b[k]),
    }
}

#[inline(always)]
fn compare_floats<T: Copy + PartialOrd>(cmp: CmpOp, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    let (lt, eq, gt) = (bits(|k| a[k] < b[k]), bits(|k| a[k] == b[k]), bits(|k| a[k] > b[k]));
    let nan = !(lt | eq | gt);
    match cmp {
        CmpOp::Eq => eq,
        CmpOp::Ne => lt | gt,
        CmpOp::Lt => lt,
        CmpOp::Le => lt | eq,
        CmpOp::Gt => gt,
        CmpOp::Ge => gt | eq,
        CmpOp::Equ => eq | nan,
        CmpOp::Neu => !eq,
        CmpOp::Ltu => lt | nan,
        CmpOp::Leu => !gt,
        CmpOp::Gtu => gt | nan,
        CmpOp::Geu => !lt,
        CmpOp::Num => !nan,
        CmpOp::Nan => nan,
    }
}

/// Compares two operands, one bit per lane.
#[inline(always)]
pub fn compare(r: &Registers<'_>, i: &Inst, ty: CmpType, cmp: CmpOp, ftz: bool) -> u32 {
    let (a, b) = (i.src[0], i.src[1]);
    match ty {
        CmpType::U32 => compare_integers(cmp, r.b32(a), r.b32(b)),
        CmpType::S32 => {
            compare_integers(cmp, &map_lanes(r.b32(a), |x| x as i32), &map_lanes(r.b32(b), |x| x as i32))
        }
        CmpType::U64 => compare_integers(cmp, r.b64(a), r.b64(b)),
        CmpType::S64 => {
            compare_integers(cmp, &map_lanes(r.b64(a), |x| x as i64), &map_lanes(r.b64(b), |x| x as i64))
        }
        CmpType::F32 => {
            let value = |x: u32| if ftz { flush(f32::from_bits(x)) } else { f32::from_bits(x) };
            compare_floats(cmp, &map_lanes(r.b32(a), value), &map_lanes(r.b32(b), value))
        }
        CmpType::F64 => {
            compare_floats(cmp, &map_lanes(r.b64(a), f64::from_bits), &map_lanes(r.b64(b), f64::from_bits))
        }
        CmpType::F16 => compare_floats(
            cmp,
            &map_lanes(r.b32(a), |x| widen(x as u16, 0)),
            &map_lanes(r.b32(b), |x| widen(x as u16, 0)),
        ),
        CmpType::Bf16 => compare_floats(
            cmp,
            &map_lanes(r.b32(a), |x| widen(x as u16, MODE_BF16)),
            &map_lanes(r.b32(b), |x| widen(x as u16, MODE_BF16)),
        ),
    }
}

#[inline(always)]
fn setp(r: &mut Registers<'_>, i: &Inst, mask: u32, ty: CmpType, cmp: CmpOp, bool_op: BoolOp, ftz: bool) {
    let result = compare(r, i, ty, cmp, ftz);
    let (p, q) = match bool_op {
        BoolOp::None => (result, !result),
        BoolOp::And => (result & r.predicate(i.src[2]), !result & r.predicate(i.src[2])),
        BoolOp::Or => (result | r.predicate(i.src[2]), !result | r.predicate(i.src[2])),
        BoolOp::Xor => (result ^ r.predicate(i.src[2]), !result ^ r.predicate(i.src[2])),
    };
    r.set_predicate(i.dst[0], p, mask);
    if !i.dst[1].is_none() {
        r.set_predicate(i.dst[1], q, mask);
    }
}

#[inline(always)]
fn logic(r: &mut Registers<'_>, i: &Inst, mask: u32, op: PredicateOp) {
    let a = r.predicate(i.src[0]);
    let new = match op {
        PredicateOp::Mov => a,
        PredicateOp::Not => !a,
        PredicateOp::And => a & r.predicate(i.src[1]),
        PredicateOp::Or => a | r.predicate(i.src[1]),
        PredicateOp::Xor => a ^ r.predicate(i.src[1]),
    };
    r.set_predicate(i.dst[0], new, mask);
}

fn carry(r: &mut Registers<'_>, i: &Inst, mask: u32, subtract: bool, read: bool, write: bool, double: bool) {
    let (a, b) = (r.bits(i.src[0]), r.bits(i.src[1]));
    let width = if double { 64 } else { 32 };
    let (mut new, mut flags) = ([0; LANES], 0);
    for k in 0..LANES {
        let flag = if read { (r.carry >> k & 1) as i128 } else { 0 };
        let exact = match subtract {
            true => a[k] as i128 - b[k] as i128 - flag,
            false => a[k] as i128 + b[k] as i128 + flag,
        };
        new[k] = exact as u64;
        flags |= ((exact >> width & 1) as u32) << k;
    }
    r.set_bits(i.dst[0], &new, mask);
    if write {
        r.carry = r.carry & !mask | flags & mask;
    }
}

/// Packs parts into a wider register or unpacks them. Bits only move, so the same code moves taint.
#[inline(always)]
pub fn pack(r: &mut Registers<'_>, i: &Inst, mask: u32) {
    match i.op {
        Opcode::Pack64 => {
            let (a, b) = (r.b32(i.src[0]), r.b32(i.src[1]));
            let new: [u64; LANES] = row(|k| a[k] as u64 | (b[k] as u64) << 32);
            r.set_b64(i.dst[0], &new, mask);
        }
        Opcode::Pack32 => {
            let (a, b) = (r.b32(i.src[0]), r.b32(i.src[1]));
            let new: B32Lanes = row(|k| a[k] & 0xffff | b[k] << 16);
            r.set_b32(i.dst[0], &new, mask);
        }
        Opcode::PackQuarters => {
            let s: [&B32Lanes; 4] = from_fn(|n| r.b32(i.src[n]));
            let part = |n: usize, k: usize| (s[n][k] as u64 & 0xffff) << (16 * n);
            let new: [u64; LANES] = row(|k| part(0, k) | part(1, k) | part(2, k) | part(3, k));
            r.set_b64(i.dst[0], &new, mask);
        }
        Opcode::Unpack64 => {
            let a = *r.b64(i.src[0]);
            r.set_b32(i.dst[0], &map_lanes(&a, |x| x as u32), mask);
            r.set_b32(i.dst[1], &map_lanes(&a, |x| (x >> 32) as u32), mask);
        }
        Opcode::Unpack32 => {
            let a = *r.b32(i.src[0]);
            r.set_b32(i.dst[0], &map_lanes(&a, |x| x & 0xffff), mask);
            r.set_b32(i.dst[1], &map_lanes(&a, |x| x >> 16), mask);
        }
        _ => {
            let a = *r.b64(i.src[0]);
            for n in 0..4 {
                r.set_b32(i.dst[n], &map_lanes(&a, |x| (x >> (16 * n)) as u32 & 0xffff), mask);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::float::{self, mode};
    use crate::lane::round::Rounding;

    #[test]
    fn rounding_down_and_saturation_agree_with_the_functions_of_a_lane() {
        const SPECIAL: [u32; 9] =
            [0, 1 << 31, 1, 0x8000_0001, 0x7f80_0000, 0xff80_0000, NAN32, 0x7f7f_ffff, 0xff7f_ffff];
        let mut state = 11u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bits = (state >> 32) as u32;
            // One in four is special, one in four is near 1, so that sums cancel.
            match bits % 4 {
                0 => SPECIAL[(bits >> 8) as usize % SPECIAL.len()],
                1 => bits & 0x807f_ffff | 0x3f80_0000,
                _ => (state >> 21) as u32,
            }
        };
        for _ in 0..400_000 {
            let x = [next(), next(), next()];
            let [a, b, c] = x.map(f32::from_bits);
            let bits = [x[0] as u64, x[1] as u64, x[2] as u64, 0];
            let got = canonical(fma_down(a, b, c)) as u64;
            assert_eq!(got, float::fma(&bits, mode(Rounding::Down)), "{a:e} {b:e} {c:e}");
            let f32_to_f32 = convert::types(convert::CvtType::F32, convert::CvtType::F32);
            assert_eq!(saturate(a).to_bits() as u64, convert::cvt(&bits, float::SAT | f32_to_f32), "{a:e}");
        }
    }
}
