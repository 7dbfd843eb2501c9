//! `cp.async`: copies from global to shared memory that land at once or as late as allowed.

use super::block::Shared;
use super::pattern::Pattern;
use super::space::{aligned, offsets};
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::gpu::Schedule;
use crate::inst::{Inst, LANES};
use crate::memory::Allocation;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// One lane's copy that is under way.
#[derive(Clone, Copy, Debug)]
struct Copy<'g> {
    lane: u32,
    pc: u32,
    /// The group it belongs to, counted per lane.
    group: u32,
    /// Byte in shared memory, bytes to fill.
    to: u32,
    size: u32,
    /// Allocation, byte offset and bytes to read; the rest is zero.
    from: Option<&'g Allocation>,
    at: usize,
    bytes: u32,
}

/// A warp's asynchronous copies.
#[derive(Debug, Default)]
pub struct Copies<'g> {
    pending: Vec<Copy<'g>>,
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

impl Copy<'_> {
    /// Word `w` of what is copied, taken from an allocation's values or taint.
    fn word(&self, w: u32, cells: impl Fn(&Allocation) -> &[AtomicU32]) -> u32 {
        let missing = (4 * w + 4).saturating_sub(self.bytes).min(4);
        match self.from {
            Some(a) if missing < 4 => {
                cells(a)[self.at / 4 + w as usize].load(Relaxed) & u32::MAX >> (8 * missing)
            }
            _ => 0,
        }
    }

    fn land(&self, words: &mut [u32]) {
        for w in 0..self.size / 4 {
            words[(self.to / 4 + w) as usize] = self.word(w, Allocation::words);
        }
    }

    /// Lands the taint of the source; true when there is any.
    fn land_taint(&self, taint: &mut [u32]) -> bool {
        if !self.from.is_some_and(|a| a.is_tainted(self.at, self.bytes as usize)) {
            return false;
        }
        for w in 0..self.size / 4 {
            taint[(self.to / 4 + w) as usize] = self.word(w, Allocation::taint);
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
        let from = self.addresses(i.src[1], i.imm as i32 as i64, mask);
        aligned(&from, size)?;
        let bytes: [u32; LANES] = match i.src[2].is_none() {
            true => [size; LANES],
            false => *self.registers.word(i.src[2]),
        };
        let mut reading = 0;
        for k in lanes(mask) {
            if bytes[k] > size {
                let detail = format!("cp.async of {size} bytes from a source of {}", bytes[k]);
                return Err(trouble(FaultKind::Invalid, Some(k as u32), detail));
            }
            reading |= ((bytes[k] > 0) as u32) << k;
        }
        let first = self.copies.pending.len();
        for k in lanes(mask) {
            shared.memory.copy_begin(self.who(false), k as u32, to[k], size)?;
            let (lane, group) = (k as u32, self.copies.committed[k]);
            let to = to[k] as u32;
            let copy = Copy { lane, pc: self.now.pc, group, to, size, from: None, at: 0, bytes: bytes[k] };
            self.copies.pending.push(copy);
        }
        self.copy_sources(shared, &from, (size, &bytes), reading, first)?;
        if shared.grid.schedule == Schedule::Early {
            self.copies.pending[first..].iter().for_each(|c| c.land(&mut shared.memory.words));
        }
        Ok(())
    }

    /// Finds what the lanes that read anything read from, for the copies from `first` on.
    fn copy_sources(
        &mut self,
        shared: &mut Shared<'g>,
        from: &[u64; LANES],
        (size, bytes): (u32, &[u32; LANES]),
        reading: u32,
        first: usize,
    ) -> Check {
        let mut left = reading;
        while left != 0 {
            // Lanes that read less than the full size are looked up one by one: they may end at an edge.
            let whole = lanes(left).filter(|&k| bytes[k] == size).fold(0, |m, k| m | 1 << k);
            let (group, length): (u32, u32) = match whole {
                0 => (1 << left.trailing_zeros(), bytes[left.trailing_zeros() as usize]),
                whole => (whole, size),
            };
            let one = from[group.trailing_zeros() as usize];
            let addresses = std::array::from_fn(|k| if group >> k & 1 != 0 { from[k] } else { one });
            let (a, at, here) = shared.allocation(self.now.pc, &addresses, group, length)?;
            left &= !here;
            let pattern = Pattern::of(&at, length, here);
            let moved = here.count_ones() as u64 * length as u64;
            shared.counters.global_loads.count(moved, pattern.sectors(&at, length, here));
            let access = shared.grid.program.access_of[self.now.pc as usize];
            shared.log.add(access, a.base, &at, length, here, pattern);
            for c in self.copies.pending[first..].iter_mut().filter(|c| here >> c.lane & 1 != 0) {
                (c.from, c.at) = (Some(a), at[c.lane as usize]);
            }
        }
        Ok(())
    }

    /// `wait_group`: at most `left` groups stay pending; -1 waits for all, committed or not.
    pub fn copy_wait(&mut self, shared: &mut Shared<'g>, left: i64, mask: u32) -> Check {
        let late = shared.grid.schedule == Schedule::Late;
        let (committed, warp) = (self.copies.committed, self.index);
        let memory = &mut shared.memory;
        self.copies.pending.retain(|c| {
            let done = committed[c.lane as usize] as i64 - left;
            let waited = mask >> c.lane & 1 != 0 && (left < 0 || (c.group as i64) < done);
            if waited {
                if late {
                    c.land(&mut memory.words);
                }
                let tainted = c.land_taint(&mut memory.taint);
                memory.copy_end(warp, c.lane, c.to as usize, c.size, tainted);
            }
            !waited
        });
        Ok(())
    }

    /// An error when a lane that exits has copies under way.
    pub fn leftover_copies(&self, mask: u32) -> Check {
        match self.copies.pending.iter().find(|c| mask >> c.lane & 1 != 0) {
            None => Ok(()),
            Some(c) => {
                let detail = "the thread exits with copies under way that it never waited for";
                Err(trouble(FaultKind::AsyncCopy, Some(c.lane), detail).also_at(c.pc))
            }
        }
    }
}
