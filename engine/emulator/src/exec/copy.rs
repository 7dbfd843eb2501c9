//! `cp.async`: asynchronous copies from global to shared memory, which complete at once or as late as the program
//! allows.

use super::address::{Addresses, GlobalRequest, Offsets, check_alignment, checked_offsets};
use super::registers::row;
use super::shared_memory::{Accessor, WarpAccess};
use super::thread_block::BlockState;
use super::warp::{Warp, lanes};
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::gpu::Schedule;
use crate::inst::{Inst, LANES};
use crate::memory::Allocation;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Copies of one instruction from one allocation that are under way.
#[derive(Clone, Copy, Debug)]
struct PendingCopy<'g> {
    pc: u32,
    /// Lanes that have not yet waited for their copies.
    mask: u32,
    /// Number of the group that each lane's copy belongs to.
    group: [u32; LANES],
    /// Destination offset in shared memory, and bytes to fill.
    to: Offsets,
    size: u32,
    /// Source allocation, offset in it, and bytes to read; the rest is filled with zeros.
    from: Option<&'g Allocation>,
    offsets: Offsets,
    bytes: [u32; LANES],
}

/// Asynchronous copies of a warp.
#[derive(Debug, Default)]
pub struct AsyncCopies<'g> {
    pending: Vec<PendingCopy<'g>>,
    /// Number of groups that each lane has committed.
    committed: [u32; LANES],
}

/// Returns the mask of the lanes that fulfil a condition.
#[inline(always)]
fn lanes_where(condition: impl Fn(usize) -> bool) -> u32 {
    let mut mask = 0;
    for k in 0..LANES {
        mask |= (condition(k) as u32) << k;
    }
    mask
}

impl AsyncCopies<'_> {
    /// Executes `cp.async.commit_group`.
    pub fn commit(&mut self, mask: u32) {
        for k in lanes(mask) {
            self.committed[k] += 1;
        }
    }
}

impl PendingCopy<'_> {
    /// Returns word `w` of the data that lane `k` copies, from the values or the taint of the allocation.
    #[inline(always)]
    fn word(&self, k: usize, w: usize, cells: impl Fn(&Allocation) -> &[AtomicU32]) -> u32 {
        let missing = (4 * w as u32 + 4).saturating_sub(self.bytes[k]).min(4);
        match self.from {
            Some(a) if missing < 4 => {
                cells(a)[self.offsets[k] / 4 + w].load(Relaxed) & u32::MAX >> (8 * missing)
            }
            _ => 0,
        }
    }

    /// Writes the values of some lanes to shared memory.
    #[inline(always)]
    fn complete(&self, mask: u32, words: &mut [u32]) {
        let n = self.size as usize / 4;
        for k in lanes(mask) {
            let target = &mut words[self.to[k] / 4..][..n];
            match self.from {
                Some(a) if self.bytes[k] == self.size => {
                    let source = &a.words()[self.offsets[k] / 4..][..n];
                    for (t, s) in target.iter_mut().zip(source) {
                        *t = s.load(Relaxed);
                    }
                }
                _ => target.iter_mut().enumerate().for_each(|(w, t)| *t = self.word(k, w, Allocation::words)),
            }
        }
    }

    /// Copies the taint of a lane's source. Returns true when there is any.
    fn complete_taint(&self, k: usize, taint: &mut [u32]) -> bool {
        if !self.from.is_some_and(|a| a.is_tainted(self.offsets[k], self.bytes[k] as usize)) {
            return false;
        }
        for w in 0..self.size as usize / 4 {
            taint[self.to[k] / 4 + w] = self.word(k, w, Allocation::taint);
        }
        true
    }
}

impl<'g> Warp<'g> {
    /// Executes `cp.async`.
    #[inline(always)]
    pub fn copy_async(&mut self, block: &mut BlockState<'g>, i: &Inst, size: u8, mask: u32) -> LaneResult {
        let size = size as u32;
        for (s, what) in [(0, "an address"), (1, "an address"), (2, "a source size")] {
            self.require_known(i.src[s], mask, what)?;
        }
        let to = self.addresses(i.src[0], i.imm >> 32, mask);
        let access = block.launch.code.access_index[self.active.pc as usize];
        let id = block.footprints.of(access, &to, size, mask);
        let footprint = &block.footprints[id];
        check_alignment(&to, footprint)?;
        let to = checked_offsets("shared memory", &to, footprint, block.launch.shared_bytes as u64)?;
        block.counters.shared_stores.count(footprint.moved(), footprint.wavefronts);
        let bytes: [u32; LANES] = match i.src[2].is_none() {
            true => [size; LANES],
            false => *self.registers.b32(i.src[2]),
        };
        if let Some(k) = lanes(mask).find(|&k| bytes[k] > size) {
            let detail = format!(
                "cp.async of {size} bytes with a source size of {}: it must be at most the copy size",
                bytes[k]
            );
            return Err(lane_fault(FaultKind::Invalid, Some(k as u32), detail));
        }
        let warp_access = WarpAccess { accessor: self.as_accessor(false), base: 0, offsets: &to, footprint };
        block.shared_memory.copy_begin(&block.clock, warp_access)?;
        let from = self.addresses(i.src[1], i.imm as i32 as i64, mask);
        let id = block.footprints.of(access, &from, size, mask);
        check_alignment(&from, &block.footprints[id])?;
        let first = self.copies.pending.len();
        let copy = PendingCopy {
            pc: self.active.pc,
            mask,
            group: self.copies.committed,
            to,
            size,
            from: None,
            offsets: [0; LANES],
            bytes,
        };
        self.copy_sources(block, &from, copy)?;
        if block.launch.options.schedule == Schedule::Early {
            for b in &self.copies.pending[first..] {
                b.complete(b.mask, &mut block.shared_memory.words);
            }
        }
        Ok(())
    }

    /// Finds the allocation that each lane reads from, and adds a pending copy for every allocation.
    #[inline(always)]
    fn copy_sources(
        &mut self,
        block: &mut BlockState<'g>,
        from: &Addresses,
        copy: PendingCopy<'g>,
    ) -> LaneResult {
        let lanes_of = |bytes: u32| lanes_where(|k| copy.bytes[k] == bytes) & copy.mask;
        let empty = lanes_of(0);
        if empty != 0 {
            self.copies.pending.push(PendingCopy { mask: empty, ..copy });
        }
        let mut remaining = copy.mask & !empty;
        while remaining != 0 {
            // Lanes that read less than the full size are looked up one by one: they may end at an edge.
            let full = remaining & lanes_of(copy.size);
            let (group, length): (u32, u32) = match full {
                0 => (1 << remaining.trailing_zeros(), copy.bytes[remaining.trailing_zeros() as usize]),
                full => (full, copy.size),
            };
            let first = from[group.trailing_zeros() as usize];
            let addresses = row(|k| if group >> k & 1 != 0 { from[k] } else { first });
            remaining &= !group;
            let access = block.launch.code.access_index[self.active.pc as usize];
            let footprint = block.footprints.of(access, &addresses, length, group);
            let mut request = GlobalRequest { access, addresses: &addresses, footprint, remaining: group };
            while let Some((a, offsets)) = block.next_allocation(&mut request)? {
                let footprint = &block.footprints[request.footprint];
                block.counters.global_loads.count(footprint.moved(), footprint.sectors);
                block.log.add(access, a.base, &offsets, footprint);
                if block.launch.options.racecheck {
                    let warp_access = WarpAccess {
                        accessor: self.as_accessor(false),
                        base: a.base,
                        offsets: &offsets,
                        footprint,
                    };
                    block.global_shadow.read(&block.clock, warp_access)?;
                }
                let served = footprint.mask;
                self.copies.pending.push(PendingCopy { mask: served, from: Some(a), offsets, ..copy });
            }
        }
        Ok(())
    }

    /// Executes `cp.async.wait_group`: at most `remaining` groups stay pending; -1 waits for all copies, committed or
    /// not.
    #[inline(always)]
    pub fn copy_wait(&mut self, block: &mut BlockState<'g>, remaining: i64, mask: u32) -> LaneResult {
        let late = block.launch.options.schedule == Schedule::Late;
        let committed = self.copies.committed;
        let (clock, memory, warp) = (&block.clock, &mut block.shared_memory, self.index);
        for b in &mut self.copies.pending {
            let due = |k: usize| remaining < 0 || (b.group[k] as i64) < committed[k] as i64 - remaining;
            let waited = lanes_where(due) & mask & b.mask;
            if waited == 0 {
                continue;
            }
            if late {
                b.complete(waited, &mut memory.words);
            }
            let tainted = match b.from {
                Some(a) if a.may_be_tainted() => lanes(waited)
                    .filter(|&k| b.complete_taint(k, &mut memory.taint))
                    .fold(0, |m, k| m | 1 << k),
                _ => 0,
            };
            let copied = Accessor { warp, pc: b.pc, strong: false };
            memory.copy_end(clock, copied, &b.to, b.size, waited, tainted);
            b.mask &= !waited;
        }
        self.copies.pending.retain(|b| b.mask != 0);
        Ok(())
    }

    /// Checks that lanes that exit have no copies under way.
    pub fn require_no_pending_copies(&self, mask: u32) -> LaneResult {
        match self.copies.pending.iter().find(|b| mask & b.mask != 0) {
            None => Ok(()),
            Some(b) => {
                let detail =
                    "the thread exits with asynchronous copies under way: cp.async.wait_all is missing";
                let lane = (mask & b.mask).trailing_zeros();
                Err(lane_fault(FaultKind::AsyncCopy, Some(lane), detail).with_related("copied", b.pc))
            }
        }
    }
}
