//! Warp collectives: shuffles, votes and the other exchanges among the lanes of a warp.

use super::registers::row;
use super::thread_block::BlockState;
use super::warp::{Warp, lanes};
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::inst::{FULL, Inst, LANES, Opcode, ReduxOp, RegisterSlot, ShuffleMode, VoteMode};

impl<'g> Warp<'g> {
    /// Executes a warp collective.
    #[inline(always)]
    pub fn collective(&mut self, block: &mut BlockState<'g>, i: &Inst, mask: u32) -> LaneResult {
        match i.op {
            Opcode::Shuffle(mode) => {
                self.members("shfl.sync", i.src[3], mask)?;
                self.shuffle(i, mode, mask);
            }
            Opcode::Vote(mode) => {
                self.members("vote.sync", i.src[1], mask)?;
                self.vote(i, mode, mask);
            }
            Opcode::ActiveMask => self.registers.set_b32(i.dst[0], &[mask; LANES], mask),
            Opcode::MatchAny => {
                self.members("match.sync", i.src[1], mask)?;
                let a = self.registers.bits(i.src[0]);
                let same = |k: usize| lanes(mask).filter(|&j| a[j] == a[k]).fold(0u32, |m, j| m | 1 << j);
                self.registers.set_b32(i.dst[0], &row(same), mask);
            }
            Opcode::MatchAll => {
                self.members("match.sync", i.src[1], mask)?;
                let a = self.registers.bits(i.src[0]);
                let first = a[mask.trailing_zeros() as usize];
                let all = lanes(mask).all(|k| a[k] == first);
                self.registers.set_b32(i.dst[0], &[if all { mask } else { 0 }; LANES], mask);
                if !i.dst[1].is_none() {
                    self.registers.set_predicate(i.dst[1], if all { FULL } else { 0 }, mask);
                }
            }
            Opcode::Redux(op) => {
                self.members("redux.sync", i.src[1], mask)?;
                let a = *self.registers.b32(i.src[0]);
                let all = lanes(mask).map(|k| a[k]).reduce(|x, y| combine(op, x, y)).unwrap_or(0);
                self.registers.set_b32(i.dst[0], &[all; LANES], mask);
            }
            Opcode::WarpSync => {
                self.members("bar.warp.sync", i.src[0], mask)?;
                block.clock.warp_sync(self.index);
            }
            _ => {
                return Err(lane_fault(
                    FaultKind::Invalid,
                    None,
                    "an instruction that the software GPU cannot execute",
                ));
            }
        }
        Ok(())
    }

    /// Synccheck of a member mask: it must name exactly the active lanes.
    #[inline(always)]
    fn members(&self, what: &str, s: RegisterSlot, mask: u32) -> LaneResult {
        self.require_known(s, mask, "a member mask")?;
        let row = self.registers.b32(s);
        let mut unlike = 0;
        for (k, named) in row.iter().enumerate() {
            unlike |= (named & self.launched ^ mask) & (mask >> k & 1).wrapping_neg();
        }
        if unlike == 0 { Ok(()) } else { self.not_members(what, row, mask) }
    }

    #[cold]
    fn not_members(&self, what: &str, row: &[u32; LANES], mask: u32) -> LaneResult {
        for k in lanes(mask) {
            let named = row[k] & self.launched;
            if named == mask {
                continue;
            }
            let (absent, unnamed) = (named & !mask, mask & !named);
            let detail = match absent != 0 {
                true if absent & !self.exited == 0 => {
                    format!("{what} names lanes {absent:#010x}, which have exited")
                }
                true => format!("{what} names lanes {absent:#010x}, which have diverged"),
                false => format!(
                    "{what} is executed by lanes {unnamed:#010x}, which its member mask does not name"
                ),
            };
            return Err(lane_fault(FaultKind::Divergent, Some(k as u32), detail));
        }
        Ok(())
    }

    /// Executes `shfl`; a lane that reads outside its segment keeps its own value.
    #[inline(always)]
    fn shuffle(&mut self, i: &Inst, mode: ShuffleMode, mask: u32) {
        let (from, inside) = sources(mode, self.registers.b32(i.src[1]), self.registers.b32(i.src[2]));
        let a = *self.registers.b32(i.src[0]);
        self.registers.set_b32(i.dst[0], &row(|k| a[from[k] as usize]), mask);
        if !i.dst[1].is_none() {
            self.registers.set_predicate(i.dst[1], inside, mask);
        }
        if let Some(t) = &mut self.register_taint {
            let (a, b, c) = (*t.b32(i.src[0]), *t.b32(i.src[1]), *t.b32(i.src[2]));
            let unknown = |k: usize| b[k] | c[k] != 0;
            t.set_b32(i.dst[0], &row(|k| if unknown(k) { FULL } else { a[from[k] as usize] }), mask);
            if !i.dst[1].is_none() {
                let unknown = (0..LANES).filter(|&k| unknown(k)).fold(0, |m, k| m | 1 << k);
                t.set_predicate(i.dst[1], unknown, mask);
            }
        }
    }

    fn vote(&mut self, i: &Inst, mode: VoteMode, mask: u32) {
        let p = self.registers.predicate(i.src[0]) & mask;
        let truth = match mode {
            VoteMode::Ballot => return self.registers.set_b32(i.dst[0], &[p; LANES], mask),
            VoteMode::All => p == mask,
            VoteMode::Any => p != 0,
            VoteMode::Uni => p == 0 || p == mask,
        };
        self.registers.set_predicate(i.dst[0], if truth { FULL } else { 0 }, mask);
    }
}

/// Returns the source lane of each lane, and the mask of lanes whose source is in their segment. `c` holds the segment
/// mask in bits 8 to 12 and the clamp in bits 0 to 4.
#[inline(always)]
fn sources(mode: ShuffleMode, b: &[u32; LANES], c: &[u32; LANES]) -> ([u32; LANES], u32) {
    let mut inside = 0u32;
    let from = row(|lane| {
        let k = lane as u32;
        let (offset, clamp, segment) = (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31);
        let max_lane = k & segment | clamp & !segment;
        let min_lane = k & segment;
        let (from, ok) = match mode {
            ShuffleMode::Up => (k.wrapping_sub(offset), k as i32 - offset as i32 >= max_lane as i32),
            ShuffleMode::Down => (k + offset, k + offset <= max_lane),
            ShuffleMode::Butterfly => (k ^ offset, (k ^ offset) <= max_lane),
            ShuffleMode::Index => (min_lane | offset & !segment, (min_lane | offset & !segment) <= max_lane),
        };
        inside |= (ok as u32) << lane;
        if ok { from & 31 } else { k }
    });
    (from, inside)
}

fn combine(op: ReduxOp, a: u32, b: u32) -> u32 {
    match op {
        ReduxOp::Add | ReduxOp::Popc => a.wrapping_add(b),
        ReduxOp::MinU => a.min(b),
        ReduxOp::MaxU => a.max(b),
        ReduxOp::MinS => (a as i32).min(b as i32) as u32,
        ReduxOp::MaxS => (a as i32).max(b as i32) as u32,
        ReduxOp::And => a & b,
        ReduxOp::Or => a | b,
        ReduxOp::Xor => a ^ b,
    }
}
