//! The footprint of a warp's request to memory: the addresses its lanes share, and its cost in sectors (global) or wavefronts
//! (shared). A memory instruction makes nearly always the same request, moved as a whole: [`Footprints`] remembers them.

use super::address::{Addresses, Offsets};
use super::registers::row;
use super::warp::lanes;
use crate::inst::{FULL, LANES};
use std::ops::Index;

/// Bytes of a sector of global memory, and bytes that all 32 banks of shared memory deliver at once.
const SECTOR: usize = 32;
const BANK_ROW: usize = 128;

/// Pattern of the lanes' addresses. The first two, by far the most frequent, need no list of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPattern {
    /// Consecutive addresses without gaps, all lanes active.
    Contiguous,
    /// One address in all active lanes.
    Uniform,
    Other,
}

/// An address of a request, by the first lane that has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u8);

impl Place {
    /// The first lane with this address.
    #[inline(always)]
    pub fn lane(self) -> usize {
        (self.0 & 31) as usize
    }

    /// The lane that accesses this address; [`SEVERAL`] when more than one does.
    #[inline(always)]
    pub fn accessor(self) -> u32 {
        if self.0 & SEVERAL as u8 != 0 { SEVERAL } else { self.0 as u32 }
    }
}

/// Stands for a lane where several have accessed the same address.
pub const SEVERAL: u32 = 32;

/// What the addresses of a request have in common with those of every request that is the same one, moved.
#[derive(Clone, Debug)]
pub struct Footprint {
    pub bytes: u32,
    pub mask: u32,
    pub pattern: AccessPattern,
    /// Sectors that a request to global memory touches, and the minimum for the same number of distinct bytes.
    pub sectors: (u64, u64),
    /// Wavefronts that a request to shared memory takes, and the minimum.
    pub wavefronts: (u64, u64),
    /// Distances of the lanes' addresses from the first lane's, and that one's place in a sector.
    distances: Addresses,
    phase: u64,
    /// All bits of the distances, the lowest one and the highest.
    bits: u64,
    extremes: (i64, i64),
    places: [Place; LANES],
    count: usize,
}

impl Footprint {
    fn new(addresses: &Addresses, bytes: u32, mask: u32) -> Footprint {
        // What counts is the same wherever the first sector lies, so let it be where no distance leads below zero.
        let distances = distances(addresses);
        let signed = distances.map(|d| d as i64);
        let (low, high) = signed.iter().fold((0, 0), |(low, high), &d| (d.min(low), d.max(high)));
        let phase = addresses[0] % SECTOR as u64;
        let start = phase.wrapping_add(low as u64) % BANK_ROW as u64;
        let offsets = &row(|k| start.wrapping_add(signed[k].wrapping_sub(low) as u64) as usize);
        let pattern = AccessPattern::of(offsets, bytes, mask);
        let mut places = [Place::default(); LANES];
        let mut count = 0;
        for k in lanes(mask) {
            match places[..count].iter_mut().find(|p| offsets[p.lane()] == offsets[k]) {
                Some(place) => place.0 |= SEVERAL as u8,
                None => {
                    places[count] = Place(k as u8);
                    count += 1;
                }
            }
        }
        Footprint {
            bytes,
            mask,
            pattern,
            sectors: pattern.sectors(offsets, bytes, mask),
            wavefronts: pattern.wavefronts(offsets, bytes, mask),
            distances,
            phase,
            bits: distances.iter().fold(0, |bits, d| bits | d),
            extremes: (low, high),
            places,
            count,
        }
    }

    /// Returns true if this is the footprint of a request.
    #[inline(always)]
    fn fits(&self, addresses: &Addresses, bytes: u32, mask: u32) -> bool {
        let mut difference = (self.phase ^ addresses[0]) % SECTOR as u64;
        for k in 0..LANES {
            difference |= addresses[k].wrapping_sub(addresses[0]) ^ self.distances[k];
        }
        difference == 0 && self.bytes == bytes && self.mask == mask
    }

    /// Returns true if all addresses are multiples of the request's size when the first lane's is `first`.
    #[inline(always)]
    pub fn is_aligned(&self, first: u64) -> bool {
        (self.bits | first) & (self.bytes as u64 - 1) == 0
    }

    /// Returns true if all lanes stay in a memory of `size` bytes when the first one accesses the byte `first` of it.
    #[inline(always)]
    pub fn stays_in(&self, first: u64, size: u64) -> bool {
        let end = |distance: i64| (first as i64).checked_add(distance).filter(|_| first < size);
        let (low, high) = self.extremes;
        end(low).is_some_and(|low| low >= 0)
            && end(high).is_some_and(|high| high as u64 + self.bytes as u64 <= size)
    }

    /// The request's different addresses, in the order of their first lanes. As all are multiples of the request's size,
    /// what they lead to does not overlap.
    #[inline(always)]
    pub fn places(&self) -> &[Place] {
        &self.places[..self.count]
    }

    /// Returns true if no two active lanes have the same address.
    #[inline(always)]
    pub fn is_distinct(&self) -> bool {
        self.count == self.mask.count_ones() as usize
    }

    /// Returns the bytes that the active lanes move.
    #[inline(always)]
    pub fn moved(&self) -> u64 {
        self.mask.count_ones() as u64 * self.bytes as u64
    }

    /// Returns two active lanes with the same address and different values; `same(a, b)` compares the values.
    #[inline(always)]
    pub fn conflicting_lanes(
        &self,
        offsets: &Offsets,
        same: impl Fn(usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        if self.is_distinct() {
            return None;
        }
        let mut order: Vec<usize> = lanes(self.mask).collect();
        order.sort_by_key(|&k| offsets[k]);
        order.windows(2).map(|w| (w[0], w[1])).find(|&(a, b)| offsets[a] == offsets[b] && !same(a, b))
    }
}

#[inline(always)]
fn distances(addresses: &Addresses) -> Addresses {
    row(|k| addresses[k].wrapping_sub(addresses[0]))
}

/// The footprints of the last requests, found by what they are made from.
#[derive(Debug)]
pub struct Footprints {
    known: Box<[Footprint; KEPT]>,
    /// Indices of the last two footprints of each memory instruction: a copy has one on either side.
    last: Vec<[u8; 2]>,
}

/// Number of footprints that are kept: as many as there are numbers for them.
const KEPT: usize = 1 << u8::BITS;

/// The number of a footprint, good until the next one is asked for.
#[derive(Clone, Copy, Debug)]
pub struct FootprintId(u8);

impl Footprints {
    /// Returns the memory of `access_count` memory instructions.
    pub fn new(access_count: usize) -> Footprints {
        let none = Footprint::new(&[0; LANES], 1, 1);
        Footprints {
            known: Box::new(std::array::from_fn(|_| none.clone())),
            last: vec![[0; 2]; access_count],
        }
    }

    /// Returns the footprint of a request by memory instruction `access`; the addresses may be relative to any memory
    /// that begins with a sector. Inactive lanes repeat an active one.
    #[inline(always)]
    pub fn of(&mut self, access: u32, addresses: &Addresses, bytes: u32, mask: u32) -> FootprintId {
        let [last, other] = self.last[access as usize].map(FootprintId);
        if self[last].fits(addresses, bytes, mask) {
            last
        } else if self[other].fits(addresses, bytes, mask) {
            other
        } else {
            self.find(access, addresses, bytes, mask)
        }
    }

    /// Returns the index of the footprint, which takes the place of another when it is new.
    #[inline(always)]
    fn find(&mut self, access: u32, addresses: &Addresses, bytes: u32, mask: u32) -> FootprintId {
        let mut hash =
            (mask ^ bytes << 24 ^ (addresses[0] as u32 % SECTOR as u32) << 16).wrapping_mul(0x85eb_ca6b);
        for k in 0..LANES {
            let distance = addresses[k].wrapping_sub(addresses[0]) as u32;
            hash = hash.wrapping_add(distance.wrapping_mul(0x9e37_79b9u32.wrapping_mul(2 * k as u32 + 1)));
        }
        let id = FootprintId((hash.wrapping_mul(0x9e37_79b9) >> 24) as u8);
        if !self[id].fits(addresses, bytes, mask) {
            self.replace(id, addresses, bytes, mask);
        }
        let last = &mut self.last[access as usize];
        *last = [id.0, last[0]];
        id
    }

    #[inline(never)]
    fn replace(&mut self, id: FootprintId, addresses: &Addresses, bytes: u32, mask: u32) {
        self.known[id.0 as usize] = Footprint::new(addresses, bytes, mask);
    }
}

impl Index<FootprintId> for Footprints {
    type Output = Footprint;

    #[inline(always)]
    fn index(&self, id: FootprintId) -> &Footprint {
        &self.known[id.0 as usize]
    }
}

impl AccessPattern {
    fn of(offsets: &Offsets, bytes: u32, mask: u32) -> AccessPattern {
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
    fn sectors(self, offsets: &Offsets, bytes: u32, mask: u32) -> (u64, u64) {
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
    fn wavefronts(self, offsets: &Offsets, bytes: u32, mask: u32) -> (u64, u64) {
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
}

/// Returns the largest number of different words that the lanes access in one bank.
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

    fn of(offsets: &Addresses, bytes: u32, mask: u32) -> ((u64, u64), (u64, u64)) {
        let f = Footprint::new(offsets, bytes, mask);
        (f.sectors, f.wavefronts)
    }

    #[test]
    fn contiguous_requests_cost_the_least() {
        assert_eq!(of(&from_fn(|k| 4 * k as u64), 4, FULL), ((4, 4), (1, 1)));
        assert_eq!(of(&from_fn(|k| 16 * k as u64), 16, FULL), ((16, 16), (4, 4)));
        assert_eq!(of(&from_fn(|k| 4 + 4 * k as u64), 4, FULL), ((5, 4), (1, 1)));
        assert_eq!(of(&[64; LANES], 4, FULL), ((1, 1), (1, 1)));
    }

    #[test]
    fn strides_cost_sectors_and_passes() {
        assert_eq!(of(&from_fn(|k| 8 * k as u64), 4, FULL), ((8, 4), (2, 1)));
        assert_eq!(of(&from_fn(|k| 128 * k as u64), 4, FULL), ((32, 4), (32, 1)));
        assert_eq!(of(&from_fn(|k| 132 * k as u64), 4, FULL), ((32, 4), (1, 1)));
        // Rows of 64 bytes: lanes of a quarter warp meet in the same banks two by two, four times.
        assert_eq!(of(&from_fn(|k| 64 * k as u64), 16, FULL).1, (16, 4));
        // A swizzle of the row number into the column removes the conflicts.
        assert_eq!(of(&from_fn(|k| (128 * k + 16 * (k % 8)) as u64), 16, FULL).1, (4, 4));
        // Two lanes of one word do not conflict.
        assert_eq!(of(&from_fn(|k| 2 * k as u64), 2, FULL).1, (1, 1));
        assert_eq!(of(&from_fn(|k| if k < 4 { 4 * k as u64 } else { 0 }), 4, 15).1, (1, 1));
    }

    #[test]
    fn clashes_are_found_among_equal_addresses_only() {
        let offsets: Offsets = from_fn(|k| 4 * (k ^ 1));
        let p = Footprint::new(&offsets.map(|x| x as u64), 4, FULL);
        assert_eq!(p.conflicting_lanes(&offsets, |_, _| false), None);
        let offsets: Offsets = from_fn(|k| 4 * (k % 16));
        let p = Footprint::new(&offsets.map(|x| x as u64), 4, FULL);
        assert_eq!(p.conflicting_lanes(&offsets, |a, b| a % 16 == b % 16), None);
        assert_eq!(p.conflicting_lanes(&offsets, |_, _| false), Some((0, 16)));
        let half = Footprint::new(&offsets.map(|x| x as u64), 4, 0xffff);
        assert_eq!(half.conflicting_lanes(&offsets, |_, _| false), None);
    }
}
