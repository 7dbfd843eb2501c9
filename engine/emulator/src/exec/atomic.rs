//! Atomics and reductions on memory.

use super::access::part;
use super::block::Shared;
use super::pattern::Pattern;
use super::shadow::Touch;
use super::space::{aligned, offsets};
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::gpu::Schedule;
use crate::inst::{Atomic, Inst, LANES};
use crate::lane::half::{self, BRAIN, PACKED};
use crate::ptx::Space;
use std::sync::atomic::Ordering::Relaxed;

/// The new value from the old one and the operands, on values of `bits` bits.
fn update(op: Atomic, bits: u32, old: u64, b: u64, c: u64) -> u64 {
    let signed = |x: u64| (x << (64 - bits)) as i64 >> (64 - bits);
    let half = |mode: u32| half::add(&[old, b, 0, 0], mode);
    match op {
        Atomic::Add => old.wrapping_add(b),
        Atomic::MinU => old.min(b),
        Atomic::MaxU => old.max(b),
        Atomic::MinS => signed(old).min(signed(b)) as u64,
        Atomic::MaxS => signed(old).max(signed(b)) as u64,
        Atomic::And => old & b,
        Atomic::Or => old | b,
        Atomic::Xor => old ^ b,
        Atomic::Exch => b,
        Atomic::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        Atomic::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        Atomic::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        // On f32 in global memory atomics flush subnormals; kernels that care do not use them.
        Atomic::AddF32 => (f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits() as u64,
        Atomic::AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        Atomic::AddF16 => half(0),
        Atomic::AddBf16 => half(BRAIN),
        Atomic::AddF16x2 => half(PACKED),
        Atomic::AddBf16x2 => half(PACKED | BRAIN),
    }
}

impl<'g> Warp<'g> {
    /// `atom` and `red`: lane after lane, in the schedule's order.
    pub fn atomic(
        &mut self,
        shared: &mut Shared<'g>,
        i: &Inst,
        what: (Space, Atomic, u8),
        mask: u32,
    ) -> Check {
        self.require_known(i.src[0], mask, "an address")?;
        let addresses = self.addresses(i.src[0], i.imm, mask);
        aligned(&addresses, what.2 as u32)?;
        let mut left = mask;
        while left != 0 {
            let (space, addresses, here) = match what.0 {
                Space::Generic => part(&addresses, left),
                space => (space, addresses, left),
            };
            self.atomic_in(shared, i, (space, what.1, what.2), &addresses, here)?;
            left &= !here;
        }
        Ok(())
    }

    fn atomic_in(
        &mut self,
        shared: &mut Shared<'g>,
        i: &Inst,
        (space, op, size): (Space, Atomic, u8),
        addresses: &[u64; LANES],
        mask: u32,
    ) -> Check {
        let (b, c) = (self.registers.bits(i.src[1]), self.registers.bits(i.src[2]));
        let mut order: Vec<usize> = lanes(mask).collect();
        if shared.grid.rules.schedule == Schedule::Late {
            order.reverse();
        }
        let mut old = [0u64; LANES];
        let moved = |mask: u32| mask.count_ones() as u64 * size as u64;
        match space {
            Space::Shared => {
                let at = offsets("shared memory", addresses, shared.grid.shared_bytes as u64, size as u32)?;
                let pattern = Pattern::of(&at, size as u32, mask);
                shared.counters.shared_atomics.count(moved(mask), pattern.passes(&at, size as u32, mask));
                let operand = self.tainted(i.src[1], mask) | self.tainted(i.src[2], mask);
                let touch = Touch { who: self.who(true), base: 0, at: &at, bytes: size as u32, mask };
                if operand != 0 || shared.memory.read(&shared.clock, touch)? {
                    let lane = operand.checked_ilog2().unwrap_or(mask.trailing_zeros());
                    let detail = "an atomic on shared memory uses uninitialised data";
                    return Err(trouble(FaultKind::Uninitialised, Some(lane), detail));
                }
                shared.memory.write(&mut shared.clock, touch, 0, |_, _| true)?;
                for k in order {
                    let words = &mut shared.memory.words;
                    old[k] = apply(op, size, at[k], b[k], c[k], |w, f| {
                        let old = words[w];
                        words[w] = f(old);
                        old
                    });
                }
            }
            Space::Global | Space::Generic => {
                for s in [i.src[1], i.src[2]] {
                    self.require_known(s, mask, "an operand of an atomic on global memory")?;
                }
                let mut left = mask;
                while left != 0 {
                    let (a, at, here) = shared.allocation(self.now.pc, addresses, left, size as u32)?;
                    left &= !here;
                    let pattern = Pattern::of(&at, size as u32, here);
                    shared
                        .counters
                        .global_atomics
                        .count(moved(here), pattern.sectors(&at, size as u32, here));
                    let access = shared.grid.program.access_of[self.now.pc as usize];
                    shared.log.add(access, a.base, &at, size as u32, here, pattern);
                    let _wide = (size == 8).then(|| shared.grid.wide_atomics.lock());
                    for &k in order.iter().filter(|&&k| here >> k & 1 != 0) {
                        if a.is_tainted(at[k], size as usize) {
                            let detail =
                                format!("an atomic on {:#x}, which is uninitialised", a.base + at[k] as u64);
                            return Err(trouble(FaultKind::Uninitialised, Some(k as u32), detail));
                        }
                        old[k] = apply(op, size, at[k], b[k], c[k], |w, f| {
                            // The closure always returns a value, so the update never fails.
                            a.words()[w]
                                .fetch_update(Relaxed, Relaxed, |old| Some(f(old)))
                                .unwrap_or_default()
                        });
                    }
                }
            }
            _ => return Err(trouble(FaultKind::Invalid, None, "an atomic on memory of one thread")),
        }
        self.registers.set_bits(i.dst[0], &old, mask);
        if let Some(t) = &mut self.taints {
            t.set_bits(i.dst[0], &[0; LANES], mask);
        }
        Ok(())
    }
}

/// Applies an update at a byte offset; `cell` replaces a word by a function of it and returns the old one.
fn apply(
    op: Atomic,
    size: u8,
    at: usize,
    b: u64,
    c: u64,
    mut cell: impl FnMut(usize, &dyn Fn(u32) -> u32) -> u32,
) -> u64 {
    match size {
        2 => {
            let shift = 8 * (at % 4) as u32;
            let part = |word: u32| word >> shift & 0xffff;
            let new = |word: u32| {
                let new = update(op, 16, part(word) as u64, b, c) as u32 & 0xffff;
                word & !(0xffff << shift) | new << shift
            };
            part(cell(at / 4, &new)) as u64
        }
        4 => cell(at / 4, &|old| update(op, 32, old as u64, b, c) as u32) as u64,
        _ => {
            let low = cell(at / 4, &|old| old);
            let high = cell(at / 4 + 1, &|old| old);
            let old = low as u64 | (high as u64) << 32;
            let new = update(op, 64, old, b, c);
            cell(at / 4, &|_| new as u32);
            cell(at / 4 + 1, &|_| (new >> 32) as u32);
            old
        }
    }
}
