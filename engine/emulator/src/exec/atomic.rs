//! Atomics (`atom`) and reductions (`red`) on global and shared memory.

use super::access::first_space;
use super::address::{Addresses, GlobalRequest, check_alignment, checked_offsets};
use super::shared_memory::WarpAccess;
use super::thread_block::BlockState;
use super::warp::{Warp, lanes};
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::gpu::Schedule;
use crate::inst::{AtomicOp, Inst, LANES};
use crate::lane::half::{self, MODE_BF16, PACKED};
use crate::ptx::StateSpace;
use std::sync::atomic::Ordering::Relaxed;

/// Returns the new value for the old one and the operands, all of `bits` bits.
fn update(op: AtomicOp, bits: u32, old: u64, b: u64, c: u64) -> u64 {
    let signed = |x: u64| (x << (64 - bits)) as i64 >> (64 - bits);
    let half = |mode: u32| half::add(&[old, b, 0, 0], mode);
    match op {
        AtomicOp::Add => old.wrapping_add(b),
        AtomicOp::MinU => old.min(b),
        AtomicOp::MaxU => old.max(b),
        AtomicOp::MinS => signed(old).min(signed(b)) as u64,
        AtomicOp::MaxS => signed(old).max(signed(b)) as u64,
        AtomicOp::And => old & b,
        AtomicOp::Or => old | b,
        AtomicOp::Xor => old ^ b,
        AtomicOp::Exch => b,
        AtomicOp::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        AtomicOp::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        // On f32 in global memory atomics flush subnormals; kernels that care do not use them.
        AtomicOp::AddF32 => (f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits() as u64,
        AtomicOp::AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        AtomicOp::AddF16 => half(0),
        AtomicOp::AddBf16 => half(MODE_BF16),
        AtomicOp::AddF16x2 => half(PACKED),
        AtomicOp::AddBf16x2 => half(PACKED | MODE_BF16),
    }
}

impl<'g> Warp<'g> {
    /// Executes `atom` and `red`, lane after lane in the order of the schedule.
    pub fn atomic(
        &mut self,
        block: &mut BlockState<'g>,
        i: &Inst,
        what: (StateSpace, AtomicOp, u8),
        mask: u32,
    ) -> LaneResult {
        self.require_known(i.src[0], mask, "an address")?;
        let addresses = self.addresses(i.src[0], i.imm, mask);
        let access = block.launch.code.access_index[self.active.pc as usize];
        let all = block.footprints.of(access, &addresses, what.2 as u32, mask);
        check_alignment(&addresses, &block.footprints[all])?;
        let mut remaining = mask;
        while remaining != 0 {
            let (space, addresses, group) = match what.0 {
                StateSpace::Generic => first_space(&addresses, remaining),
                space => (space, addresses, remaining),
            };
            self.atomic_in(block, i, (space, what.1, what.2), &addresses, group)?;
            remaining &= !group;
        }
        Ok(())
    }

    fn atomic_in(
        &mut self,
        block: &mut BlockState<'g>,
        i: &Inst,
        (space, op, size): (StateSpace, AtomicOp, u8),
        addresses: &Addresses,
        mask: u32,
    ) -> LaneResult {
        let (b, c) = (self.registers.bits(i.src[1]), self.registers.bits(i.src[2]));
        let mut order: Vec<usize> = lanes(mask).collect();
        if block.launch.options.schedule == Schedule::Late {
            order.reverse();
        }
        let mut old = [0u64; LANES];
        let access = block.launch.code.access_index[self.active.pc as usize];
        let footprint = block.footprints.of(access, addresses, size as u32, mask);
        match space {
            StateSpace::Shared => {
                let footprint = &block.footprints[footprint];
                let limit = block.launch.shared_bytes as u64;
                let offsets = checked_offsets("shared memory", addresses, footprint, limit)?;
                block.counters.shared_atomics.count(footprint.moved(), footprint.wavefronts);
                let operand = self.tainted(i.src[1], mask) | self.tainted(i.src[2], mask);
                let accessor = self.as_accessor(true);
                let warp_access = WarpAccess { accessor, base: 0, offsets: &offsets, footprint };
                if operand != 0 || block.shared_memory.read(&block.clock, warp_access)? {
                    let lane = operand.checked_ilog2().unwrap_or(mask.trailing_zeros());
                    let detail = "an atomic on shared memory uses uninitialised data";
                    return Err(lane_fault(FaultKind::Uninitialised, Some(lane), detail));
                }
                block.shared_memory.write(&mut block.clock, warp_access, 0, |_, _| true)?;
                for k in order {
                    let words = &mut block.shared_memory.words;
                    old[k] = apply(op, size, offsets[k], b[k], c[k], |w, f| {
                        let old = words[w];
                        words[w] = f(old);
                        old
                    });
                }
            }
            StateSpace::Global | StateSpace::Generic => {
                for s in [i.src[1], i.src[2]] {
                    self.require_known(s, mask, "an operand of an atomic on global memory")?;
                }
                let mut request = GlobalRequest { access, addresses, footprint, remaining: mask };
                while let Some((a, offsets)) = block.next_allocation(&mut request)? {
                    let footprint = &block.footprints[request.footprint];
                    let group = footprint.mask;
                    block.counters.global_atomics.count(footprint.moved(), footprint.sectors);
                    block.log.add(access, a.base, &offsets, footprint);
                    block.launch.note_change();
                    let _wide = (size == 8).then(|| block.launch.wide_atomics.lock());
                    for &k in order.iter().filter(|&&k| group >> k & 1 != 0) {
                        if a.is_tainted(offsets[k], size as usize) {
                            let detail = format!(
                                "an atomic on {:#x}, which is uninitialised",
                                a.base + offsets[k] as u64
                            );
                            return Err(lane_fault(FaultKind::Uninitialised, Some(k as u32), detail));
                        }
                        old[k] = apply(op, size, offsets[k], b[k], c[k], |w, f| {
                            // The closure always returns a value, so the update never fails.
                            a.words()[w]
                                .fetch_update(Relaxed, Relaxed, |old| Some(f(old)))
                                .unwrap_or_default()
                        });
                    }
                }
            }
            _ => {
                return Err(lane_fault(
                    FaultKind::Invalid,
                    None,
                    "an atomic on local, parameter or constant memory: only global and shared memory have atomics",
                ));
            }
        }
        self.registers.set_bits(i.dst[0], &old, mask);
        if let Some(t) = &mut self.register_taint {
            t.set_bits(i.dst[0], &[0; LANES], mask);
        }
        Ok(())
    }
}

/// Applies an update at a byte offset and returns the old value; `cell(w, f)` replaces word w by f of it and returns
/// the old word.
fn apply(
    op: AtomicOp,
    size: u8,
    offset: usize,
    b: u64,
    c: u64,
    mut cell: impl FnMut(usize, &dyn Fn(u32) -> u32) -> u32,
) -> u64 {
    match size {
        2 => {
            let shift = 8 * (offset % 4) as u32;
            let part = |word: u32| word >> shift & 0xffff;
            let new = |word: u32| {
                let new = update(op, 16, part(word) as u64, b, c) as u32 & 0xffff;
                word & !(0xffff << shift) | new << shift
            };
            part(cell(offset / 4, &new)) as u64
        }
        4 => cell(offset / 4, &|old| update(op, 32, old as u64, b, c) as u32) as u64,
        _ => {
            let low = cell(offset / 4, &|old| old);
            let high = cell(offset / 4 + 1, &|old| old);
            let old = low as u64 | (high as u64) << 32;
            let new = update(op, 64, old, b, c);
            cell(offset / 4, &|_| new as u32);
            cell(offset / 4 + 1, &|_| (new >> 32) as u32);
            old
        }
    }
}
