//! Addresses of a request: which memory they point into, whether they may.

use super::block::Shared;
use super::registers::row;
use super::warp::{Warp, lanes};
use crate::fault::{Check, FaultKind, Trouble, trouble};
use crate::inst::{Class, LANES, Slot};
use crate::memory::{Allocation, Pointee};

/// Byte offsets of a request's lanes in the memory they point into. Masked lanes repeat an active one, so
/// that loops need not look at the mask.
pub type Offsets = [usize; LANES];

impl<'g> Warp<'g> {
    /// The addresses of `base + offset`; masked lanes repeat the first active one.
    #[inline(always)]
    pub fn addresses(&self, base: Slot, offset: i64, mask: u32) -> [u64; LANES] {
        let all: [u64; LANES] = match base.class() {
            Class::Double => {
                let base = self.registers.double(base);
                row(|k| base[k].wrapping_add(offset as u64))
            }
            _ => {
                let base = self.registers.word(base);
                row(|k| base[k].wrapping_add(offset as u32) as u64)
            }
        };
        let first = all[mask.trailing_zeros() as usize % LANES];
        row(|k| if mask >> k & 1 != 0 { all[k] } else { first })
    }
}

/// An error unless every address is a multiple of `bytes`.
#[inline(always)]
pub fn aligned(addresses: &[u64; LANES], bytes: u32) -> Check {
    let mut low = 0;
    for a in addresses {
        low |= a;
    }
    if low & (bytes as u64 - 1) == 0 { Ok(()) } else { Err(misaligned(addresses, bytes)) }
}

#[cold]
fn misaligned(addresses: &[u64; LANES], bytes: u32) -> Box<Trouble> {
    let lane = addresses.iter().position(|a| a % bytes as u64 != 0).unwrap_or(0);
    let detail = format!("address {:#x} is not a multiple of {bytes}", addresses[lane]);
    trouble(FaultKind::Misaligned, Some(lane as u32), detail)
}

/// Offsets in a memory of `size` bytes that starts at 0.
#[inline(always)]
pub fn offsets(what: &str, addresses: &[u64; LANES], size: u64, bytes: u32) -> Check<Offsets> {
    let last = size.wrapping_sub(bytes as u64);
    let mut inside = size >= bytes as u64;
    for &a in addresses {
        inside &= a <= last;
    }
    if inside { Ok(row(|k| addresses[k] as usize)) } else { Err(outside(what, addresses, size, bytes)) }
}

#[cold]
fn outside(what: &str, addresses: &[u64; LANES], size: u64, bytes: u32) -> Box<Trouble> {
    let beyond = |&a: &u64| a.checked_add(bytes as u64).is_none_or(|end| end > size);
    let lane = addresses.iter().position(beyond).unwrap_or(0);
    let detail = format!("{bytes} bytes at {:#x} of {what}, which has {size}", addresses[lane]);
    trouble(FaultKind::OutOfBounds, Some(lane as u32), detail)
}

impl<'g> Shared<'g> {
    /// The allocation that the first lane of `mask` points into, and which lanes point into it too.
    #[inline(always)]
    pub fn allocation(
        &mut self,
        pc: u32,
        addresses: &[u64; LANES],
        mask: u32,
        bytes: u32,
    ) -> Check<(&'g Allocation, Offsets, u32)> {
        let live = &self.grid.snapshot.live;
        let access = self.grid.program.access_of[pc as usize];
        let hit = self.hits[access as usize] as usize;
        if let Some(a) = live.get(hit)
            && a.size >= bytes as u64
        {
            let at: [u64; LANES] = row(|k| addresses[k].wrapping_sub(a.base));
            let last = a.size - bytes as u64;
            let mut inside = true;
            for &x in &at {
                inside &= x <= last;
            }
            if inside {
                return Ok((a, row(|k| at[k] as usize), mask));
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
    ) -> Check<(&'g Allocation, Offsets, u32)> {
        let first = mask.trailing_zeros() as usize % LANES;
        let grid = self.grid;
        let Pointee::Live(index) = grid.snapshot.find(addresses[first]) else {
            return Err(self.lost(addresses[first], first, bytes));
        };
        let a = &grid.snapshot.live[index];
        self.hits[access as usize] = index as u32;
        let inside = |&k: &usize| {
            addresses[k] >= a.base
                && addresses[k] - a.base <= a.size.wrapping_sub(bytes as u64)
                && a.size >= bytes as u64
        };
        let here = lanes(mask).filter(inside).fold(0u32, |m, k| m | 1 << k);
        if here >> first & 1 == 0 {
            return Err(self.lost(addresses[first], first, bytes));
        }
        let at = row(|k| {
            let k = if here >> k & 1 != 0 { k } else { first };
            (addresses[k] - a.base) as usize
        });
        Ok((a, at, here))
    }

    /// What is wrong with an address that does not lie in an allocation.
    #[cold]
    fn lost(&self, address: u64, lane: usize, bytes: u32) -> Box<Trouble> {
        let live = &self.grid.snapshot.live;
        let (kind, detail) = match self.grid.snapshot.find(address) {
            Pointee::Freed(base, size) => (
                FaultKind::UseAfterFree,
                format!("{address:#x} lies in {base:#x} of {size} bytes, which was freed"),
            ),
            Pointee::Live(i) | Pointee::Nothing(Some(i))
                if address < live[i].base + live[i].size + (1 << 20) =>
            {
                let (base, size) = (live[i].base, live[i].size);
                let past = address - base;
                (
                    FaultKind::OutOfBounds,
                    format!("{bytes} bytes at offset {past} of the allocation {base:#x}, which has {size}"),
                )
            }
            _ => (FaultKind::OutOfBounds, format!("{address:#x} is not in any allocation")),
        };
        trouble(kind, Some(lane as u32), detail)
    }
}
