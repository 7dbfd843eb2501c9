//! Initcheck by taint tracking: the register bits that depend on uninitialised data, and where it must not be used.
//!
//! A warp gets a second set of registers, its taint, when it first meets an uninitialised bit. A bit set there means
//! that the same bit of the real register may depend on uninitialised data. Moves and bit operations propagate taint
//! bit by bit, arithmetic propagates it to the whole result. Computing on such data is no fault, as in the masked part
//! of a partial tile; using it for an address, for control, or for a value stored in global memory is one.

use super::alu;
use super::mma;
use super::registers::Registers;
use super::warp::{Warp, lanes};
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::inst::{
    BoolOp, CvtOp, FULL, Inst, IntOp, LANES, Opcode, PredicateOp, RegisterClass, RegisterSlot, TaintFlow,
    VoteMode,
};
use std::array::from_fn;

type LaneBits = [u64; LANES];

fn all_ones(class: RegisterClass) -> u64 {
    match class {
        RegisterClass::B32 => u32::MAX as u64,
        RegisterClass::B64 => u64::MAX,
        RegisterClass::Predicate => 1,
    }
}

/// Taint of an `and`: a bit is tainted unless the other operand is an untainted zero.
fn and(a: u64, ta: u64, b: u64, tb: u64) -> u64 {
    ta & (b | tb) | tb & (a | ta)
}

/// Sets the lowest tainted bit and all above it: a carry only moves up.
fn upward(t: u64) -> u64 {
    t | t.wrapping_neg()
}

impl<'g> Warp<'g> {
    /// Returns the lanes of `mask` in which an operand depends on uninitialised data.
    pub fn tainted(&self, s: RegisterSlot, mask: u32) -> u32 {
        let Some(t) = &self.register_taint else { return 0 };
        if s.is_none() || s.is_constant() {
            return 0;
        }
        let row = t.bits(s);
        lanes(mask).filter(|&k| row[k] != 0).fold(0, |m, k| m | 1 << k)
    }

    /// Checks that no active lane of an operand depends on uninitialised data.
    #[inline(always)]
    pub fn require_known(&self, s: RegisterSlot, mask: u32, what: &str) -> LaneResult {
        if self.register_taint.is_none() { Ok(()) } else { self.require_untainted(s, mask, what) }
    }

    #[inline(never)]
    fn require_untainted(&self, s: RegisterSlot, mask: u32, what: &str) -> LaneResult {
        match self.tainted(s, mask) {
            0 => Ok(()),
            found => {
                let detail = format!("{what} depends on uninitialised data");
                let t = lane_fault(FaultKind::Uninitialised, Some(found.trailing_zeros()), detail);
                Err(match self.taint_source {
                    Some(pc) => t.with_related("loaded", pc),
                    None => t,
                })
            }
        }
    }

    /// Drops the taint when no live register has any.
    pub fn drop_taint(&mut self, live: &[RegisterSlot]) {
        if self.register_taint.as_ref().is_some_and(|t| t.carry == 0 && !live.iter().any(|&s| t.any_bit(s))) {
            (self.register_taint, self.taint_source) = (None, None);
        }
    }

    /// Propagates taint from the sources of an instruction to its destinations; called before it executes.
    #[inline(never)]
    pub fn propagate_taint(&mut self, i: &Inst, mask: u32) {
        let Some(t) = self.register_taint.as_mut() else { return };
        let r = &self.registers;
        // Instructions that read memory or other lanes set the taint where they are executed.
        if matches!(i.op, Opcode::Load(_) | Opcode::Atom { .. } | Opcode::LoadMatrix(..) | Opcode::Shuffle(_))
        {
            return;
        }
        let mut sources = i.src.into_iter().filter(|s| !s.is_none() && !s.is_constant());
        if t.carry == 0 && !sources.any(|s| t.any_bit(s)) {
            return i.dst.into_iter().filter(|d| !d.is_none()).for_each(|d| t.clear(d, mask));
        }
        match i.op {
            Opcode::Mov32 | Opcode::Mov64 | Opcode::Convert(CvtOp::U32ToU64 | CvtOp::U64ToU32) => {
                let bits = t.bits(i.src[0]);
                t.set_bits(i.dst[0], &bits, mask);
            }
            Opcode::Convert(CvtOp::S32ToS64) => {
                let bits = t.b32(i.src[0]).map(|x| x as i32 as i64 as u64);
                t.set_b64(i.dst[0], &bits, mask);
            }
            Opcode::Convert(CvtOp::F32ToBf16x2 | CvtOp::F32ToF16x2) => {
                let (a, b) = (*t.b32(i.src[0]), *t.b32(i.src[1]));
                let half = |x: u32| if x != 0 { 0xffff } else { 0 };
                t.set_b32(i.dst[0], &from_fn(|k| half(a[k]) << 16 | half(b[k])), mask);
            }
            Opcode::Pack64
            | Opcode::Unpack64
            | Opcode::Pack32
            | Opcode::Unpack32
            | Opcode::PackQuarters
            | Opcode::UnpackQuarters => {
                alu::pack(t, i, mask);
            }
            Opcode::Int32(op) | Opcode::Int64(op) => integer(r, t, i, mask, op),
            Opcode::Lop3(_) => {
                let s: [[u32; LANES]; 3] = from_fn(|n| *t.b32(i.src[n]));
                t.set_b32(i.dst[0], &from_fn(|k| s[0][k] | s[1][k] | s[2][k]), mask);
            }
            Opcode::Shl32
            | Opcode::ShrU32
            | Opcode::ShrS32
            | Opcode::Shl64
            | Opcode::ShrU64
            | Opcode::ShrS64 => shift(r, t, i, mask),
            Opcode::Setp(ty, cmp, bool_op, ftz) => {
                let (a, b, c) = (t.bits(i.src[0]), t.bits(i.src[1]), t.bits(i.src[2]));
                let (truth, other) = (alu::compare(r, i, ty, cmp, ftz), r.bits(i.src[2]));
                let combined = |truth: u32| -> LaneBits {
                    from_fn(|k| {
                        let (p, q, tp) = ((truth >> k & 1) as u64, other[k], (a[k] | b[k] != 0) as u64);
                        match bool_op {
                            BoolOp::None => tp,
                            BoolOp::And => and(p, tp, q, c[k]),
                            BoolOp::Or => and(p ^ 1, tp, q ^ 1, c[k]),
                            BoolOp::Xor => tp | c[k],
                        }
                    })
                };
                t.set_bits(i.dst[0], &combined(truth), mask);
                if !i.dst[1].is_none() {
                    t.set_bits(i.dst[1], &combined(!truth), mask);
                }
            }
            Opcode::Selp32 | Opcode::Selp64 => {
                let (a, b, c) = (t.bits(i.src[0]), t.bits(i.src[1]), t.bits(i.src[2]));
                let p = r.predicate(i.src[2]);
                let ones = all_ones(i.dst[0].class());
                let chosen = |k: usize| if p >> k & 1 != 0 { a[k] } else { b[k] };
                t.set_bits(i.dst[0], &from_fn(|k| if c[k] != 0 { ones } else { chosen(k) }), mask);
            }
            Opcode::Logic(op) => {
                let (a, b) = (r.bits(i.src[0]), r.bits(i.src[1]));
                let (ta, tb) = (t.bits(i.src[0]), t.bits(i.src[1]));
                let new = |k: usize| match op {
                    PredicateOp::And => and(a[k], ta[k], b[k], tb[k]),
                    PredicateOp::Or => and(a[k] ^ 1, ta[k], b[k] ^ 1, tb[k]),
                    _ => ta[k] | tb[k],
                };
                t.set_bits(i.dst[0], &from_fn(new), mask);
            }
            Opcode::Lanes(f, mode, taint_flow) => lane_function(r, t, i, mask, (f, mode), taint_flow),
            Opcode::Vote(mode) => {
                let p = t.predicate(i.src[0]) & mask;
                let any = if p != 0 { FULL } else { 0 };
                match mode {
                    VoteMode::Ballot => t.set_b32(i.dst[0], &[p; LANES], mask),
                    _ => t.set_predicate(i.dst[0], any, mask),
                }
            }
            Opcode::MatchAny | Opcode::MatchAll | Opcode::Redux(_) => {
                let row = t.bits(i.src[0]);
                let any = lanes(mask).any(|k| row[k] != 0);
                for d in i.dst.into_iter().filter(|d| !d.is_none()) {
                    t.set_bits(d, &[if any { all_ones(d.class()) } else { 0 }; LANES], mask);
                }
            }
            Opcode::Mma(kind) => mma_taint(t, i, kind),
            _ => any_to_all(t, i, mask),
        }
    }
}

/// Every destination depends on every source, lane by lane.
fn any_to_all(t: &mut Registers<'_>, i: &Inst, mask: u32) {
    let mut any = [0u64; LANES];
    for s in i.src.into_iter().filter(|s| !s.is_none() && !s.is_constant()) {
        let row = t.bits(s);
        any.iter_mut().zip(row).for_each(|(a, x)| *a |= x);
    }
    if matches!(i.op, Opcode::Carry { .. }) {
        let carried = t.carry;
        any.iter_mut().enumerate().for_each(|(k, a)| *a |= (carried >> k & 1) as u64);
        t.carry = lanes(mask).filter(|&k| any[k] != 0).fold(carried & !mask, |m, k| m | 1 << k);
    }
    for d in i.dst.into_iter().filter(|d| !d.is_none()) {
        let ones = all_ones(d.class());
        t.set_bits(d, &any.map(|x| if x != 0 { ones } else { 0 }), mask);
    }
}

fn integer(r: &Registers<'_>, t: &mut Registers<'_>, i: &Inst, mask: u32, op: IntOp) {
    let (a, b) = (r.bits(i.src[0]), r.bits(i.src[1]));
    let (ta, tb, tc) = (t.bits(i.src[0]), t.bits(i.src[1]), t.bits(i.src[2]));
    let ones = all_ones(i.dst[0].class());
    let new = |k: usize| match op {
        IntOp::And => and(a[k], ta[k], b[k], tb[k]),
        IntOp::Or => and(a[k] ^ ones, ta[k], b[k] ^ ones, tb[k]),
        IntOp::Xor | IntOp::Not => ta[k] | tb[k],
        IntOp::Add | IntOp::Sub | IntOp::Neg | IntOp::Mul | IntOp::Mad => {
            upward(ta[k] | tb[k] | tc[k]) & ones
        }
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
    let (ta, tb, count) = (t.bits(i.src[0]), t.b32(i.src[1]), r.b32(i.src[1]));
    let bits = if i.dst[0].class() == RegisterClass::B64 { 64 } else { 32 };
    let ones = all_ones(i.dst[0].class());
    let new = |k: usize| {
        let n = count[k].min(bits);
        let signed = (ta[k] << (64 - bits)) as i64 >> (64 - bits);
        match i.op {
            _ if tb[k] != 0 => ones,
            Opcode::Shl32 | Opcode::Shl64 => ta[k].checked_shl(n).unwrap_or(0) & ones,
            Opcode::ShrU32 | Opcode::ShrU64 => ta[k].checked_shr(n).unwrap_or(0),
            _ => (signed >> n.min(63)) as u64 & ones,
        }
    };
    let new = from_fn(new);
    t.set_bits(i.dst[0], &new, mask);
}

fn lane_function(
    r: &Registers<'_>,
    t: &mut Registers<'_>,
    i: &Inst,
    mask: u32,
    (f, mode): (crate::inst::LaneFn, u32),
    taint_flow: TaintFlow,
) {
    let s: [LaneBits; 4] = from_fn(|n| r.bits(i.src[n]));
    let ts: [LaneBits; 4] = from_fn(|n| t.bits(i.src[n]));
    let ones = all_ones(i.dst[0].class());
    let any = |k: usize, from: usize| ts[from..].iter().any(|row| row[k] != 0);
    let new = |k: usize| match taint_flow {
        _ if !any(k, 0) => 0,
        // With untainted control operands the function moves taint as it moves bits.
        TaintFlow::Moved(n) if !any(k, n as usize) => {
            f(&from_fn(|m| if m < n as usize { ts[m][k] } else { s[m][k] }), mode)
        }
        TaintFlow::Halves => {
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
fn mma_taint(t: &mut Registers<'_>, i: &Inst, kind: crate::inst::MmaShape) {
    let (a_registers, b_registers) = mma::registers(kind);
    let (mut rows, mut columns) = ([false; 16], [false; 8]);
    for n in 0..a_registers {
        let row = t.b32(i.src[n]);
        (0..LANES).for_each(|lane| rows[lane / 4 + 8 * (n % 2)] |= row[lane] != 0);
    }
    for n in 0..b_registers {
        let row = t.b32(i.src[4 + n]);
        (0..LANES).for_each(|lane| columns[lane / 4] |= row[lane] != 0);
    }
    let c: [[u32; LANES]; 4] = from_fn(|n| *t.b32(i.src[6 + n]));
    for (n, c) in c.iter().enumerate() {
        let new = from_fn(|lane| {
            let hit = rows[lane / 4 + 8 * (n / 2)] || columns[(lane % 4) * 2 + n % 2] || c[lane] != 0;
            if hit { u32::MAX } else { 0 }
        });
        t.set_b32(i.dst[n], &new, FULL);
    }
}
