//! The access pattern of a warp's request to memory, and its cost in sectors (global) or wavefronts (shared).

use super::address::Offsets;
use super::warp::lanes;
use crate::inst::{FULL, LANES};

/// Bytes of a sector of global memory, and bytes that all 32 banks of shared memory deliver at once.
const SECTOR: usize = 32;
const BANK_ROW: usize = 128;

/// Pattern of the lanes' addresses. The first two, by far the most frequent, have a fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPattern {
    /// Consecutive addresses without gaps, all lanes active.
    Contiguous,
    /// One address in all active lanes.
    Uniform,
    Other,
}

impl AccessPattern {
    #[inline(always)]
    pub fn of(offsets: &Offsets, bytes: u32, mask: u32) -> AccessPattern {
        // Inactive lanes repeat an active one.
        let (mut contiguous, mut uniform) = (mask == FULL, true);
        for k in 0..LANES {
            let distance = offsets[k].wrapping_sub(offsets[0]);
            contiguous &= distance == k * bytes as usize;
            uniform &= distance == 0;
        }
        match (contiguous, uniform) {
            (true, _) => AccessPattern::Contiguous,
            (_, true) => AccessPattern::Uniform,
            _ => AccessPattern::Other,
        }
    }

    /// Returns the sectors that a request to global memory touches, and the minimum for the same number of distinct bytes.
    #[inline(always)]
    pub fn sectors(self, offsets: &Offsets, bytes: u32, mask: u32) -> (u64, u64) {
        let bytes = bytes as usize;
        match self {
            AccessPattern::Uniform => (1, 1),
            AccessPattern::Contiguous => {
                let end = offsets[0] + LANES * bytes;
                ((end.div_ceil(SECTOR) - offsets[0] / SECTOR) as u64, (LANES * bytes).div_ceil(SECTOR) as u64)
            }
            AccessPattern::Other => {
                let mut sorted = [0; LANES];
                let mut n = 0;
                for k in lanes(mask) {
                    sorted[n] = offsets[k];
                    n += 1;
                }
                let sorted = &mut sorted[..n];
                if !sorted.is_sorted() {
                    sorted.sort_unstable();
                }
                let distinct =
                    |f: fn(&usize) -> usize| 1 + sorted.windows(2).filter(|w| f(&w[0]) != f(&w[1])).count();
                let sectors = distinct(|a| a / SECTOR);
                (sectors as u64, (distinct(|&a| a) * bytes).div_ceil(SECTOR) as u64)
            }
        }
    }

    /// Returns the wavefronts that a request to shared memory takes, and the minimum. A wavefront serves 32 banks of
    /// 4 bytes; accesses of 8 and 16 bytes are served for half and a quarter of the warp at a time.
    #[inline(always)]
    pub fn wavefronts(self, offsets: &Offsets, bytes: u32, mask: u32) -> (u64, u64) {
        let unit = (bytes as usize).max(4);
        let group = BANK_ROW / unit;
        let active_in = |g: usize| FULL >> (LANES - group) << (g * group) & mask;
        let mut ideal = 0;
        for g in 0..LANES / group {
            ideal += (active_in(g) != 0) as u64;
        }
        if self != AccessPattern::Other {
            return (ideal, ideal);
        }
        let mut wavefronts = 0;
        for g in 0..LANES / group {
            let mut first = [usize::MAX; LANES];
            let mut conflict = false;
            for k in lanes(active_in(g)) {
                let id = offsets[k] / unit;
                let seen = &mut first[id % group];
                conflict |= *seen != id && *seen != usize::MAX;
                *seen = id;
            }
            wavefronts += if conflict {
                bank_conflict_degree(offsets, unit, active_in(g))
            } else {
                (active_in(g) != 0) as u64
            };
        }
        (wavefronts, ideal)
    }

    /// Returns two active lanes with the same address and different values; `same(a, b)` compares the values.
    #[inline(always)]
    pub fn conflicting_lanes(
        self,
        offsets: &Offsets,
        mask: u32,
        same: impl Fn(usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        if self == AccessPattern::Contiguous || mask.count_ones() < 2 {
            return None;
        }
        let mut order = [0usize; LANES];
        let mut n = 0;
        for k in lanes(mask) {
            order[n] = k;
            n += 1;
        }
        let order = &mut order[..n];
        if order.windows(2).all(|w| offsets[w[0]] < offsets[w[1]]) {
            return None;
        }
        order.sort_by_key(|&k| offsets[k]);
        order.windows(2).map(|w| (w[0], w[1])).find(|&(a, b)| offsets[a] == offsets[b] && !same(a, b))
    }
}

/// Returns the largest number of different words that the lanes access in one bank.
#[cold]
fn bank_conflict_degree(offsets: &Offsets, unit: usize, mask: u32) -> u64 {
    let mut ids: Vec<usize> = lanes(mask).map(|k| offsets[k] / unit).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut banks = [0; LANES];
    ids.iter().for_each(|id| banks[id % (BANK_ROW / unit)] += 1);
    banks.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array::from_fn;

    fn of(offsets: &Offsets, bytes: u32, mask: u32) -> ((u64, u64), (u64, u64)) {
        let p = AccessPattern::of(offsets, bytes, mask);
        (p.sectors(offsets, bytes, mask), p.wavefronts(offsets, bytes, mask))
    }

    #[test]
    fn contiguous_requests_cost_the_least() {
        assert_eq!(of(&from_fn(|k| 4 * k), 4, FULL), ((4, 4), (1, 1)));
        assert_eq!(of(&from_fn(|k| 16 * k), 16, FULL), ((16, 16), (4, 4)));
        assert_eq!(of(&from_fn(|k| 4 + 4 * k), 4, FULL), ((5, 4), (1, 1)));
        assert_eq!(of(&[64; LANES], 4, FULL), ((1, 1), (1, 1)));
    }

    #[test]
    fn strides_cost_sectors_and_passes() {
        assert_eq!(of(&from_fn(|k| 8 * k), 4, FULL), ((8, 4), (2, 1)));
        assert_eq!(of(&from_fn(|k| 128 * k), 4, FULL), ((32, 4), (32, 1)));
        assert_eq!(of(&from_fn(|k| 132 * k), 4, FULL), ((32, 4), (1, 1)));
        // Rows of 64 bytes: lanes of a quarter warp meet in the same banks two by two, four times.
        assert_eq!(of(&from_fn(|k| 64 * k), 16, FULL).1, (16, 4));
        // A swizzle of the row number into the column removes the conflicts.
        assert_eq!(of(&from_fn(|k| 128 * k + 16 * (k % 8)), 16, FULL).1, (4, 4));
        // Two lanes of one word do not conflict.
        assert_eq!(of(&from_fn(|k| 2 * k), 2, FULL).1, (1, 1));
        assert_eq!(of(&from_fn(|k| if k < 4 { 4 * k } else { 0 }), 4, 15).1, (1, 1));
    }

    #[test]
    fn clashes_are_found_among_equal_addresses_only() {
        let offsets: Offsets = from_fn(|k| 4 * (k ^ 1));
        let p = AccessPattern::of(&offsets, 4, FULL);
        assert_eq!(p.conflicting_lanes(&offsets, FULL, |_, _| false), None);
        let offsets: Offsets = from_fn(|k| 4 * (k % 16));
        let p = AccessPattern::of(&offsets, 4, FULL);
        assert_eq!(p.conflicting_lanes(&offsets, FULL, |a, b| a % 16 == b % 16), None);
        assert_eq!(p.conflicting_lanes(&offsets, FULL, |_, _| false), Some((0, 16)));
        assert_eq!(p.conflicting_lanes(&offsets, 0xffff, |_, _| false), None);
    }
}
