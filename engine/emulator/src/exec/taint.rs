//! Uninitialised data: which register bits depend on it, and where it must not be used.
//!
//! A warp gets a second set of registers when it first meets an uninitialised bit. A bit set there means that
//! the same bit of the real register may depend on uninitialised data. Moves and bit operations keep track
//! bit by bit, arithmetic smears. Nothing is wrong with computing on such data, as in the masked part of a
//! partial tile; using it for an address, for control, or for a value stored in global memory is a fault.

use super::alu;
use super::mma;
use super::registers::Registers;
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::inst::{Class, Convert, FULL, Inst, Int, Join, LANES, Logic, Moves, Op, Slot, Vote};
use std::array::from_fn;

type Row = [u64; LANES];

fn all_ones(class: Class) -> u64 {
    match class {
        Class::Word => u32::MAX as u64,
        Class::Double => u64::MAX,
        Class::Predicate => 1,
    }
}

/// Bits of an `and`: tainted unless the other operand is a clean zero.
fn and(a: u64, ta: u64, b: u64, tb: u64) -> u64 {
    ta & (b | tb) | tb & (a | ta)
}

/// The lowest tainted bit and all above it: a carry goes up only.
fn upward(t: u64) -> u64 {
    t | t.wrapping_neg()
}

impl<'g> Warp<'g> {
    /// Whether lanes of an operand depend on uninitialised data.
    pub fn tainted(&self, s: Slot, mask: u32) -> u32 {
        let Some(t) = &self.taints else { return 0 };
        if s.is_none() || s.is_constant() {
            return 0;
        }
        let row = t.bits(s);
        lanes(mask).filter(|&k| row[k] != 0).fold(0, |m, k| m | 1 << k)
    }

    /// A fault when active lanes of an operand that must be known depend on uninitialised data.
    pub fn require_known(&self, s: Slot, mask: u32, what: &str) -> Check {
        match self.tainted(s, mask) {
            0 => Ok(()),
            found => {
                let detail = format!("{what} depends on uninitialised data");
                let t = trouble(FaultKind::Uninitialised, Some(found.trailing_zeros()), detail);
                Err(match self.first_taint {
                    Some(pc) => t.also_at(pc),
                    None => t,
                })
            }
        }
    }

    /// Forgets the taint when no register that will still be read has any.
    pub fn drop_taint(&mut self, live: &[Slot]) {
        if self.taints.as_ref().is_some_and(|t| t.carry == 0 && !live.iter().any(|&s| t.any(s))) {
            (self.taints, self.first_taint) = (None, None);
        }
    }

    /// What an instruction on registers does to the taint of its destinations; called before it executes.
    #[inline(never)]
    pub fn spread_taint(&mut self, i: &Inst, mask: u32) {
        let Some(t) = self.taints.as_mut() else { return };
        let r = &self.registers;
        // Those that read memory or other lanes set the taint where they do so.
        if matches!(i.op, Op::Load(_) | Op::Atom { .. } | Op::LoadMatrix(..) | Op::Shuffle(_)) {
            return;
        }
        let mut sources = i.src.into_iter().filter(|s| !s.is_none() && !s.is_constant());
        if t.carry == 0 && !sources.any(|s| t.any(s)) {
            return i.dst.into_iter().filter(|d| !d.is_none()).for_each(|d| t.clear(d, mask));
        }
        match i.op {
            Op::Mov32 | Op::Mov64 | Op::Convert(Convert::U32ToU64 | Convert::U64ToU32) => {
                let bits = t.bits(i.src[0]);
                t.set_bits(i.dst[0], &bits, mask);
            }
            Op::Convert(Convert::S32ToS64) => {
                let bits = t.word(i.src[0]).map(|x| x as i32 as i64 as u64);
                t.set_double(i.dst[0], &bits, mask);
            }
            Op::Convert(Convert::F32ToBf16x2 | Convert::F32ToF16x2) => {
                let (a, b) = (*t.word(i.src[0]), *t.word(i.src[1]));
                let half = |x: u32| if x != 0 { 0xffff } else { 0 };
                t.set_word(i.dst[0], &from_fn(|k| half(a[k]) << 16 | half(b[k])), mask);
            }
            Op::Pack64 | Op::Unpack64 | Op::Pack32 | Op::Unpack32 | Op::PackQuarters | Op::UnpackQuarters => {
                alu::pack(t, i, mask);
            }
            Op::Int32(op) | Op::Int64(op) => integer(r, t, i, mask, op),
            Op::Lop3(_) => {
                let s: [[u32; LANES]; 3] = from_fn(|n| *t.word(i.src[n]));
                t.set_word(i.dst[0], &from_fn(|k| s[0][k] | s[1][k] | s[2][k]), mask);
            }
            Op::Shl32 | Op::ShrU32 | Op::ShrS32 | Op::Shl64 | Op::ShrU64 | Op::ShrS64 => shift(r, t, i, mask),
            Op::Setp(ty, cmp, join, ftz) => {
                let (a, b, c) = (t.bits(i.src[0]), t.bits(i.src[1]), t.bits(i.src[2]));
                let (truth, other) = (alu::truth(r, i, ty, cmp, ftz), r.bits(i.src[2]));
                let joined = |truth: u32| -> Row {
                    from_fn(|k| {
                        let (p, q, tp) = ((truth >> k & 1) as u64, other[k], (a[k] | b[k] != 0) as u64);
                        match join {
                            Join::None => tp,
                            Join::And => and(p, tp, q, c[k]),
                            Join::Or => and(p ^ 1, tp, q ^ 1, c[k]),
                            Join::Xor => tp | c[k],
                        }
                    })
                };
                t.set_bits(i.dst[0], &joined(truth), mask);
                if !i.dst[1].is_none() {
                    t.set_bits(i.dst[1], &joined(!truth), mask);
                }
            }
            Op::Selp32 | Op::Selp64 => {
                let (a, b, c) = (t.bits(i.src[0]), t.bits(i.src[1]), t.bits(i.src[2]));
                let p = r.predicate(i.src[2]);
                let ones = all_ones(i.dst[0].class());
                let chosen = |k: usize| if p >> k & 1 != 0 { a[k] } else { b[k] };
                t.set_bits(i.dst[0], &from_fn(|k| if c[k] != 0 { ones } else { chosen(k) }), mask);
            }
            Op::Logic(op) => {
                let (a, b) = (r.bits(i.src[0]), r.bits(i.src[1]));
                let (ta, tb) = (t.bits(i.src[0]), t.bits(i.src[1]));
                let new = |k: usize| match op {
                    Logic::And => and(a[k], ta[k], b[k], tb[k]),
                    Logic::Or => and(a[k] ^ 1, ta[k], b[k] ^ 1, tb[k]),
                    _ => ta[k] | tb[k],
                };
                t.set_bits(i.dst[0], &from_fn(new), mask);
            }
            Op::Lanes(f, mode, moves) => function(r, t, i, mask, (f, mode), moves),
            Op::Vote(mode) => {
                let p = t.predicate(i.src[0]) & mask;
                let any = if p != 0 { FULL } else { 0 };
                match mode {
                    Vote::Ballot => t.set_word(i.dst[0], &[p; LANES], mask),
                    _ => t.set_predicate(i.dst[0], any, mask),
                }
            }
            Op::MatchAny | Op::MatchAll | Op::Redux(_) => {
                let row = t.bits(i.src[0]);
                let any = lanes(mask).any(|k| row[k] != 0);
                for d in i.dst.into_iter().filter(|d| !d.is_none()) {
                    t.set_bits(d, &[if any { all_ones(d.class()) } else { 0 }; LANES], mask);
                }
            }
            Op::Mma(kind) => matrix(t, i, kind),
            _ => mix(t, i, mask),
        }
    }
}

/// Every destination depends on every source, lane by lane.
fn mix(t: &mut Registers<'_>, i: &Inst, mask: u32) {
    let mut any = [0u64; LANES];
    for s in i.src.into_iter().filter(|s| !s.is_none() && !s.is_constant()) {
        let row = t.bits(s);
        any.iter_mut().zip(row).for_each(|(a, x)| *a |= x);
    }
    if matches!(i.op, Op::Carry { .. }) {
        let carried = t.carry;
        any.iter_mut().enumerate().for_each(|(k, a)| *a |= (carried >> k & 1) as u64);
        t.carry = lanes(mask).filter(|&k| any[k] != 0).fold(carried & !mask, |m, k| m | 1 << k);
    }
    for d in i.dst.into_iter().filter(|d| !d.is_none()) {
        let ones = all_ones(d.class());
        t.set_bits(d, &any.map(|x| if x != 0 { ones } else { 0 }), mask);
    }
}

fn integer(r: &Registers<'_>, t: &mut Registers<'_>, i: &Inst, mask: u32, op: Int) {
    let (a, b) = (r.bits(i.src[0]), r.bits(i.src[1]));
    let (ta, tb, tc) = (t.bits(i.src[0]), t.bits(i.src[1]), t.bits(i.src[2]));
    let ones = all_ones(i.dst[0].class());
    let new = |k: usize| match op {
        Int::And => and(a[k], ta[k], b[k], tb[k]),
        Int::Or => and(a[k] ^ ones, ta[k], b[k] ^ ones, tb[k]),
        Int::Xor | Int::Not => ta[k] | tb[k],
        Int::Add | Int::Sub | Int::Neg | Int::Mul | Int::Mad => upward(ta[k] | tb[k] | tc[k]) & ones,
        _ => {
            if ta[k] | tb[k] != 0 {
                ones
            } else {
                0
            }
        }
    };
    let new = from_fn(new);
    t.set_bits(i.dst[0], &new, mask);
}

fn shift(r: &Registers<'_>, t: &mut Registers<'_>, i: &Inst, mask: u32) {
    let (ta, tb, count) = (t.bits(i.src[0]), t.word(i.src[1]), r.word(i.src[1]));
    let bits = if i.dst[0].class() == Class::Double { 64 } else { 32 };
    let ones = all_ones(i.dst[0].class());
    let new = |k: usize| {
        let n = count[k].min(bits);
        let signed = (ta[k] << (64 - bits)) as i64 >> (64 - bits);
        match i.op {
            _ if tb[k] != 0 => ones,
            Op::Shl32 | Op::Shl64 => ta[k].checked_shl(n).unwrap_or(0) & ones,
            Op::ShrU32 | Op::ShrU64 => ta[k].checked_shr(n).unwrap_or(0),
            _ => (signed >> n.min(63)) as u64 & ones,
        }
    };
    let new = from_fn(new);
    t.set_bits(i.dst[0], &new, mask);
}

fn function(
    r: &Registers<'_>,
    t: &mut Registers<'_>,
    i: &Inst,
    mask: u32,
    (f, mode): (crate::inst::LaneFn, u32),
    moves: Moves,
) {
    let s: [Row; 4] = from_fn(|n| r.bits(i.src[n]));
    let ts: [Row; 4] = from_fn(|n| t.bits(i.src[n]));
    let ones = all_ones(i.dst[0].class());
    let any = |k: usize, from: usize| ts[from..].iter().any(|row| row[k] != 0);
    let new = |k: usize| match moves {
        _ if !any(k, 0) => 0,
        // Control that is known moves taint as it moves bits.
        Moves::Bits(n) if !any(k, n as usize) => {
            f(&from_fn(|m| if m < n as usize { ts[m][k] } else { s[m][k] }), mode)
        }
        Moves::Halves => {
            let all = ts.iter().fold(0, |all, row| all | row[k]);
            let half = |x: u64| if x & 0xffff != 0 { 0xffff } else { 0 };
            half(all) | half(all >> 16) << 16
        }
        _ => ones,
    };
    let new = from_fn(new);
    t.set_bits(i.dst[0], &new, mask);
}

/// An element of D depends on its row of A, its column of B and its own accumulator.
fn matrix(t: &mut Registers<'_>, i: &Inst, kind: crate::inst::Mma) {
    let (a_registers, b_registers) = mma::registers(kind);
    let (mut rows, mut columns) = ([false; 16], [false; 8]);
    for n in 0..a_registers {
        let row = t.word(i.src[n]);
        (0..LANES).for_each(|lane| rows[lane / 4 + 8 * (n % 2)] |= row[lane] != 0);
    }
    for n in 0..b_registers {
        let row = t.word(i.src[4 + n]);
        (0..LANES).for_each(|lane| columns[lane / 4] |= row[lane] != 0);
    }
    let c: [[u32; LANES]; 4] = from_fn(|n| *t.word(i.src[6 + n]));
    for (n, c) in c.iter().enumerate() {
        let new = from_fn(|lane| {
            let hit = rows[lane / 4 + 8 * (n / 2)] || columns[(lane % 4) * 2 + n % 2] || c[lane] != 0;
            if hit { u32::MAX } else { 0 }
        });
        t.set_word(i.dst[n], &new, FULL);
    }
}
