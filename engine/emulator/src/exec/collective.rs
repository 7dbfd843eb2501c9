//! Shuffles, votes and the other exchanges among the lanes of a warp.

use super::block::Shared;
use super::registers::row;
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::inst::{FULL, Inst, LANES, Op, Reduce, Shuffle, Slot, Vote};

impl<'g> Warp<'g> {
    /// Executes a collective of a warp.
    pub fn collective(&mut self, shared: &mut Shared<'g>, i: &Inst, mask: u32) -> Check {
        match i.op {
            Op::Shuffle(mode) => {
                self.members("shfl.sync", i.src[3], mask)?;
                self.shuffle(i, mode, mask);
            }
            Op::Vote(mode) => {
                self.members("vote.sync", i.src[1], mask)?;
                self.vote(i, mode, mask);
            }
            Op::ActiveMask => self.registers.set_word(i.dst[0], &[mask; LANES], mask),
            Op::MatchAny => {
                self.members("match.sync", i.src[1], mask)?;
                let a = self.registers.bits(i.src[0]);
                let same = |k: usize| lanes(mask).filter(|&j| a[j] == a[k]).fold(0u32, |m, j| m | 1 << j);
                self.registers.set_word(i.dst[0], &row(same), mask);
            }
            Op::MatchAll => {
                self.members("match.sync", i.src[1], mask)?;
                let a = self.registers.bits(i.src[0]);
                let first = a[mask.trailing_zeros() as usize];
                let all = lanes(mask).all(|k| a[k] == first);
                self.registers.set_word(i.dst[0], &[if all { mask } else { 0 }; LANES], mask);
                if !i.dst[1].is_none() {
                    self.registers.set_predicate(i.dst[1], if all { FULL } else { 0 }, mask);
                }
            }
            Op::Redux(op) => {
                self.members("redux.sync", i.src[1], mask)?;
                let a = *self.registers.word(i.src[0]);
                let all = lanes(mask).map(|k| a[k]).reduce(|x, y| combine(op, x, y)).unwrap_or(0);
                self.registers.set_word(i.dst[0], &[all; LANES], mask);
            }
            Op::WarpSync => {
                self.members("bar.warp.sync", i.src[0], mask)?;
                shared.clock.warp_sync(self.index);
            }
            _ => return Err(trouble(FaultKind::Invalid, None, "an instruction this GPU cannot execute")),
        }
        Ok(())
    }

    /// Checks a member mask: it must name exactly the lanes that are here.
    fn members(&self, what: &str, s: Slot, mask: u32) -> Check {
        self.require_known(s, mask, "a member mask")?;
        let row = self.registers.word(s);
        for k in lanes(mask) {
            let named = row[k] & self.all;
            if named == mask {
                continue;
            }
            let (absent, unnamed) = (named & !mask, mask & !named);
            let detail = match absent != 0 {
                true if absent & !self.exited == 0 => {
                    format!("{what} names lanes {absent:#010x}, which have exited")
                }
                true => format!("{what} names lanes {absent:#010x}, which are elsewhere"),
                false => format!("{what} is executed by lanes {unnamed:#010x}, which its mask does not name"),
            };
            return Err(trouble(FaultKind::Divergent, Some(k as u32), detail));
        }
        Ok(())
    }

    /// Exchanges values; a lane that reads outside its segment keeps its own.
    #[inline(always)]
    fn shuffle(&mut self, i: &Inst, mode: Shuffle, mask: u32) {
        let (from, inside) = sources(mode, self.registers.word(i.src[1]), self.registers.word(i.src[2]));
        let a = *self.registers.word(i.src[0]);
        self.registers.set_word(i.dst[0], &row(|k| a[from[k] as usize]), mask);
        if !i.dst[1].is_none() {
            self.registers.set_predicate(i.dst[1], inside, mask);
        }
        if let Some(t) = &mut self.taints {
            let (a, b, c) = (*t.word(i.src[0]), *t.word(i.src[1]), *t.word(i.src[2]));
            let unknown = |k: usize| b[k] | c[k] != 0;
            t.set_word(i.dst[0], &row(|k| if unknown(k) { FULL } else { a[from[k] as usize] }), mask);
            if !i.dst[1].is_none() {
                let unknown = (0..LANES).filter(|&k| unknown(k)).fold(0, |m, k| m | 1 << k);
                t.set_predicate(i.dst[1], unknown, mask);
            }
        }
    }

    fn vote(&mut self, i: &Inst, mode: Vote, mask: u32) {
        let p = self.registers.predicate(i.src[0]) & mask;
        let truth = match mode {
            Vote::Ballot => return self.registers.set_word(i.dst[0], &[p; LANES], mask),
            Vote::All => p == mask,
            Vote::Any => p != 0,
            Vote::Uni => p == 0 || p == mask,
        };
        self.registers.set_predicate(i.dst[0], if truth { FULL } else { 0 }, mask);
    }
}

/// The lane that each lane reads, and which lanes stay inside their segment. `c` holds the segment mask in
/// bits 8 to 12 and the clamp in bits 0 to 4.
#[inline(always)]
fn sources(mode: Shuffle, b: &[u32; LANES], c: &[u32; LANES]) -> ([u32; LANES], u32) {
    let mut inside = 0u32;
    let from = row(|lane| {
        let k = lane as u32;
        let (offset, clamp, segment) = (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31);
        let most = k & segment | clamp & !segment;
        let least = k & segment;
        let (from, ok) = match mode {
            Shuffle::Up => (k.wrapping_sub(offset), k as i32 - offset as i32 >= most as i32),
            Shuffle::Down => (k + offset, k + offset <= most),
            Shuffle::Butterfly => (k ^ offset, (k ^ offset) <= most),
            Shuffle::Index => (least | offset & !segment, (least | offset & !segment) <= most),
        };
        inside |= (ok as u32) << lane;
        if ok { from & 31 } else { k }
    });
    (from, inside)
}

fn combine(op: Reduce, a: u32, b: u32) -> u32 {
    match op {
        Reduce::Add | Reduce::Popc => a.wrapping_add(b),
        Reduce::MinU => a.min(b),
        Reduce::MaxU => a.max(b),
        Reduce::MinS => (a as i32).min(b as i32) as u32,
        Reduce::MaxS => (a as i32).max(b as i32) as u32,
        Reduce::And => a & b,
        Reduce::Or => a | b,
        Reduce::Xor => a ^ b,
    }
}
