//! Loads and stores.

use super::block::Shared;
use super::pattern::Pattern;
use super::registers::{Registers, row};
use super::shadow::{Touch, Who};
use super::space::{Offsets, aligned, offsets};
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::gpu::Schedule;
use crate::inst::{Access, Class, Inst, LANES, Slot, Strength};
use crate::layout;
use crate::ptx::Space;
use std::sync::atomic::Ordering::Relaxed;

/// A load or store of some lanes in one space.
struct Request<'a> {
    i: &'a Inst,
    access: Access,
    bytes: u32,
    space: Space,
    addresses: [u64; LANES],
    mask: u32,
}

/// The space that the first lane's generic address lies in, the lanes that share it, and their addresses in it.
pub fn part(addresses: &[u64; LANES], mask: u32) -> (Space, [u64; LANES], u32) {
    let first = addresses[mask.trailing_zeros() as usize % LANES];
    let space = layout::space_of(first);
    let here = lanes(mask).filter(|&k| layout::space_of(addresses[k]) == space).fold(0, |m, k| m | 1 << k);
    let base = layout::window(space);
    (space, row(|k| if here >> k & 1 != 0 { addresses[k] } else { first } - base), here)
}

impl<'g> Warp<'g> {
    /// `ld` and `st`.
    #[inline(always)]
    pub fn access(
        &mut self,
        shared: &mut Shared<'g>,
        i: &Inst,
        access: Access,
        store: bool,
        mask: u32,
    ) -> Check {
        let bytes = access.size as u32 * access.count as u32;
        self.require_known(i.src[0], mask, "an address")?;
        let addresses = self.addresses(i.src[0], i.imm, mask);
        aligned(&addresses, bytes)?;
        let mut left = mask;
        while left != 0 {
            // One round, but for generic addresses of several spaces.
            let (space, addresses, here) = match access.space {
                Space::Generic => part(&addresses, left),
                space => (space, addresses, left),
            };
            let request = Request { i, access, bytes, space, addresses, mask: here };
            if store {
                self.store(shared, &request)?
            } else {
                self.load(shared, &request)?
            }
            left &= !here;
        }
        Ok(())
    }

    /// This warp at its current instruction, as the records of shared memory name it.
    #[inline(always)]
    pub fn who(&self, strong: bool) -> Who {
        Who { warp: self.index, pc: self.now.pc, strong }
    }

    #[inline(always)]
    fn load(&mut self, shared: &mut Shared<'g>, q: &Request<'_>) -> Check {
        let moved = q.mask.count_ones() as u64 * q.bytes as u64;
        match q.space {
            Space::Shared => {
                let at = offsets("shared memory", &q.addresses, shared.grid.shared_bytes as u64, q.bytes)?;
                let pattern = Pattern::of(&at, q.bytes, q.mask);
                shared.counters.shared_loads.count(moved, pattern.passes(&at, q.bytes, q.mask));
                let who = self.who(q.access.strength == Strength::Strong);
                let touch = Touch { who, base: 0, at: &at, bytes: q.bytes, mask: q.mask };
                let tainted = shared.memory.read(&shared.clock, touch)?;
                let memory = &shared.memory;
                gather(&mut self.registers, q, &at, q.mask, |_, w| memory.words[w]);
                match tainted {
                    true => self.load_taint(shared, q, &at, q.mask, |_, w| memory.taint_of(w)),
                    false => self.load_taint(shared, q, &at, q.mask, |_, _| 0),
                }
            }
            Space::Local => {
                let at =
                    offsets("local memory", &q.addresses, shared.grid.program.local_bytes as u64, q.bytes)?;
                shared.counters.local_loads.count(moved, (0, 0));
                let local = &self.local;
                gather(&mut self.registers, q, &at, q.mask, |k, w| local[w * LANES + k]);
                let taint = std::mem::take(&mut self.local_taint);
                self.load_taint(shared, q, &at, q.mask, |k, w| taint[w * LANES + k]);
                self.local_taint = taint;
            }
            Space::Param => {
                let size = shared.grid.program.param_bytes as u64;
                let at = offsets("the parameters", &q.addresses, size, q.bytes)?;
                shared.counters.constant_loads.count(moved, (0, 0));
                gather(&mut self.registers, q, &at, q.mask, |_, w| shared.grid.params[w]);
                self.load_taint(shared, q, &at, q.mask, |_, _| 0);
            }
            Space::Global | Space::Const | Space::Generic => self.load_global(shared, q)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn load_global(&mut self, shared: &mut Shared<'g>, q: &Request<'_>) -> Check {
        let mut left = q.mask;
        while left != 0 {
            let (a, at, here) = shared.allocation(self.now.pc, &q.addresses, left, q.bytes)?;
            left &= !here;
            let pattern = Pattern::of(&at, q.bytes, here);
            let moved = here.count_ones() as u64 * q.bytes as u64;
            if q.space == Space::Const {
                shared.counters.constant_loads.count(moved, (0, 0));
            } else {
                shared.counters.global_loads.count(moved, pattern.sectors(&at, q.bytes, here));
                let access = shared.grid.program.access_of[self.now.pc as usize];
                shared.log.add(access, a.base, &at, q.bytes, here, pattern);
                if shared.grid.rules.ordering && q.access.strength == Strength::Plain {
                    let (who, bytes) = (self.who(false), q.bytes);
                    let touch = Touch { who, base: a.base, at: &at, bytes, mask: here };
                    shared.written.read(&shared.clock, touch)?;
                }
            }
            let words = a.words();
            gather(&mut self.registers, q, &at, here, |_, w| words[w].load(Relaxed));
            if a.is_partial() {
                self.load_taint(shared, q, &at, here, |_, w| a.taint()[w].load(Relaxed));
            } else {
                self.load_taint(shared, q, &at, here, |_, _| 0);
            }
        }
        Ok(())
    }

    /// Gives the loaded registers the taint of what was loaded.
    #[inline(always)]
    fn load_taint(
        &mut self,
        shared: &Shared<'g>,
        q: &Request<'_>,
        at: &Offsets,
        mask: u32,
        get: impl Fn(usize, usize) -> u32,
    ) {
        if self.taints.is_none() {
            let words = (q.bytes as usize).div_ceil(4);
            let found = (0..LANES).fold(0, |t, k| (0..words).fold(t, |t, w| t | get(k, at[k] / 4 + w)));
            if found == 0 {
                return;
            }
        }
        let before = self.taints.is_some();
        gather(self.taints(shared.grid), q, at, mask, get);
        if !before {
            self.first_taint = Some(self.now.pc);
        }
    }

    #[inline(always)]
    fn store(&mut self, shared: &mut Shared<'g>, q: &Request<'_>) -> Check {
        let moved = q.mask.count_ones() as u64 * q.bytes as u64;
        let late = shared.grid.rules.schedule == Schedule::Late;
        match q.space {
            Space::Shared => {
                let at = offsets("shared memory", &q.addresses, shared.grid.shared_bytes as u64, q.bytes)?;
                let pattern = Pattern::of(&at, q.bytes, q.mask);
                shared.counters.shared_stores.count(moved, pattern.passes(&at, q.bytes, q.mask));
                let tainted = self.tainted_values(q);
                let who = self.who(q.access.strength == Strength::Strong);
                let same = |a: usize, b: usize| same_values(&self.registers, q, a, b);
                let touch = Touch { who, base: 0, at: &at, bytes: q.bytes, mask: q.mask };
                shared.memory.write(&mut shared.clock, touch, tainted, same)?;
                let memory = &mut shared.memory;
                scatter(&self.registers, q, &at, q.mask, late, |_, w, value, bits| {
                    memory.words[w] = memory.words[w] & !bits | value & bits;
                });
                if let (Some(t), true) = (&self.taints, tainted != 0) {
                    scatter(t, q, &at, q.mask, late, |_, w, value, bits| {
                        memory.taint[w] = memory.taint[w] & !bits | value & bits;
                    });
                }
            }
            Space::Local => {
                let at =
                    offsets("local memory", &q.addresses, shared.grid.program.local_bytes as u64, q.bytes)?;
                shared.counters.local_stores.count(moved, (0, 0));
                let put = |cells: &mut [u32], k: usize, w: usize, value: u32, bits: u32| {
                    let cell = &mut cells[w * LANES + k];
                    *cell = *cell & !bits | value & bits;
                };
                let (local, taint) = (&mut self.local, &mut self.local_taint);
                scatter(&self.registers, q, &at, q.mask, late, |k, w, value, bits| {
                    put(local, k, w, value, bits)
                });
                match &self.taints {
                    Some(t) => {
                        scatter(t, q, &at, q.mask, late, |k, w, value, bits| put(taint, k, w, value, bits))
                    }
                    None => scatter(&self.registers, q, &at, q.mask, late, |k, w, _, bits| {
                        put(taint, k, w, 0, bits)
                    }),
                }
            }
            Space::Param | Space::Const => {
                let what = "parameters and constants cannot be written";
                return Err(trouble(FaultKind::Invalid, None, what));
            }
            Space::Global | Space::Generic => self.store_global(shared, q, late)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn store_global(&mut self, shared: &mut Shared<'g>, q: &Request<'_>, late: bool) -> Check {
        for &s in &q.i.src[1..1 + q.access.count as usize] {
            self.require_known(s, q.mask, "a value stored in global memory")?;
        }
        let mut left = q.mask;
        while left != 0 {
            let (a, at, here) = shared.allocation(self.now.pc, &q.addresses, left, q.bytes)?;
            left &= !here;
            let pattern = Pattern::of(&at, q.bytes, here);
            let moved = here.count_ones() as u64 * q.bytes as u64;
            shared.counters.global_stores.count(moved, pattern.sectors(&at, q.bytes, here));
            let access = shared.grid.program.access_of[self.now.pc as usize];
            shared.log.add(access, a.base, &at, q.bytes, here, pattern);
            if let Some((one, two)) = pattern.clash(&at, here, |x, y| same_values(&self.registers, q, x, y))
                && shared.grid.rules.ordering
            {
                let address = a.base + at[two] as u64;
                let detail =
                    format!("lanes {one} and {two} of one store write different values to {address:#x}");
                return Err(trouble(FaultKind::GlobalRace, Some(two as u32), detail));
            }
            if shared.grid.rules.ordering && q.access.strength == Strength::Plain {
                let touch = Touch { who: self.who(false), base: a.base, at: &at, bytes: q.bytes, mask: here };
                shared.written.write(&shared.clock, touch)?;
            }
            let partial = a.is_partial();
            scatter(&self.registers, q, &at, here, late, |_, w, value, bits| {
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

    /// The lanes with uninitialised bits in a value to be stored.
    fn tainted_values(&self, q: &Request<'_>) -> u32 {
        if self.taints.is_none() {
            return 0;
        }
        q.i.src[1..1 + q.access.count as usize].iter().fold(0, |t, &s| t | self.tainted(s, q.mask))
    }
}

/// Whether two lanes store the same values.
fn same_values(r: &Registers<'_>, q: &Request<'_>, a: usize, b: usize) -> bool {
    let keep = u64::MAX >> (64 - 8 * q.access.size as u32);
    q.i.src[1..1 + q.access.count as usize].iter().all(|&s| (value(r, s, a) ^ value(r, s, b)) & keep == 0)
}

/// Reads the elements of every lane and writes the destination rows. `get` reads a word of a lane's memory.
#[inline(always)]
fn gather(
    r: &mut Registers<'_>,
    q: &Request<'_>,
    at: &Offsets,
    mask: u32,
    get: impl Fn(usize, usize) -> u32,
) {
    let access = q.access;
    for n in 0..access.count as usize {
        let d = q.i.dst[n];
        match (access.size, d.class()) {
            (4, Class::Word) => r.set_word(d, &row(|k| get(k, at[k] / 4 + n)), mask),
            (8, _) => {
                let low = |k: usize| at[k] / 4 + 2 * n;
                r.set_double(d, &row(|k| get(k, low(k)) as u64 | (get(k, low(k) + 1) as u64) << 32), mask);
            }
            (size, class) => {
                let part = |k: usize| {
                    let byte = at[k] + n * size as usize;
                    let spare = 32 - 8 * size as u32;
                    let raw = get(k, byte / 4) >> (8 * (byte % 4)) << spare;
                    if access.signed { ((raw as i32) >> spare) as u32 } else { raw >> spare }
                };
                if class == Class::Double {
                    let wide = |v: u32| if access.signed { v as i32 as i64 as u64 } else { v as u64 };
                    r.set_double(d, &row(|k| wide(part(k))), mask);
                } else {
                    let keep = if access.width == 16 { 0xffff } else { u32::MAX };
                    r.set_word(d, &row(|k| part(k) & keep), mask);
                }
            }
        }
    }
}

/// A source row's value in a lane.
#[inline(always)]
fn value(r: &Registers<'_>, s: Slot, k: usize) -> u64 {
    if s.class() == Class::Double { r.double(s)[k] } else { r.word(s)[k] as u64 }
}

/// Writes the elements of every active lane; `put` gets lane, word, value and which bits of it to write.
#[inline(always)]
fn scatter(
    r: &Registers<'_>,
    q: &Request<'_>,
    at: &Offsets,
    mask: u32,
    reversed: bool,
    mut put: impl FnMut(usize, usize, u32, u32),
) {
    let mut left = mask;
    while left != 0 {
        let k = if reversed { left.ilog2() } else { left.trailing_zeros() } as usize;
        left ^= 1 << k;
        for n in 0..q.access.count as usize {
            let v = value(r, q.i.src[1 + n], k);
            match q.access.size {
                4 => put(k, at[k] / 4 + n, v as u32, u32::MAX),
                8 => {
                    put(k, at[k] / 4 + 2 * n, v as u32, u32::MAX);
                    put(k, at[k] / 4 + 2 * n + 1, (v >> 32) as u32, u32::MAX);
                }
                size => {
                    let byte = at[k] + n * size as usize;
                    let shift = 8 * (byte % 4) as u32;
                    let bits = if size == 1 { 0xff } else { 0xffff };
                    put(k, byte / 4, (v as u32) << shift, bits << shift);
                }
            }
        }
    }
}
