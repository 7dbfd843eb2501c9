//! `cp.async`: copies from global to shared memory that land at once or as late as allowed.

use super::block::Shared;
use super::pattern::Pattern;
use super::registers::row;
use super::shadow::Touch;
use super::space::{Offsets, aligned, offsets};
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::gpu::Schedule;
use crate::inst::{Inst, LANES};
use crate::memory::Allocation;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The copies of one instruction from one allocation that are under way.
#[derive(Clone, Copy, Debug)]
struct Batch<'g> {
    pc: u32,
    /// Lanes whose copies are not waited for yet.
    mask: u32,
    /// The group each belongs to, counted per lane.
    group: [u32; LANES],
    /// Byte in shared memory, and how many to fill.
    to: Offsets,
    size: u32,
    /// Where from, and how many bytes to read; the rest is zero.
    from: Option<&'g Allocation>,
    at: Offsets,
    bytes: [u32; LANES],
}

/// A warp's asynchronous copies.
#[derive(Debug, Default)]
pub struct Copies<'g> {
    pending: Vec<Batch<'g>>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
}

impl Copies<'_> {
    /// `commit_group`.
    pub fn commit(&mut self, mask: u32) {
        for k in lanes(mask) {
            self.committed[k] += 1;
        }
    }
}

impl Batch<'_> {
    /// Word `w` of what lane `k` copies, taken from an allocation's values or taint.
    #[inline(always)]
    fn word(&self, k: usize, w: usize, cells: impl Fn(&Allocation) -> &[AtomicU32]) -> u32 {
        let missing = (4 * w as u32 + 4).saturating_sub(self.bytes[k]).min(4);
        match self.from {
            Some(a) if missing < 4 => cells(a)[self.at[k] / 4 + w].load(Relaxed) & u32::MAX >> (8 * missing),
            _ => 0,
        }
    }

    /// Copies the values of some lanes.
    fn land(&self, mask: u32, words: &mut [u32]) {
        let n = self.size as usize / 4;
        for k in lanes(mask) {
            let target = &mut words[self.to[k] / 4..][..n];
            match self.from {
                Some(a) if self.bytes[k] == self.size => {
                    let source = &a.words()[self.at[k] / 4..][..n];
                    target.iter_mut().zip(source).for_each(|(t, s)| *t = s.load(Relaxed));
                }
                _ => target.iter_mut().enumerate().for_each(|(w, t)| *t = self.word(k, w, Allocation::words)),
            }
        }
    }

    /// Lands the taint of a lane's source; true when there is any.
    fn land_taint(&self, k: usize, taint: &mut [u32]) -> bool {
        if !self.from.is_some_and(|a| a.is_tainted(self.at[k], self.bytes[k] as usize)) {
            return false;
        }
        for w in 0..self.size as usize / 4 {
            taint[self.to[k] / 4 + w] = self.word(k, w, Allocation::taint);
        }
        true
    }
}

impl<'g> Warp<'g> {
    /// `cp.async`.
    pub fn copy_async(&mut self, shared: &mut Shared<'g>, i: &Inst, size: u8, mask: u32) -> Check {
        let size = size as u32;
        for (s, what) in [(0, "an address"), (1, "an address"), (2, "a source size")] {
            self.require_known(i.src[s], mask, what)?;
        }
        let to = self.addresses(i.src[0], i.imm >> 32, mask);
        aligned(&to, size)?;
        let to = offsets("shared memory", &to, shared.grid.shared_bytes as u64, size)?;
        let pattern = Pattern::of(&to, size, mask);
        let moved = mask.count_ones() as u64 * size as u64;
        shared.counters.shared_stores.count(moved, pattern.passes(&to, size, mask));
        let bytes: [u32; LANES] = match i.src[2].is_none() {
            true => [size; LANES],
            false => *self.registers.word(i.src[2]),
        };
        if let Some(k) = lanes(mask).find(|&k| bytes[k] > size) {
            let detail = format!("cp.async of {size} bytes from a source of {}", bytes[k]);
            return Err(trouble(FaultKind::Invalid, Some(k as u32), detail));
        }
        let touch = Touch { who: self.who(false), base: 0, at: &to, bytes: size, mask };
        shared.memory.copy_begin(&shared.clock, touch)?;
        let from = self.addresses(i.src[1], i.imm as i32 as i64, mask);
        aligned(&from, size)?;
        let first = self.copies.pending.len();
        let batch = Batch {
            pc: self.now.pc,
            mask,
            group: self.copies.committed,
            to,
            size,
            from: None,
            at: [0; LANES],
            bytes,
        };
        self.copy_sources(shared, &from, batch)?;
        if shared.grid.rules.schedule == Schedule::Early {
            self.copies.pending[first..].iter().for_each(|b| b.land(b.mask, &mut shared.memory.words));
        }
        Ok(())
    }

    /// Finds what each lane reads from, and adds a batch for every allocation found.
    fn copy_sources(&mut self, shared: &mut Shared<'g>, from: &[u64; LANES], batch: Batch<'g>) -> Check {
        let count = |f: &dyn Fn(u32) -> bool| {
            lanes(batch.mask).filter(|&k| f(batch.bytes[k])).fold(0, |m, k| m | 1 << k)
        };
        let empty = count(&|bytes| bytes == 0);
        if empty != 0 {
            self.copies.pending.push(Batch { mask: empty, ..batch });
        }
        let mut left = batch.mask & !empty;
        while left != 0 {
            // Lanes that read less than the full size are looked up one by one: they may end at an edge.
            let whole = left & count(&|bytes| bytes == batch.size);
            let (group, length): (u32, u32) = match whole {
                0 => (1 << left.trailing_zeros(), batch.bytes[left.trailing_zeros() as usize]),
                whole => (whole, batch.size),
            };
            let one = from[group.trailing_zeros() as usize];
            let addresses = row(|k| if group >> k & 1 != 0 { from[k] } else { one });
            let (a, at, here) = shared.allocation(self.now.pc, &addresses, group, length)?;
            left &= !here;
            let pattern = Pattern::of(&at, length, here);
            let moved = here.count_ones() as u64 * length as u64;
            shared.counters.global_loads.count(moved, pattern.sectors(&at, length, here));
            let access = shared.grid.program.access_of[self.now.pc as usize];
            shared.log.add(access, a.base, &at, length, here, pattern);
            if shared.grid.rules.ordering {
                let touch = Touch { who: self.who(false), base: a.base, at: &at, bytes: length, mask: here };
                shared.written.read(&shared.clock, touch)?;
            }
            self.copies.pending.push(Batch { mask: here, from: Some(a), at, ..batch });
        }
        Ok(())
    }

    /// `wait_group`: at most `left` groups stay pending; -1 waits for all, committed or not.
    pub fn copy_wait(&mut self, shared: &mut Shared<'g>, left: i64, mask: u32) -> Check {
        let late = shared.grid.rules.schedule == Schedule::Late;
        let committed = self.copies.committed;
        let (clock, memory, who) = (&shared.clock, &mut shared.memory, self.index);
        self.copies.pending.retain_mut(|b| {
            let due = |k: usize| left < 0 || (b.group[k] as i64) < committed[k] as i64 - left;
            let waited = (0..LANES).fold(0, |m, k| m | (due(k) as u32) << k) & mask & b.mask;
            if late {
                b.land(waited, &mut memory.words);
            }
            for k in lanes(waited) {
                let tainted = b.land_taint(k, &mut memory.taint);
                memory.copy_end(clock, who, k as u32, b.to[k], b.size, tainted);
            }
            b.mask &= !waited;
            b.mask != 0
        });
        Ok(())
    }

    /// An error when a lane that exits has copies under way.
    pub fn leftover_copies(&self, mask: u32) -> Check {
        match self.copies.pending.iter().find(|b| mask & b.mask != 0) {
            None => Ok(()),
            Some(b) => {
                let detail = "the thread exits with copies under way that it never waited for";
                let lane = (mask & b.mask).trailing_zeros();
                Err(trouble(FaultKind::AsyncCopy, Some(lane), detail).also_at(b.pc))
            }
        }
    }
}
