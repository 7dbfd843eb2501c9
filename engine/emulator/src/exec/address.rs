//! Memcheck: the addresses of a request, the memory they point into, alignment and bounds.

use super::registers::row;
use super::thread_block::BlockState;
use super::warp::{Warp, lanes};
use crate::fault::{FaultKind, LaneFault, LaneResult, lane_fault};
use crate::inst::{LANES, RegisterClass, RegisterSlot};
use crate::memory::{Allocation, Pointee};

/// Byte offsets of a request's lanes in the memory they point into. Inactive lanes repeat an active one, so
/// that loops need not look at the mask.
pub type Offsets = [usize; LANES];

impl<'g> Warp<'g> {
    /// Returns the addresses `base + offset`; inactive lanes repeat the first active one.
    #[inline(always)]
    pub fn addresses(&self, base: RegisterSlot, offset: i64, mask: u32) -> [u64; LANES] {
        let all: [u64; LANES] = match base.class() {
            RegisterClass::B64 => {
                let base = self.registers.b64(base);
                row(|k| base[k].wrapping_add(offset as u64))
            }
            _ => {
                let base = self.registers.b32(base);
                row(|k| base[k].wrapping_add(offset as u32) as u64)
            }
        };
        let first = all[mask.trailing_zeros() as usize % LANES];
        row(|k| if mask >> k & 1 != 0 { all[k] } else { first })
    }
}

/// Checks that every address is a multiple of `bytes`.
#[inline(always)]
pub fn check_alignment(addresses: &[u64; LANES], bytes: u32) -> LaneResult {
    let mut low = 0;
    for a in addresses {
        low |= a;
    }
    if low & (bytes as u64 - 1) == 0 { Ok(()) } else { Err(misaligned(addresses, bytes)) }
}

#[cold]
fn misaligned(addresses: &[u64; LANES], bytes: u32) -> Box<LaneFault> {
    let lane = addresses.iter().position(|a| a % bytes as u64 != 0).unwrap_or(0);
    let detail = format!("address {:#x} is not aligned to the {bytes} bytes of the access", addresses[lane]);
    lane_fault(FaultKind::Misaligned, Some(lane as u32), detail)
}

/// Returns the offsets in a memory of `size` bytes that starts at address 0, after a check of the bounds.
#[inline(always)]
pub fn checked_offsets(what: &str, addresses: &[u64; LANES], size: u64, bytes: u32) -> LaneResult<Offsets> {
    let last = size.wrapping_sub(bytes as u64);
    let mut inside = size >= bytes as u64;
    for &a in addresses {
        inside &= a <= last;
    }
    if inside { Ok(row(|k| addresses[k] as usize)) } else { Err(out_of_bounds(what, addresses, size, bytes)) }
}

#[cold]
fn out_of_bounds(what: &str, addresses: &[u64; LANES], size: u64, bytes: u32) -> Box<LaneFault> {
    let beyond = |&a: &u64| a.checked_add(bytes as u64).is_none_or(|end| end > size);
    let lane = addresses.iter().position(beyond).unwrap_or(0);
    let detail =
        format!("an access of {bytes} bytes at {:#x} of {what}, which has {size} bytes", addresses[lane]);
    lane_fault(FaultKind::OutOfBounds, Some(lane as u32), detail)
}

impl<'g> BlockState<'g> {
    /// Returns the allocation that the first lane of `mask` points into, the offsets in it, and the lanes that point
    /// into it.
    #[inline(always)]
    pub fn allocation(
        &mut self,
        access: u32,
        addresses: &[u64; LANES],
        mask: u32,
        bytes: u32,
    ) -> LaneResult<(&'g Allocation, Offsets, u32)> {
        let live = &self.launch.snapshot.live;
        let hit = self.last_allocation[access as usize] as usize;
        if let Some(a) = live.get(hit)
            && a.size >= bytes as u64
        {
            let offsets: [u64; LANES] = row(|k| addresses[k].wrapping_sub(a.base));
            let last = a.size - bytes as u64;
            let mut inside = true;
            for &x in &offsets {
                inside &= x <= last;
            }
            if inside {
                return Ok((a, row(|k| offsets[k] as usize), mask));
            }
        }
        self.find_allocation(access, addresses, mask, bytes)
    }

    #[inline(never)]
    fn find_allocation(
        &mut self,
        access: u32,
        addresses: &[u64; LANES],
        mask: u32,
        bytes: u32,
    ) -> LaneResult<(&'g Allocation, Offsets, u32)> {
        let first = mask.trailing_zeros() as usize % LANES;
        let launch = self.launch;
        let Pointee::Live(index) = launch.snapshot.find(addresses[first]) else {
            return Err(self.outside_allocations(addresses[first], first, bytes));
        };
        let a = &launch.snapshot.live[index];
        self.last_allocation[access as usize] = index as u32;
        let inside = |&k: &usize| {
            addresses[k] >= a.base
                && addresses[k] - a.base <= a.size.wrapping_sub(bytes as u64)
                && a.size >= bytes as u64
        };
        let group = lanes(mask).filter(inside).fold(0u32, |m, k| m | 1 << k);
        if group >> first & 1 == 0 {
            return Err(self.outside_allocations(addresses[first], first, bytes));
        }
        let offsets = row(|k| {
            let k = if group >> k & 1 != 0 { k } else { first };
            (addresses[k] - a.base) as usize
        });
        Ok((a, offsets, group))
    }

    /// Describes the fault of an access that does not lie in an allocation.
    #[cold]
    fn outside_allocations(&self, address: u64, lane: usize, bytes: u32) -> Box<LaneFault> {
        let live = &self.launch.snapshot.live;
        let (kind, detail) = match self.launch.snapshot.find(address) {
            Pointee::Freed(base, size) => (
                FaultKind::UseAfterFree,
                format!(
                    "an access at {address:#x}, in the allocation {base:#x} of {size} bytes, which was freed"
                ),
            ),
            Pointee::Live(i) | Pointee::Nothing(Some(i))
                if address < live[i].base + live[i].size + (1 << 20) =>
            {
                let (base, size) = (live[i].base, live[i].size);
                let past = address - base;
                (
                    FaultKind::OutOfBounds,
                    format!(
                        "an access of {bytes} bytes at offset {past} of the allocation {base:#x}, which has \
                         {size} bytes"
                    ),
                )
            }
            _ => (
                FaultKind::OutOfBounds,
                format!("an access of {bytes} bytes at {address:#x}, which is not in any allocation"),
            ),
        };
        lane_fault(kind, Some(lane as u32), detail)
    }
}
