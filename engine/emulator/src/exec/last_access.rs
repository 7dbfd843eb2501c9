//! The last write and the last reads of every granule of a memory, in columns: a request of a warp looks at many at once.

use super::footprint::SEVERAL;
use super::vector_clock::VectorClock;
use super::warp::lanes;
use std::ops::Range;

/// The last write of a granule.
#[derive(Clone, Copy)]
pub struct LastWrite {
    pub time: u32,
    /// Warp in bits 0 to 4, lane in bits 5 to 9, then what the memory says of it.
    pub meta: u32,
    pub pc: u32,
}

impl LastWrite {
    pub fn warp(self) -> u32 {
        self.meta & 31
    }

    pub fn lane(self) -> u32 {
        self.meta >> 5 & 31
    }
}

/// The last write of every granule.
pub struct LastWrites {
    time: Vec<u32>,
    meta: Vec<u32>,
    pc: Vec<u32>,
}

impl LastWrites {
    pub fn new(granules: usize) -> LastWrites {
        LastWrites { time: vec![0; granules], meta: vec![0; granules], pc: vec![0; granules] }
    }

    /// Forgets all writes: the last ones were at time 0, before any other.
    pub fn clear(&mut self, meta: u32) {
        self.time.fill(0);
        self.meta.fill(meta);
        self.pc.fill(0);
    }

    #[inline(always)]
    pub fn get(&self, g: usize) -> LastWrite {
        LastWrite { time: self.time[g], meta: self.meta[g], pc: self.pc[g] }
    }

    #[inline(always)]
    pub fn set(&mut self, granules: Range<usize>, write: LastWrite) {
        // Few granules: loops, where `fill` would call a function for each.
        let columns = [(&mut self.time, write.time), (&mut self.meta, write.meta), (&mut self.pc, write.pc)];
        for (column, value) in columns {
            for cell in &mut column[granules.clone()] {
                *cell = value;
            }
        }
    }

    /// Returns the bits set in the `meta` of any granule.
    pub fn any_meta(&self, granules: Range<usize>) -> u32 {
        self.meta.get(granules).unwrap_or_default().iter().fold(0, |all, meta| all | meta)
    }

    /// Raises `time` and adds to `meta`, column by column, what `N` granules from the `first` have.
    #[inline(always)]
    pub fn join<const N: usize>(&self, first: usize, time: &mut [u32; N], meta: &mut [u32; N]) {
        let (times, metas) = (&self.time[first..first + N], &self.meta[first..first + N]);
        for i in 0..N {
            time[i] = time[i].max(times[i]);
            meta[i] |= metas[i];
        }
    }
}

/// The last reads of a granule.
#[derive(Clone, Copy)]
pub struct LastRead {
    pub time: u32,
    /// The warps, one bit each.
    pub warps: u32,
    /// Lane in bits 0 to 5, [`SEVERAL`] if not all reads had the same lane number; then the instruction of the last one.
    origin: u32,
}

const LANE: u32 = 63;

impl LastRead {
    #[inline(always)]
    pub fn new(time: u32, warp: u32, pc: u32, lane: u32) -> LastRead {
        LastRead { time, warps: 1 << warp, origin: pc << LANE.count_ones() | lane }
    }

    #[inline(always)]
    pub fn lane(self) -> u32 {
        self.origin & LANE
    }

    pub fn pc(self) -> u32 {
        self.origin >> LANE.count_ones()
    }

    /// Returns true if all reads, of which some are later than its floor, happened before the next access of any lane of
    /// `warp`.
    #[inline(never)]
    pub fn is_past(self, clock: &VectorClock, warp: u32) -> bool {
        self.time < clock.time() && lanes(self.warps).all(|v| clock.known(warp, v as u32) >= self.time)
    }

    /// Returns the record with a `new` read added; with `past` the earlier ones happened before it.
    #[inline(always)]
    fn with(self, new: LastRead, past: bool) -> LastRead {
        let same_lane = self.lane() == new.lane();
        // Without branches: some granules may know the read, others not.
        let known =
            (self.time == new.time) & (self.warps & new.warps != 0) & (same_lane | (self.lane() == SEVERAL));
        let lane = if same_lane { self.lane() } else { SEVERAL };
        let joined = if known { self.origin } else { new.origin & !LANE | lane };
        LastRead {
            time: if past { new.time } else { self.time },
            warps: if past { new.warps } else { self.warps | new.warps },
            origin: if past { new.origin } else { joined },
        }
    }
}

/// The last reads of every granule. Reads by several warps share one record; where they are not ordered among themselves
/// it keeps the earlier time, which can hide a race with a later reader (with named barriers only) but never invents one.
pub struct LastReads {
    time: Vec<u32>,
    warps: Vec<u32>,
    origin: Vec<u32>,
}

impl LastReads {
    pub fn new(granules: usize) -> LastReads {
        LastReads { time: vec![0; granules], warps: vec![0; granules], origin: vec![0; granules] }
    }

    /// Forgets all reads.
    pub fn clear(&mut self) {
        for column in [&mut self.time, &mut self.warps, &mut self.origin] {
            column.fill(0);
        }
    }

    #[inline(always)]
    pub fn get(&self, g: usize) -> LastRead {
        LastRead { time: self.time[g], warps: self.warps[g], origin: self.origin[g] }
    }

    /// Raises `time`, column by column, to that of `N` granules from the `first`.
    #[inline(always)]
    pub fn latest<const N: usize>(&self, first: usize, time: &mut [u32; N]) {
        let times = &self.time[first..first + N];
        for i in 0..N {
            time[i] = time[i].max(times[i]);
        }
    }

    /// Notes in `between`, column by column, whether `N` granules from the `first` were read after time `floor` and not
    /// `now`.
    #[inline(always)]
    pub fn between<const N: usize>(&self, first: usize, floor: u32, now: u32, between: &mut [u32; N]) {
        let times = &self.time[first..first + N];
        for i in 0..N {
            between[i] |= ((times[i] > floor) & (times[i] != now)) as u32;
        }
    }

    /// Adds the read `new` to `N` granules from the `first`; `is_past` tells what happened before it.
    #[inline(always)]
    pub fn add<const N: usize>(&mut self, first: usize, new: LastRead, is_past: impl Fn(LastRead) -> bool) {
        // Read all, then write all: so that granules are served side by side.
        let mut time: [u32; N] = column(&self.time, first);
        let mut warps: [u32; N] = column(&self.warps, first);
        let mut origin: [u32; N] = column(&self.origin, first);
        for i in 0..N {
            let old = LastRead { time: time[i], warps: warps[i], origin: origin[i] };
            let joined = old.with(new, is_past(old));
            (time[i], warps[i], origin[i]) = (joined.time, joined.warps, joined.origin);
        }
        self.time[first..first + N].copy_from_slice(&time);
        self.warps[first..first + N].copy_from_slice(&warps);
        self.origin[first..first + N].copy_from_slice(&origin);
    }
}

/// Returns `N` numbers of a column from the `first`.
#[inline(always)]
fn column<const N: usize>(numbers: &[u32], first: usize) -> [u32; N] {
    let mut out = [0; N];
    out.copy_from_slice(&numbers[first..first + N]);
    out
}
