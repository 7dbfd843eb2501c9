//! The shape of a request: how its lanes' addresses lie, and what that costs.

use super::space::Offsets;
use super::warp::lanes;
use crate::inst::{FULL, LANES};

/// Bytes of a sector of global memory, and of a row of shared memory's banks.
const SECTOR: usize = 32;
const BANKS: usize = 128;

/// How the lanes' addresses lie. The first two, by far the most frequent, need no closer look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Lane after lane, without gaps, all lanes active.
    Contiguous,
    /// All active lanes at one address.
    Uniform,
    Other,
}

impl Pattern {
    #[inline(always)]
    pub fn of(at: &Offsets, bytes: u32, mask: u32) -> Pattern {
        // Masked lanes repeat an active one.
        let (mut contiguous, mut uniform) = (mask == FULL, true);
        for k in 0..LANES {
            let distance = at[k].wrapping_sub(at[0]);
            contiguous &= distance == k * bytes as usize;
            uniform &= distance == 0;
        }
        match (contiguous, uniform) {
            (true, _) => Pattern::Contiguous,
            (_, true) => Pattern::Uniform,
            _ => Pattern::Other,
        }
    }

    /// Sectors that a request to global memory touches, and the least for as many different bytes.
    #[inline(always)]
    pub fn sectors(self, at: &Offsets, bytes: u32, mask: u32) -> (u64, u64) {
        let bytes = bytes as usize;
        match self {
            Pattern::Uniform => (1, 1),
            Pattern::Contiguous => {
                let end = at[0] + LANES * bytes;
                ((end.div_ceil(SECTOR) - at[0] / SECTOR) as u64, (LANES * bytes).div_ceil(SECTOR) as u64)
            }
            Pattern::Other => {
                let mut sorted = [0; LANES];
                let mut n = 0;
                for k in lanes(mask) {
                    sorted[n] = at[k];
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

    /// Passes that a request to shared memory takes, and the least: a pass serves 32 banks of 4 bytes, for
    /// accesses of 8 and 16 bytes half and a quarter of the warp at a time.
    #[inline(always)]
    pub fn passes(self, at: &Offsets, bytes: u32, mask: u32) -> (u64, u64) {
        let unit = (bytes as usize).max(4);
        let group = BANKS / unit;
        let served = |g: usize| FULL >> (LANES - group) << (g * group) & mask;
        let mut least = 0;
        for g in 0..LANES / group {
            least += (served(g) != 0) as u64;
        }
        if self != Pattern::Other {
            return (least, least);
        }
        let mut passes = 0;
        for g in 0..LANES / group {
            let mut first = [usize::MAX; LANES];
            let mut conflict = false;
            for k in lanes(served(g)) {
                let id = at[k] / unit;
                let seen = &mut first[id % group];
                conflict |= *seen != id && *seen != usize::MAX;
                *seen = id;
            }
            passes += if conflict { crowded(at, unit, served(g)) } else { (served(g) != 0) as u64 };
        }
        (passes, least)
    }

    /// Two active lanes at one address whose values differ, as `same` tells.
    #[inline(always)]
    pub fn clash(
        self,
        at: &Offsets,
        mask: u32,
        same: impl Fn(usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        if self == Pattern::Contiguous || mask.count_ones() < 2 {
            return None;
        }
        let mut order = [0usize; LANES];
        let mut n = 0;
        for k in lanes(mask) {
            order[n] = k;
            n += 1;
        }
        let order = &mut order[..n];
        if order.windows(2).all(|w| at[w[0]] < at[w[1]]) {
            return None;
        }
        order.sort_by_key(|&k| at[k]);
        order.windows(2).map(|w| (w[0], w[1])).find(|&(a, b)| at[a] == at[b] && !same(a, b))
    }
}

/// Different addresses in the most crowded bank.
#[cold]
fn crowded(at: &Offsets, unit: usize, mask: u32) -> u64 {
    let mut ids: Vec<usize> = lanes(mask).map(|k| at[k] / unit).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut banks = [0; LANES];
    ids.iter().for_each(|id| banks[id % (BANKS / unit)] += 1);
    banks.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array::from_fn;

    fn of(at: &Offsets, bytes: u32, mask: u32) -> ((u64, u64), (u64, u64)) {
        let p = Pattern::of(at, bytes, mask);
        (p.sectors(at, bytes, mask), p.passes(at, bytes, mask))
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
        let at: Offsets = from_fn(|k| 4 * (k ^ 1));
        let p = Pattern::of(&at, 4, FULL);
        assert_eq!(p.clash(&at, FULL, |_, _| false), None);
        let at: Offsets = from_fn(|k| 4 * (k % 16));
        let p = Pattern::of(&at, 4, FULL);
        assert_eq!(p.clash(&at, FULL, |a, b| a % 16 == b % 16), None);
        assert_eq!(p.clash(&at, FULL, |_, _| false), Some((0, 16)));
        assert_eq!(p.clash(&at, 0xffff, |_, _| false), None);
    }
}
