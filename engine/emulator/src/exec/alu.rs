//! Instructions on registers alone. Each is a loop over a row; masked lanes are computed and not kept.

use super::registers::{Registers, row};
use crate::inst::{Cmp, CmpType, Convert, Float, Inst, Int, Join, LANES, Logic, Op};
use crate::lane::convert;
use crate::lane::float::{NAN32, flush};
use crate::lane::half::{BRAIN, widen};
use std::array::from_fn;

type Words = [u32; LANES];

#[inline(always)]
fn each<T: Copy, U: Copy + Default>(a: &[T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    row(|k| f(a[k]))
}

#[inline(always)]
fn words1(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u32) -> u32) {
    let a = r.word(i.src[0]);
    let new: Words = row(|k| f(a[k]));
    r.set_word(i.dst[0], &new, mask);
}

#[inline(always)]
fn words2(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u32, u32) -> u32) {
    let (a, b) = (r.word(i.src[0]), r.word(i.src[1]));
    let new: Words = row(|k| f(a[k], b[k]));
    r.set_word(i.dst[0], &new, mask);
}

#[inline(always)]
fn words3(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u32, u32, u32) -> u32) {
    let (a, b, c) = (r.word(i.src[0]), r.word(i.src[1]), r.word(i.src[2]));
    let new: Words = row(|k| f(a[k], b[k], c[k]));
    r.set_word(i.dst[0], &new, mask);
}

#[inline(always)]
fn doubles1(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u64) -> u64) {
    let a = r.double(i.src[0]);
    let new: [u64; LANES] = row(|k| f(a[k]));
    r.set_double(i.dst[0], &new, mask);
}

#[inline(always)]
fn doubles2(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u64, u64) -> u64) {
    let (a, b) = (r.double(i.src[0]), r.double(i.src[1]));
    let new: [u64; LANES] = row(|k| f(a[k], b[k]));
    r.set_double(i.dst[0], &new, mask);
}

/// Double by word operand: shifts.
#[inline(always)]
fn shifts(r: &mut Registers<'_>, i: &Inst, mask: u32, f: impl Fn(u64, u32) -> u64) {
    let (a, b) = (r.double(i.src[0]), r.word(i.src[1]));
    let new: [u64; LANES] = row(|k| f(a[k], b[k]));
    r.set_double(i.dst[0], &new, mask);
}

/// Executes an instruction that touches registers only; false when it is not one of those.
#[inline(always)]
pub fn execute(r: &mut Registers<'_>, i: &Inst, mask: u32) -> bool {
    match i.op {
        Op::Int32(op) => int32(r, i, mask, op),
        Op::Int64(op) => int64(r, i, mask, op),
        Op::Float(op, false) => float(r, i, mask, op, |x| x),
        Op::Float(op, true) => float(r, i, mask, op, flush),
        Op::Mov32 => words1(r, i, mask, |a| a),
        Op::Mov64 => doubles1(r, i, mask, |a| a),
        Op::MulWide(signed) => multiply_wide(r, i, mask, signed, false),
        Op::MadWide(signed) => multiply_wide(r, i, mask, signed, true),
        Op::Shl32 => words2(r, i, mask, |a, b| if b < 32 { a << b } else { 0 }),
        Op::ShrU32 => words2(r, i, mask, |a, b| if b < 32 { a >> b } else { 0 }),
        Op::ShrS32 => words2(r, i, mask, |a, b| (a as i32 >> b.min(31)) as u32),
        Op::Shl64 => shifts(r, i, mask, |a, b| if b < 64 { a << b } else { 0 }),
        Op::ShrU64 => shifts(r, i, mask, |a, b| if b < 64 { a >> b } else { 0 }),
        Op::ShrS64 => shifts(r, i, mask, |a, b| (a as i64 >> b.min(63)) as u64),
        Op::Lop3(table) => words3(r, i, mask, |a, b, c| lop3(table, a, b, c)),
        Op::Convert(op) => convert(r, i, mask, op),
        Op::Setp(ty, cmp, join, ftz) => setp(r, i, mask, ty, cmp, join, ftz),
        Op::Selp32 => {
            let p = r.predicate(i.src[2]);
            let (a, b) = (r.word(i.src[0]), r.word(i.src[1]));
            let new: Words = row(|k| if p >> k & 1 != 0 { a[k] } else { b[k] });
            r.set_word(i.dst[0], &new, mask);
        }
        Op::Selp64 => {
            let p = r.predicate(i.src[2]);
            let (a, b) = (r.double(i.src[0]), r.double(i.src[1]));
            let new: [u64; LANES] = row(|k| if p >> k & 1 != 0 { a[k] } else { b[k] });
            r.set_double(i.dst[0], &new, mask);
        }
        Op::Logic(op) => logic(r, i, mask, op),
        Op::Lanes(f, mode, _) => {
            let s: [[u64; LANES]; 4] = from_fn(|n| r.bits(i.src[n]));
            let mut new = [0; LANES];
            for k in 0..LANES {
                if mask >> k & 1 != 0 {
                    new[k] = f(&[s[0][k], s[1][k], s[2][k], s[3][k]], mode);
                }
            }
            r.set_bits(i.dst[0], &new, mask);
        }
        Op::Carry { subtract, read, write, double } => carry(r, i, mask, subtract, read, write, double),
        Op::Pack64 | Op::Unpack64 | Op::Pack32 | Op::Unpack32 | Op::PackQuarters | Op::UnpackQuarters => {
            pack(r, i, mask);
        }
        Op::Nop | Op::Fence => {}
        _ => return false,
    }
    true
}

#[inline(always)]
fn int32(r: &mut Registers<'_>, i: &Inst, mask: u32, op: Int) {
    match op {
        Int::Add => words2(r, i, mask, u32::wrapping_add),
        Int::Sub => words2(r, i, mask, u32::wrapping_sub),
        Int::Mul => words2(r, i, mask, u32::wrapping_mul),
        Int::Mad => words3(r, i, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        Int::MinU => words2(r, i, mask, u32::min),
        Int::MinS => words2(r, i, mask, |a, b| (a as i32).min(b as i32) as u32),
        Int::MaxU => words2(r, i, mask, u32::max),
        Int::MaxS => words2(r, i, mask, |a, b| (a as i32).max(b as i32) as u32),
        Int::And => words2(r, i, mask, |a, b| a & b),
        Int::Or => words2(r, i, mask, |a, b| a | b),
        Int::Xor => words2(r, i, mask, |a, b| a ^ b),
        Int::Not => words1(r, i, mask, |a| !a),
        Int::Neg => words1(r, i, mask, u32::wrapping_neg),
    }
}

#[inline(always)]
fn int64(r: &mut Registers<'_>, i: &Inst, mask: u32, op: Int) {
    match op {
        Int::Add => doubles2(r, i, mask, u64::wrapping_add),
        Int::Sub => doubles2(r, i, mask, u64::wrapping_sub),
        Int::Mul => doubles2(r, i, mask, u64::wrapping_mul),
        Int::Mad => {
            let (a, b, c) = (r.double(i.src[0]), r.double(i.src[1]), r.double(i.src[2]));
            let new: [u64; LANES] = row(|k| a[k].wrapping_mul(b[k]).wrapping_add(c[k]));
            r.set_double(i.dst[0], &new, mask);
        }
        Int::MinU => doubles2(r, i, mask, u64::min),
        Int::MinS => doubles2(r, i, mask, |a, b| (a as i64).min(b as i64) as u64),
        Int::MaxU => doubles2(r, i, mask, u64::max),
        Int::MaxS => doubles2(r, i, mask, |a, b| (a as i64).max(b as i64) as u64),
        Int::And => doubles2(r, i, mask, |a, b| a & b),
        Int::Or => doubles2(r, i, mask, |a, b| a | b),
        Int::Xor => doubles2(r, i, mask, |a, b| a ^ b),
        Int::Not => doubles1(r, i, mask, |a| !a),
        Int::Neg => doubles1(r, i, mask, u64::wrapping_neg),
    }
}

/// The bits of a result; every NaN is the one that PTX arithmetic returns.
#[inline(always)]
pub fn canonical(x: f32) -> u32 {
    if x.is_nan() { NAN32 } else { x.to_bits() }
}

#[inline(always)]
fn float(r: &mut Registers<'_>, i: &Inst, mask: u32, op: Float, z: impl Fn(f32) -> f32 + Copy) {
    let f = move |bits: u32| z(f32::from_bits(bits));
    match op {
        Float::Add => words2(r, i, mask, |a, b| canonical(z(f(a) + f(b)))),
        Float::Sub => words2(r, i, mask, |a, b| canonical(z(f(a) - f(b)))),
        Float::Mul => words2(r, i, mask, |a, b| canonical(z(f(a) * f(b)))),
        Float::Fma => words3(r, i, mask, |a, b, c| canonical(z(f(a).mul_add(f(b), f(c))))),
        Float::Min => {
            words2(r, i, mask, |a, b| extreme(f(a), f(b), f(a) < f(b), f(a).to_bits() | f(b).to_bits()))
        }
        Float::Max => {
            words2(r, i, mask, |a, b| extreme(f(a), f(b), f(a) > f(b), f(a).to_bits() & f(b).to_bits()))
        }
        Float::Neg => words1(r, i, mask, |a| f(a).to_bits() ^ 0x8000_0000),
        Float::Abs => words1(r, i, mask, |a| f(a).to_bits() & 0x7fff_ffff),
    }
}

/// One of two floats: the first where `first`, `equal` where they compare equal, never NaN unless both are.
#[inline(always)]
fn extreme(a: f32, b: f32, first: bool, equal: u32) -> u32 {
    let chosen = if first { a.to_bits() } else { b.to_bits() };
    let chosen = if a == b { equal } else { chosen };
    let chosen = if a.is_nan() { canonical(b) } else { chosen };
    if b.is_nan() { canonical(a) } else { chosen }
}

#[inline(always)]
fn multiply_wide(r: &mut Registers<'_>, i: &Inst, mask: u32, signed: bool, add: bool) {
    let (a, b) = (r.word(i.src[0]), r.word(i.src[1]));
    let product: [u64; LANES] = match signed {
        true => row(|k| (a[k] as i32 as i64).wrapping_mul(b[k] as i32 as i64) as u64),
        false => row(|k| a[k] as u64 * b[k] as u64),
    };
    if add {
        let c = r.double(i.src[2]);
        let sum: [u64; LANES] = row(|k| product[k].wrapping_add(c[k]));
        r.set_double(i.dst[0], &sum, mask);
    } else {
        r.set_double(i.dst[0], &product, mask);
    }
}

/// Bit n of the table is the result where the operands' bits spell n.
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

/// f32 to bf16, to nearest even.
#[inline(always)]
fn to_bf16(bits: u32) -> u32 {
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

#[inline(always)]
fn convert(r: &mut Registers<'_>, i: &Inst, mask: u32, op: Convert) {
    match op {
        Convert::U32ToU64 => {
            let a = r.word(i.src[0]);
            let new: [u64; LANES] = row(|k| a[k] as u64);
            r.set_double(i.dst[0], &new, mask);
        }
        Convert::S32ToS64 => {
            let a = r.word(i.src[0]);
            let new: [u64; LANES] = row(|k| a[k] as i32 as i64 as u64);
            r.set_double(i.dst[0], &new, mask);
        }
        Convert::U64ToU32 => {
            let a = r.double(i.src[0]);
            let new: Words = row(|k| a[k] as u32);
            r.set_word(i.dst[0], &new, mask);
        }
        Convert::S32ToF32 => words1(r, i, mask, |a| (a as i32 as f32).to_bits()),
        Convert::U32ToF32 => words1(r, i, mask, |a| (a as f32).to_bits()),
        Convert::F32ToBf16 => words1(r, i, mask, to_bf16),
        Convert::F32ToBf16x2 => words2(r, i, mask, |a, b| to_bf16(a) << 16 | to_bf16(b)),
        Convert::F32ToF16 => words1(r, i, mask, |a| convert::pack_half(&[0, a as u64, 0, 0], 0) as u32),
        Convert::F32ToF16x2 => {
            words2(r, i, mask, |a, b| convert::pack_half(&[a as u64, b as u64, 0, 0], 0) as u32);
        }
        Convert::F16ToF32 => words1(r, i, mask, |a| canonical(widen(a as u16, 0) as f32)),
        Convert::Bf16ToF32 => words1(r, i, mask, |a| canonical(widen(a as u16, BRAIN) as f32)),
    }
}

/// One bit per lane.
#[inline(always)]
fn bits(f: impl Fn(usize) -> bool) -> u32 {
    let mut out = 0;
    for k in 0..LANES {
        out |= (f(k) as u32) << k;
    }
    out
}

#[inline(always)]
fn compare_integers<T: Copy + Ord>(cmp: Cmp, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    match cmp {
        Cmp::Eq => bits(|k| a[k] == b[k]),
        Cmp::Ne => bits(|k| a[k] != b[k]),
        Cmp::Lt => bits(|k| a[k] < b[k]),
        Cmp::Le => bits(|k| a[k] <= b[k]),
        Cmp::Gt => bits(|k| a[k] > b[k]),
        _ => bits(|k| a[k] >= b[k]),
    }
}

#[inline(always)]
fn compare_floats<T: Copy + PartialOrd>(cmp: Cmp, a: &[T; LANES], b: &[T; LANES]) -> u32 {
    let (lt, eq, gt) = (bits(|k| a[k] < b[k]), bits(|k| a[k] == b[k]), bits(|k| a[k] > b[k]));
    let nan = !(lt | eq | gt);
    match cmp {
        Cmp::Eq => eq,
        Cmp::Ne => lt | gt,
        Cmp::Lt => lt,
        Cmp::Le => lt | eq,
        Cmp::Gt => gt,
        Cmp::Ge => gt | eq,
        Cmp::Equ => eq | nan,
        Cmp::Neu => !eq,
        Cmp::Ltu => lt | nan,
        Cmp::Leu => !gt,
        Cmp::Gtu => gt | nan,
        Cmp::Geu => !lt,
        Cmp::Num => !nan,
        Cmp::Nan => nan,
    }
}

/// The comparison of two operands, one bit per lane.
#[inline(always)]
pub fn truth(r: &Registers<'_>, i: &Inst, ty: CmpType, cmp: Cmp, ftz: bool) -> u32 {
    let (a, b) = (i.src[0], i.src[1]);
    match ty {
        CmpType::U32 => compare_integers(cmp, r.word(a), r.word(b)),
        CmpType::S32 => compare_integers(cmp, &each(r.word(a), |x| x as i32), &each(r.word(b), |x| x as i32)),
        CmpType::U64 => compare_integers(cmp, r.double(a), r.double(b)),
        CmpType::S64 => {
            compare_integers(cmp, &each(r.double(a), |x| x as i64), &each(r.double(b), |x| x as i64))
        }
        CmpType::F32 => {
            let value = |x: u32| if ftz { flush(f32::from_bits(x)) } else { f32::from_bits(x) };
            compare_floats(cmp, &each(r.word(a), value), &each(r.word(b), value))
        }
        CmpType::F64 => {
            compare_floats(cmp, &each(r.double(a), f64::from_bits), &each(r.double(b), f64::from_bits))
        }
        CmpType::F16 => compare_floats(
            cmp,
            &each(r.word(a), |x| widen(x as u16, 0)),
            &each(r.word(b), |x| widen(x as u16, 0)),
        ),
        CmpType::Bf16 => compare_floats(
            cmp,
            &each(r.word(a), |x| widen(x as u16, BRAIN)),
            &each(r.word(b), |x| widen(x as u16, BRAIN)),
        ),
    }
}

#[inline(always)]
fn setp(r: &mut Registers<'_>, i: &Inst, mask: u32, ty: CmpType, cmp: Cmp, join: Join, ftz: bool) {
    let truth = truth(r, i, ty, cmp, ftz);
    let (p, q) = match join {
        Join::None => (truth, !truth),
        Join::And => (truth & r.predicate(i.src[2]), !truth & r.predicate(i.src[2])),
        Join::Or => (truth | r.predicate(i.src[2]), !truth | r.predicate(i.src[2])),
        Join::Xor => (truth ^ r.predicate(i.src[2]), !truth ^ r.predicate(i.src[2])),
    };
    r.set_predicate(i.dst[0], p, mask);
    if !i.dst[1].is_none() {
        r.set_predicate(i.dst[1], q, mask);
    }
}

#[inline(always)]
fn logic(r: &mut Registers<'_>, i: &Inst, mask: u32, op: Logic) {
    let a = r.predicate(i.src[0]);
    let new = match op {
        Logic::Mov => a,
        Logic::Not => !a,
        Logic::And => a & r.predicate(i.src[1]),
        Logic::Or => a | r.predicate(i.src[1]),
        Logic::Xor => a ^ r.predicate(i.src[1]),
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

/// Packs parts into a wider register or unpacks them: bits move, so uninitialised ones move alike.
pub fn pack(r: &mut Registers<'_>, i: &Inst, mask: u32) {
    match i.op {
        Op::Pack64 => {
            let (a, b) = (r.word(i.src[0]), r.word(i.src[1]));
            let new: [u64; LANES] = row(|k| a[k] as u64 | (b[k] as u64) << 32);
            r.set_double(i.dst[0], &new, mask);
        }
        Op::Pack32 => {
            let (a, b) = (r.word(i.src[0]), r.word(i.src[1]));
            let new: Words = row(|k| a[k] & 0xffff | b[k] << 16);
            r.set_word(i.dst[0], &new, mask);
        }
        Op::PackQuarters => {
            let s: [&Words; 4] = from_fn(|n| r.word(i.src[n]));
            let part = |n: usize, k: usize| (s[n][k] as u64 & 0xffff) << (16 * n);
            let new: [u64; LANES] = row(|k| part(0, k) | part(1, k) | part(2, k) | part(3, k));
            r.set_double(i.dst[0], &new, mask);
        }
        Op::Unpack64 => {
            let a = *r.double(i.src[0]);
            r.set_word(i.dst[0], &each(&a, |x| x as u32), mask);
            r.set_word(i.dst[1], &each(&a, |x| (x >> 32) as u32), mask);
        }
        Op::Unpack32 => {
            let a = *r.word(i.src[0]);
            r.set_word(i.dst[0], &each(&a, |x| x & 0xffff), mask);
            r.set_word(i.dst[1], &each(&a, |x| x >> 16), mask);
        }
        _ => {
            let a = *r.double(i.src[0]);
            for n in 0..4 {
                r.set_word(i.dst[n], &each(&a, |x| (x >> (16 * n)) as u32 & 0xffff), mask);
            }
        }
    }
}
