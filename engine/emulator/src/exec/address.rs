//! Memcheck: the addresses of a request, the memory they point into, alignment and bounds.

use super::footprint::{Footprint, FootprintId};
use super::registers::row;
use super::thread_block::BlockState;
use super::warp::{Warp, lanes};
use crate::fault::{FaultKind, LaneFault, LaneResult, lane_fault};
use crate::inst::{FULL, LANES, RegisterClass, RegisterSlot};
use crate::memory::{Allocation, Pointee};

/// The addresses of a request's lanes. Inactive lanes repeat an active one, so that loops need not look at the mask.
pub type Addresses = [u64; LANES];

/// Byte offsets of a request's lanes in the memory they point into.
pub type Offsets = [usize; LANES];

impl<'g> Warp<'g> {
    /// Returns the addresses `base + offset`; inactive lanes repeat the first active one.
    #[inline(always)]
    pub fn addresses(&self, base: RegisterSlot, offset: i64, mask: u32) -> Addresses {
        let all: Addresses = match base.class() {
            RegisterClass::B64 => {
                let base = self.registers.b64(base);
                row(|k| base[k].wrapping_add(offset as u64))
            }
            _ => {
                let base = self.registers.b32(base);
                row(|k| base[k].wrapping_add(offset as u32) as u64)
            }
        };
        if mask == FULL { all } else { repeated(&all, mask) }
    }
}

/// Returns the addresses of `mask`, the first one repeated in the other lanes.
#[inline(always)]
fn repeated(addresses: &Addresses, mask: u32) -> Addresses {
    let first = addresses[mask.trailing_zeros() as usize % LANES];
    row(|k| if mask >> k & 1 != 0 { addresses[k] } else { first })
}

/// Checks that every address is a multiple of the request's size.
#[inline(always)]
pub fn check_alignment(addresses: &Addresses, footprint: &Footprint) -> LaneResult {
    if footprint.is_aligned(addresses[0]) { Ok(()) } else { Err(misaligned(addresses, footprint.bytes)) }
}

#[cold]
fn misaligned(addresses: &Addresses, bytes: u32) -> Box<LaneFault> {
    let lane = addresses.iter().position(|a| a % bytes as u64 != 0).unwrap_or(0);
    let detail = format!("address {:#x} is not aligned to the {bytes} bytes of the access", addresses[lane]);
    lane_fault(FaultKind::Misaligned, Some(lane as u32), detail)
}

/// Returns the offsets in a memory of `size` bytes that starts at address 0, after a check of the bounds.
#[inline(always)]
pub fn checked_offsets(
    what: &str,
    addresses: &Addresses,
    footprint: &Footprint,
    size: u64,
) -> LaneResult<Offsets> {
    match footprint.stays_in(addresses[0], size) {
        true => Ok(row(|k| addresses[k] as usize)),
        false => Err(out_of_bounds(what, addresses, size, footprint.bytes)),
    }
}

#[cold]
fn out_of_bounds(what: &str, addresses: &Addresses, size: u64, bytes: u32) -> Box<LaneFault> {
    let beyond = |&a: &u64| a.checked_add(bytes as u64).is_none_or(|end| end > size);
    let lane = addresses.iter().position(beyond).unwrap_or(0);
    let detail =
        format!("an access of {bytes} bytes at {:#x} of {what}, which has {size} bytes", addresses[lane]);
    lane_fault(FaultKind::OutOfBounds, Some(lane as u32), detail)
}

/// A request to global memory, which is served allocation by allocation.
pub struct GlobalRequest<'a> {
    /// Number of the instruction among those that access memory.
    pub access: u32,
    pub addresses: &'a Addresses,
    /// The footprint of all lanes at first, then of those in the allocation found last.
    pub footprint: FootprintId,
    /// Lanes that are not yet served.
    pub remaining: u32,
}

impl<'g> BlockState<'g> {
    /// Serves the first lane that remains and those in the same allocation: returns it, and their offsets in it.
    #[inline(always)]
    pub fn next_allocation(
        &mut self,
        q: &mut GlobalRequest<'_>,
    ) -> LaneResult<Option<(&'g Allocation, Offsets)>> {
        if q.remaining == 0 {
            return Ok(None);
        }
        let footprint = &self.footprints[q.footprint];
        let hit = self.last_allocation[q.access as usize] as usize;
        if let Some(a) = self.launch.snapshot.live.get(hit)
            && footprint.mask == q.remaining
            && footprint.stays_in(q.addresses[0].wrapping_sub(a.base), a.size)
        {
            q.remaining = 0;
            return Ok(Some((a, row(|k| q.addresses[k].wrapping_sub(a.base) as usize))));
        }
        self.find_allocation(q).map(Some)
    }

    #[inline(never)]
    fn find_allocation(&mut self, q: &mut GlobalRequest<'_>) -> LaneResult<(&'g Allocation, Offsets)> {
        let (addresses, bytes) = (q.addresses, self.footprints[q.footprint].bytes);
        let first = q.remaining.trailing_zeros() as usize % LANES;
        let launch = self.launch;
        let Pointee::Live(index) = launch.snapshot.find(addresses[first]) else {
            return Err(self.outside_allocations(addresses[first], first, bytes));
        };
        let a = &launch.snapshot.live[index];
        self.last_allocation[q.access as usize] = index as u32;
        let inside = |&k: &usize| {
            addresses[k] >= a.base
                && addresses[k] - a.base <= a.size.wrapping_sub(bytes as u64)
                && a.size >= bytes as u64
        };
        let group = lanes(q.remaining).filter(inside).fold(0u32, |m, k| m | 1 << k);
        if group >> first & 1 == 0 {
            return Err(self.outside_allocations(addresses[first], first, bytes));
        }
        let addresses = repeated(addresses, group);
        q.footprint = self.footprints.of(q.access, &addresses, bytes, group);
        q.remaining &= !group;
        Ok((a, row(|k| (addresses[k] - a.base) as usize)))
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
