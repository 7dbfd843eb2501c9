//! Loads and stores.

use super::block::Shared;
use super::registers::Registers;
use super::space::{Offsets, aligned, offsets};
use super::warp::{Warp, lanes};
use crate::fault::Check;
use crate::gpu::Schedule;
use crate::inst::{Access, Class, Inst, LANES, Slot};
use crate::layout;
use crate::ptx::Space;
use std::array::from_fn;
use std::sync::atomic::Ordering::Relaxed;

impl<'g> Warp<'g> {
    /// `ld`.
    #[inline(always)]
    pub fn load(&mut self, shared: &mut Shared<'g>, i: &Inst, access: Access, mask: u32) -> Check {
        let bytes = access.size as u32 * access.count as u32;
        let addresses = self.addresses(i.src[0], i.imm, mask);
        aligned(&addresses, bytes)?;
        match access.space {
            Space::Generic => self.by_space(&addresses, mask, |warp, space, addresses, mask| {
                warp.load_from(shared, i, access, space, addresses, mask)
            }),
            space => self.load_from(shared, i, access, space, &addresses, mask),
        }
    }

    /// Calls `f` for the lanes of each space a generic request points into.
    pub fn by_space(
        &mut self,
        addresses: &[u64; LANES],
        mask: u32,
        mut f: impl FnMut(&mut Self, Space, &[u64; LANES], u32) -> Check,
    ) -> Check {
        let mut left = mask;
        while left != 0 {
            let first = addresses[left.trailing_zeros() as usize];
            let space = layout::space_of(first);
            let here =
                lanes(left).filter(|&k| layout::space_of(addresses[k]) == space).fold(0, |m, k| m | 1 << k);
            let base = layout::window(space);
            let inside = from_fn(|k| if here >> k & 1 != 0 { addresses[k] } else { first } - base);
            f(self, space, &inside, here)?;
            left &= !here;
        }
        Ok(())
    }

    #[inline(always)]
    fn load_from(
        &mut self,
        shared: &mut Shared<'g>,
        i: &Inst,
        access: Access,
        space: Space,
        addresses: &[u64; LANES],
        mask: u32,
    ) -> Check {
        let bytes = access.size as u32 * access.count as u32;
        match space {
            Space::Shared => {
                let at = offsets("shared memory", addresses, shared.grid.shared_bytes as u64, bytes)?;
                gather(&mut self.registers, i, access, &at, mask, |_, w| shared.words[w]);
            }
            Space::Local => {
                let at = offsets("local memory", addresses, shared.grid.program.local_bytes as u64, bytes)?;
                gather(&mut self.registers, i, access, &at, mask, |k, w| self.local[w * LANES + k]);
            }
            Space::Param => {
                let size = shared.grid.program.param_bytes as u64;
                let at = offsets("the parameters", addresses, size, bytes)?;
                gather(&mut self.registers, i, access, &at, mask, |_, w| shared.grid.params[w]);
            }
            Space::Global | Space::Const | Space::Generic => {
                let mut left = mask;
                while left != 0 {
                    let (_, a, at, here) = shared.allocation(self.now.pc, addresses, left, bytes)?;
                    let words = a.words();
                    gather(&mut self.registers, i, access, &at, here, |_, w| words[w].load(Relaxed));
                    left &= !here;
                }
            }
        }
        Ok(())
    }

    /// `st`.
    #[inline(always)]
    pub fn store(&mut self, shared: &mut Shared<'g>, i: &Inst, access: Access, mask: u32) -> Check {
        let bytes = access.size as u32 * access.count as u32;
        let addresses = self.addresses(i.src[0], i.imm, mask);
        aligned(&addresses, bytes)?;
        match access.space {
            Space::Generic => self.by_space(&addresses, mask, |warp, space, addresses, mask| {
                warp.store_to(shared, i, access, space, addresses, mask)
            }),
            space => self.store_to(shared, i, access, space, &addresses, mask),
        }
    }

    #[inline(always)]
    fn store_to(
        &mut self,
        shared: &mut Shared<'g>,
        i: &Inst,
        access: Access,
        space: Space,
        addresses: &[u64; LANES],
        mask: u32,
    ) -> Check {
        let bytes = access.size as u32 * access.count as u32;
        let late = shared.grid.schedule == Schedule::Late;
        match space {
            Space::Shared => {
                let at = offsets("shared memory", addresses, shared.grid.shared_bytes as u64, bytes)?;
                let words = &mut shared.words;
                scatter(&self.registers, i, access, &at, mask, late, |_, w, value, bits| {
                    words[w] = words[w] & !bits | value & bits;
                });
            }
            Space::Local => {
                let at = offsets("local memory", addresses, shared.grid.program.local_bytes as u64, bytes)?;
                let local = &mut self.local;
                scatter(&self.registers, i, access, &at, mask, late, |k, w, value, bits| {
                    let word = &mut local[w * LANES + k];
                    *word = *word & !bits | value & bits;
                });
            }
            Space::Param | Space::Const => {
                let what = "parameters and constants cannot be written";
                return Err(crate::fault::trouble(crate::fault::FaultKind::OutOfBounds, None, what));
            }
            Space::Global | Space::Generic => {
                let mut left = mask;
                while left != 0 {
                    let (_, a, at, here) = shared.allocation(self.now.pc, addresses, left, bytes)?;
                    scatter(&self.registers, i, access, &at, here, late, |_, w, value, bits| {
                        if bits == u32::MAX {
                            a.words()[w].store(value, Relaxed);
                            a.taint()[w].store(0, Relaxed);
                        } else {
                            a.store_part(w, value, bits);
                        }
                    });
                    left &= !here;
                }
            }
        }
        Ok(())
    }
}

/// Reads the elements of every lane and writes the destination rows. `get` reads a word of a lane's memory.
#[inline(always)]
fn gather(
    r: &mut Registers<'_>,
    i: &Inst,
    access: Access,
    at: &Offsets,
    mask: u32,
    get: impl Fn(usize, usize) -> u32,
) {
    for n in 0..access.count as usize {
        let d = i.dst[n];
        match (access.size, d.class()) {
            (4, Class::Word) => r.set_word(d, &from_fn(|k| get(k, at[k] / 4 + n)), mask),
            (8, _) => {
                let low = |k: usize| at[k] / 4 + 2 * n;
                r.set_double(
                    d,
                    &from_fn(|k| get(k, low(k)) as u64 | (get(k, low(k) + 1) as u64) << 32),
                    mask,
                );
            }
            (size, class) => {
                let bits = 8 * size as u32;
                let part = |k: usize| {
                    let byte = at[k] + n * size as usize;
                    let raw = get(k, byte / 4) >> (8 * (byte % 4));
                    let spare = 32 - bits;
                    if access.signed {
                        ((raw << spare) as i32 >> spare) as u32
                    } else {
                        raw << spare >> spare
                    }
                };
                if class == Class::Double {
                    let wide = |v: u32| if access.signed { v as i32 as i64 as u64 } else { v as u64 };
                    r.set_double(d, &from_fn(|k| wide(part(k))), mask);
                } else {
                    let keep = if access.width == 16 { 0xffff } else { u32::MAX };
                    r.set_word(d, &from_fn(|k| part(k) & keep), mask);
                }
            }
        }
    }
}

/// The two words of a source row's lane.
#[inline(always)]
fn value(r: &Registers<'_>, s: Slot, k: usize) -> u64 {
    if s.class() == Class::Double { r.double(s)[k] } else { r.word(s)[k] as u64 }
}

/// Writes the elements of every active lane; `put` gets lane, word, value and which bits of it to write.
#[inline(always)]
fn scatter(
    r: &Registers<'_>,
    i: &Inst,
    access: Access,
    at: &Offsets,
    mask: u32,
    reversed: bool,
    mut put: impl FnMut(usize, usize, u32, u32),
) {
    let mut lane = |k: usize| {
        for n in 0..access.count as usize {
            let v = value(r, i.src[1 + n], k);
            match access.size {
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
    };
    match reversed {
        false => lanes(mask).for_each(&mut lane),
        true => lanes(mask).rev().for_each(&mut lane),
    }
}
