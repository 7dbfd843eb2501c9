//! Loads and stores.

use super::address::{Addresses, GlobalRequest, Offsets, check_alignment, checked_offsets};
use super::footprint::FootprintId;
use super::registers::{Registers, row};
use super::shared_memory::{Accessor, WarpAccess};
use super::thread_block::BlockState;
use super::warp::{Warp, lanes};
use crate::address_space;
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::gpu::Schedule;
use crate::inst::{Inst, LANES, MemoryAccess, RegisterClass, RegisterSlot, Strength};
use crate::ptx::StateSpace;
use std::sync::atomic::Ordering::Relaxed;

/// A load or store of some lanes in one state space.
struct WarpRequest<'a> {
    i: &'a Inst,
    access: MemoryAccess,
    /// Number of the instruction among those that access memory.
    number: u32,
    bytes: u32,
    space: StateSpace,
    addresses: Addresses,
    mask: u32,
    footprint: FootprintId,
}

/// Returns the state space of the first lane's generic address, the lanes' addresses in it, and the lanes that lie in
/// it.
pub fn first_space(addresses: &Addresses, mask: u32) -> (StateSpace, Addresses, u32) {
    let first = addresses[mask.trailing_zeros() as usize % LANES];
    let space = address_space::state_space_of(first);
    let group = lanes(mask)
        .filter(|&k| address_space::state_space_of(addresses[k]) == space)
        .fold(0, |m, k| m | 1 << k);
    let base = address_space::window_base(space);
    (space, row(|k| if group >> k & 1 != 0 { addresses[k] } else { first } - base), group)
}

impl<'g> Warp<'g> {
    /// Executes `ld` and `st`.
    #[inline(always)]
    pub fn access(
        &mut self,
        block: &mut BlockState<'g>,
        i: &Inst,
        access: MemoryAccess,
        store: bool,
        mask: u32,
    ) -> LaneResult {
        let bytes = access.size as u32 * access.count as u32;
        self.require_known(i.src[0], mask, "an address")?;
        let addresses = self.addresses(i.src[0], i.imm, mask);
        let number = block.launch.code.access_index[self.active.pc as usize];
        let all = block.footprints.of(number, &addresses, bytes, mask);
        check_alignment(&addresses, &block.footprints[all])?;
        let mut remaining = mask;
        while remaining != 0 {
            // One iteration, except for generic addresses that lie in several spaces.
            let (space, addresses, group) = match access.space {
                StateSpace::Generic => first_space(&addresses, remaining),
                space => (space, addresses, remaining),
            };
            let footprint = match group == mask {
                true => all,
                false => block.footprints.of(number, &addresses, bytes, group),
            };
            let request = WarpRequest { i, access, number, bytes, space, addresses, mask: group, footprint };
            if store {
                self.store(block, &request)?
            } else {
                self.load(block, &request)?
            }
            remaining &= !group;
        }
        Ok(())
    }

    /// Returns this warp and its current instruction, for the records of racecheck.
    #[inline(always)]
    pub fn as_accessor(&self, strong: bool) -> Accessor {
        Accessor { warp: self.index, pc: self.active.pc, strong }
    }

    #[inline(always)]
    fn load(&mut self, block: &mut BlockState<'g>, q: &WarpRequest<'_>) -> LaneResult {
        let moved = q.mask.count_ones() as u64 * q.bytes as u64;
        match q.space {
            StateSpace::Shared => {
                let footprint = &block.footprints[q.footprint];
                let size = block.launch.shared_bytes as u64;
                let offsets = checked_offsets("shared memory", &q.addresses, footprint, size)?;
                block.counters.shared_loads.count(moved, footprint.wavefronts);
                let accessor = self.as_accessor(q.access.strength == Strength::Strong);
                let warp_access = WarpAccess { accessor, base: 0, offsets: &offsets, footprint };
                let tainted = block.shared_memory.read(&block.clock, warp_access)?;
                let memory = &block.shared_memory;
                gather(&mut self.registers, q, &offsets, q.mask, |_, w| memory.words[w]);
                match tainted {
                    true => self.load_taint(block, q, &offsets, q.mask, |_, w| memory.taint_of(w)),
                    false => self.load_taint(block, q, &offsets, q.mask, |_, _| 0),
                }
            }
            StateSpace::Local => {
                let footprint = &block.footprints[q.footprint];
                let size = block.launch.code.local_bytes as u64;
                let offsets = checked_offsets("local memory", &q.addresses, footprint, size)?;
                block.counters.local_loads.count(moved, (0, 0));
                let local = &self.local;
                gather(&mut self.registers, q, &offsets, q.mask, |k, w| local[w * LANES + k]);
                let taint = std::mem::take(&mut self.local_taint);
                self.load_taint(block, q, &offsets, q.mask, |k, w| taint[w * LANES + k]);
                self.local_taint = taint;
            }
            StateSpace::Param => {
                let size = block.launch.code.param_bytes as u64;
                let footprint = &block.footprints[q.footprint];
                let offsets = checked_offsets("the parameters", &q.addresses, footprint, size)?;
                block.counters.constant_loads.count(moved, (0, 0));
                gather(&mut self.registers, q, &offsets, q.mask, |_, w| block.launch.params[w]);
                self.load_taint(block, q, &offsets, q.mask, |_, _| 0);
            }
            StateSpace::Global | StateSpace::Const | StateSpace::Generic => {
                let again = q.access.strength == Strength::Strong && self.poll(block);
                self.load_global(block, q)?;
                // The block that it waits for may not run.
                if again && block.launch.is_sampled() {
                    let loaded = &q.i.dst[..q.access.count as usize];
                    loaded.iter().for_each(|&d| self.registers.set_bits(d, &[u64::MAX; LANES], q.mask));
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn load_global(&mut self, block: &mut BlockState<'g>, q: &WarpRequest<'_>) -> LaneResult {
        let mut request = q.to_global();
        while let Some((a, offsets)) = block.next_allocation(&mut request)? {
            let footprint = &block.footprints[request.footprint];
            let group = footprint.mask;
            if q.space == StateSpace::Const {
                block.counters.constant_loads.count(footprint.moved(), (0, 0));
            } else {
                block.counters.global_loads.count(footprint.moved(), footprint.sectors);
                block.log.add(q.number, a.base, &offsets, footprint);
                if block.launch.options.racecheck && q.access.strength == Strength::Weak {
                    let accessor = self.as_accessor(false);
                    let warp_access = WarpAccess { accessor, base: a.base, offsets: &offsets, footprint };
                    block.global_shadow.read(&block.clock, warp_access)?;
                }
            }
            let words = a.words();
            gather(&mut self.registers, q, &offsets, group, |_, w| words[w].load(Relaxed));
            if a.may_be_tainted() {
                self.load_taint(block, q, &offsets, group, |_, w| a.taint()[w].load(Relaxed));
            } else {
                self.load_taint(block, q, &offsets, group, |_, _| 0);
            }
        }
        Ok(())
    }

    /// Sets the taint of the loaded registers.
    #[inline(always)]
    fn load_taint(
        &mut self,
        block: &BlockState<'g>,
        q: &WarpRequest<'_>,
        offsets: &Offsets,
        mask: u32,
        get: impl Fn(usize, usize) -> u32,
    ) {
        if self.register_taint.is_none() {
            let words = (q.bytes as usize).div_ceil(4);
            let found = (0..LANES).fold(0, |t, k| (0..words).fold(t, |t, w| t | get(k, offsets[k] / 4 + w)));
            if found == 0 {
                return;
            }
        }
        let had_taint = self.register_taint.is_some();
        gather(self.taint_registers(block.launch), q, offsets, mask, get);
        if !had_taint {
            self.taint_source = Some(self.active.pc);
        }
    }

    #[inline(always)]
    fn store(&mut self, block: &mut BlockState<'g>, q: &WarpRequest<'_>) -> LaneResult {
        let moved = q.mask.count_ones() as u64 * q.bytes as u64;
        let reversed = block.launch.options.schedule == Schedule::Late;
        match q.space {
            StateSpace::Shared => {
                let footprint = &block.footprints[q.footprint];
                let size = block.launch.shared_bytes as u64;
                let offsets = checked_offsets("shared memory", &q.addresses, footprint, size)?;
                block.counters.shared_stores.count(moved, footprint.wavefronts);
                let tainted = self.tainted_values(q);
                let accessor = self.as_accessor(q.access.strength == Strength::Strong);
                let same = |a: usize, b: usize| same_values(&self.registers, q, a, b);
                let warp_access = WarpAccess { accessor, base: 0, offsets: &offsets, footprint };
                block.shared_memory.write(&mut block.clock, warp_access, tainted, same)?;
                let memory = &mut block.shared_memory;
                scatter(&self.registers, q, &offsets, q.mask, reversed, |_, w, value, bits| {
                    memory.words[w] = memory.words[w] & !bits | value & bits;
                });
                if let (Some(t), true) = (&self.register_taint, tainted != 0) {
                    scatter(t, q, &offsets, q.mask, reversed, |_, w, value, bits| {
                        memory.taint[w] = memory.taint[w] & !bits | value & bits;
                    });
                }
            }
            StateSpace::Local => {
                let footprint = &block.footprints[q.footprint];
                let size = block.launch.code.local_bytes as u64;
                let offsets = checked_offsets("local memory", &q.addresses, footprint, size)?;
                block.counters.local_stores.count(moved, (0, 0));
                let put = |cells: &mut [u32], k: usize, w: usize, value: u32, bits: u32| {
                    let cell = &mut cells[w * LANES + k];
                    *cell = *cell & !bits | value & bits;
                };
                let (local, taint) = (&mut self.local, &mut self.local_taint);
                scatter(&self.registers, q, &offsets, q.mask, reversed, |k, w, value, bits| {
                    put(local, k, w, value, bits)
                });
                match &self.register_taint {
                    Some(t) => scatter(t, q, &offsets, q.mask, reversed, |k, w, value, bits| {
                        put(taint, k, w, value, bits)
                    }),
                    None => scatter(&self.registers, q, &offsets, q.mask, reversed, |k, w, _, bits| {
                        put(taint, k, w, 0, bits)
                    }),
                }
            }
            StateSpace::Param | StateSpace::Const => {
                let what = "a store to parameter or constant memory, which is read-only";
                return Err(lane_fault(FaultKind::Invalid, None, what));
            }
            StateSpace::Global | StateSpace::Generic => self.store_global(block, q, reversed)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn store_global(
        &mut self,
        block: &mut BlockState<'g>,
        q: &WarpRequest<'_>,
        reversed: bool,
    ) -> LaneResult {
        for &s in &q.i.src[1..1 + q.access.count as usize] {
            self.require_known(s, q.mask, "a value stored in global memory")?;
        }
        let mut request = q.to_global();
        while let Some((a, offsets)) = block.next_allocation(&mut request)? {
            let footprint = &block.footprints[request.footprint];
            let group = footprint.mask;
            block.counters.global_stores.count(footprint.moved(), footprint.sectors);
            if q.access.strength == Strength::Strong {
                block.launch.note_change();
            }
            block.log.add(q.number, a.base, &offsets, footprint);
            if let Some((first, second)) =
                footprint.conflicting_lanes(&offsets, |x, y| same_values(&self.registers, q, x, y))
                && block.launch.options.racecheck
            {
                let address = a.base + offsets[second] as u64;
                let detail = format!(
                    "WAW hazard: lanes {first} and {second} of one store write different values to {address:#x}"
                );
                return Err(lane_fault(FaultKind::GlobalRace, Some(second as u32), detail));
            }
            if block.launch.options.racecheck && q.access.strength == Strength::Weak {
                let warp_access = WarpAccess {
                    accessor: self.as_accessor(false),
                    base: a.base,
                    offsets: &offsets,
                    footprint,
                };
                block.global_shadow.write(&block.clock, warp_access)?;
            }
            let partial = a.may_be_tainted();
            scatter(&self.registers, q, &offsets, group, reversed, |_, w, value, bits| {
                if bits != u32::MAX {
                    a.store_part(w, value, bits);
                } else {
                    a.words()[w].store(value, Relaxed);
                    if partial {
                        a.taint()[w].store(0, Relaxed);
                    }
                }
            });
        }
        Ok(())
    }

    /// Returns the lanes with uninitialised bits in a value to be stored.
    fn tainted_values(&self, q: &WarpRequest<'_>) -> u32 {
        if self.register_taint.is_none() {
            return 0;
        }
        q.i.src[1..1 + q.access.count as usize].iter().fold(0, |t, &s| t | self.tainted(s, q.mask))
    }
}

impl WarpRequest<'_> {
    fn to_global(&self) -> GlobalRequest<'_> {
        GlobalRequest {
            access: self.number,
            addresses: &self.addresses,
            footprint: self.footprint,
            remaining: self.mask,
        }
    }
}

/// Returns true if two lanes store the same values.
fn same_values(r: &Registers<'_>, q: &WarpRequest<'_>, a: usize, b: usize) -> bool {
    let keep = u64::MAX >> (64 - 8 * q.access.size as u32);
    q.i.src[1..1 + q.access.count as usize].iter().all(|&s| (value(r, s, a) ^ value(r, s, b)) & keep == 0)
}

/// Reads the elements of every lane and writes the destination rows; `get(lane, w)` returns word w of the lane's
/// memory.
#[inline(always)]
fn gather(
    r: &mut Registers<'_>,
    q: &WarpRequest<'_>,
    offsets: &Offsets,
    mask: u32,
    get: impl Fn(usize, usize) -> u32,
) {
    let access = q.access;
    for n in 0..access.count as usize {
        let d = q.i.dst[n];
        match (access.size, d.class()) {
            (4, RegisterClass::B32) => r.set_b32(d, &row(|k| get(k, offsets[k] / 4 + n)), mask),
            (8, _) => {
                let low = |k: usize| offsets[k] / 4 + 2 * n;
                r.set_b64(d, &row(|k| get(k, low(k)) as u64 | (get(k, low(k) + 1) as u64) << 32), mask);
            }
            (size, class) => {
                let part = |k: usize| {
                    let byte = offsets[k] + n * size as usize;
                    let spare = 32 - 8 * size as u32;
                    let raw = get(k, byte / 4) >> (8 * (byte % 4)) << spare;
                    if access.signed { ((raw as i32) >> spare) as u32 } else { raw >> spare }
                };
                if class == RegisterClass::B64 {
                    let wide = |v: u32| if access.signed { v as i32 as i64 as u64 } else { v as u64 };
                    r.set_b64(d, &row(|k| wide(part(k))), mask);
                } else {
                    let keep = if access.width == 16 { 0xffff } else { u32::MAX };
                    r.set_b32(d, &row(|k| part(k) & keep), mask);
                }
            }
        }
    }
}

/// Returns the value of a source operand in a lane.
#[inline(always)]
fn value(r: &Registers<'_>, s: RegisterSlot, k: usize) -> u64 {
    if s.class() == RegisterClass::B64 { r.b64(s)[k] } else { r.b32(s)[k] as u64 }
}

/// Writes the elements of every active lane; `put(lane, w, value, bits)` writes the given bits of word w.
#[inline(always)]
fn scatter(
    r: &Registers<'_>,
    q: &WarpRequest<'_>,
    offsets: &Offsets,
    mask: u32,
    reversed: bool,
    mut put: impl FnMut(usize, usize, u32, u32),
) {
    let mut remaining = mask;
    while remaining != 0 {
        let k = if reversed { remaining.ilog2() } else { remaining.trailing_zeros() } as usize;
        remaining ^= 1 << k;
        for n in 0..q.access.count as usize {
            let v = value(r, q.i.src[1 + n], k);
            match q.access.size {
                4 => put(k, offsets[k] / 4 + n, v as u32, u32::MAX),
                8 => {
                    put(k, offsets[k] / 4 + 2 * n, v as u32, u32::MAX);
                    put(k, offsets[k] / 4 + 2 * n + 1, (v >> 32) as u32, u32::MAX);
                }
                size => {
                    let byte = offsets[k] + n * size as usize;
                    let shift = 8 * (byte % 4) as u32;
                    let bits = if size == 1 { 0xff } else { 0xffff };
                    put(k, byte / 4, (v as u32) << shift, bits << shift);
                }
            }
        }
    }
}
