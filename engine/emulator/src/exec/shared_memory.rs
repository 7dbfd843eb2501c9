//! The shared memory of a block and its shadow memory, which records the last write and the last reads of every
//! granule.
//!
//! Racecheck: the last write of a granule must happen before every later access, and the last reads before every later
//! write, in the order of the block's [`VectorClock`]; otherwise the two accesses race.
//!
//! A granule is as wide as the kernel's narrowest access to shared memory. Most requests meet granules whose accesses are
//! all known to have happened before: that is seen for a whole request at once, and lanes are looked at one by one only
//! where it is not so.

use super::address::Offsets;
use super::footprint::{Footprint, Place};
use super::last_access::{LastRead, LastReads, LastWrite, LastWrites};
use super::launch::LaunchContext;
use super::vector_clock::VectorClock;
use super::warp::lanes;
use crate::fault::{FaultKind, LaneFault, LaneResult, lane_fault};

/// Flag: an asynchronous copy to the granule is under way.
const PENDING: u32 = 1 << 10;
/// Flag: written by an asynchronous copy, so that even other lanes of the same warp need a barrier.
const ASYNC: u32 = 1 << 11;
/// Flag: some bytes may be uninitialised; see the taint words.
const TAINTED: u32 = 1 << 12;
/// Flag: written by a strong operation (an atomic, a volatile store), which other strong ones may follow unordered.
const STRONG: u32 = 1 << 13;
/// Lowest bit of the sequence number of the store.
const SEQUENCE_SHIFT: u32 = 14;

/// The warp and the instruction that access memory.
#[derive(Clone, Copy)]
pub struct Accessor {
    pub warp: u32,
    pub pc: u32,
    /// A strong operation of the PTX memory model: atomic, volatile, relaxed, acquire or release.
    pub strong: bool,
}

/// A memory access of some lanes of a warp, all of the same size.
#[derive(Clone, Copy)]
pub struct WarpAccess<'a> {
    pub accessor: Accessor,
    /// Address of the allocation; 0 in shared memory.
    pub base: u64,
    pub offsets: &'a Offsets,
    pub footprint: &'a Footprint,
}

impl WarpAccess<'_> {
    /// Granules of 2^`granule_log2` bytes that a lane touches.
    #[inline(always)]
    pub fn granules(self, lane: usize, granule_log2: u32) -> std::ops::Range<usize> {
        let first = (self.base as usize + self.offsets[lane]) >> granule_log2;
        first..first + ((self.footprint.bytes >> granule_log2) as usize).max(1)
    }
}

/// The shared memory of a block.
pub struct SharedMemory {
    pub words: Vec<u32>,
    /// Ones in the bits of uninitialised bytes.
    pub taint: Vec<u32>,
    writes: LastWrites,
    reads: LastReads,
    /// log2 of a granule's bytes.
    granule_log2: u32,
    sequence: u32,
    /// True where races are faults.
    checked: bool,
}

impl SharedMemory {
    /// Returns the memory of a block, to be cleared before use.
    pub fn new(launch: &LaunchContext<'_>) -> SharedMemory {
        let (bytes, granule_log2) = (launch.shared_bytes, launch.code.shared_granule);
        let words = (bytes as usize).div_ceil(4);
        let granules = (bytes as usize).div_ceil(granule_log2 as usize);
        SharedMemory {
            words: vec![0; words],
            taint: vec![0; words],
            writes: LastWrites::new(granules),
            reads: LastReads::new(granules),
            granule_log2: granule_log2.trailing_zeros(),
            sequence: 0,
            checked: launch.options.racecheck,
        }
    }

    /// Makes all of it uninitialised and never accessed, as a block finds it.
    pub fn clear(&mut self) {
        self.words.fill(u32::MAX);
        self.taint.fill(u32::MAX);
        self.writes.clear(TAINTED);
        self.reads.clear();
        self.sequence = 0;
    }

    /// Returns the taint of a word. Only granules with the flag [`TAINTED`] have any.
    pub fn taint_of(&self, word: usize) -> u32 {
        if self.taint[word] == 0 {
            return 0;
        }
        let marked = |byte: usize| {
            let g = (4 * word + byte) >> self.granule_log2;
            self.writes.any_meta(g..g + 1) & TAINTED != 0
        };
        (0..4).filter(|&b| marked(b)).fold(0, |t, b| t | self.taint[word] & 0xff << (8 * b))
    }

    fn granules(&self, at: usize, bytes: u32) -> std::ops::Range<usize> {
        let first = at >> self.granule_log2;
        first..first + ((bytes >> self.granule_log2) as usize).max(1)
    }

    /// Checks and records a read by each lane. Returns true when some bytes may be uninitialised.
    #[inline(always)]
    pub fn read(&mut self, clock: &VectorClock, access: WarpAccess<'_>) -> LaneResult<bool> {
        match access.footprint.bytes >> self.granule_log2 {
            0 | 1 => self.read_granules::<1>(clock, access),
            2 => self.read_granules::<2>(clock, access),
            4 => self.read_granules::<4>(clock, access),
            8 => self.read_granules::<8>(clock, access),
            16 => self.read_granules::<16>(clock, access),
            _ => self.read_granules::<32>(clock, access),
        }
    }

    /// Reads `N` granules in each lane.
    #[inline(always)]
    fn read_granules<const N: usize>(
        &mut self,
        clock: &VectorClock,
        access: WarpAccess<'_>,
    ) -> LaneResult<bool> {
        let WarpAccess { accessor, offsets, footprint, .. } = access;
        let first = |place: Place| offsets[place.lane()] >> self.granule_log2;
        let (now, floor) = (clock.time(), clock.floor(accessor.warp));
        let (mut time, mut meta, mut between) = ([0; N], [0; N], [0; N]);
        for &place in footprint.places() {
            self.writes.join(first(place), &mut time, &mut meta);
            self.reads.between(first(place), floor, now, &mut between);
        }
        let last = (most(&time), all_bits(&meta));
        if self.must_check(last, floor) {
            self.check_last_writes(clock, access)?;
        }
        if accessor.strong {
            return Ok(last.1 & TAINTED != 0);
        }
        let past = |old: LastRead| old.time <= floor;
        // Mostly all reads before are past or of this time: then nothing has to be asked one by one.
        let plain = all_bits(&between) == 0;
        for &place in footprint.places() {
            let new = LastRead::new(now, accessor.warp, accessor.pc, place.accessor());
            match plain {
                true => self.reads.add::<N>(first(place), new, past),
                false => self
                    .reads
                    .add::<N>(first(place), new, |old| past(old) || old.is_past(clock, accessor.warp)),
            }
        }
        Ok(last.1 & TAINTED != 0)
    }

    /// Checks that the last write of every granule happened before a read.
    #[inline(never)]
    fn check_last_writes(&self, clock: &VectorClock, access: WarpAccess<'_>) -> LaneResult {
        let accessor = access.accessor;
        for k in lanes(access.footprint.mask) {
            for g in access.granules(k, self.granule_log2) {
                let write = self.writes.get(g);
                if self.must_check((write.time, write.meta), clock.floor(accessor.warp)) {
                    self.check_last_write(clock, accessor, k as u32, g, "reads")?;
                }
            }
        }
        Ok(())
    }

    /// Returns true for a write that must be checked, by its time and `meta`: it is under way, or not yet known to every
    /// lane of the warp.
    #[inline(always)]
    fn must_check(&self, (time, meta): (u32, u32), floor: u32) -> bool {
        time > floor || meta & PENDING != 0
    }

    /// Checks that the last write of a granule happened before an access.
    fn check_last_write(
        &self,
        clock: &VectorClock,
        accessor: Accessor,
        lane: u32,
        g: usize,
        does: &str,
    ) -> LaneResult {
        let write = self.writes.get(g);
        let at = g << self.granule_log2;
        if write.meta & PENDING != 0 && self.checked {
            let detail = format!(
                "{does} shared memory at {at:#x} while an asynchronous copy to it is under way, not waited for"
            );
            return Err(lane_fault(FaultKind::AsyncCopy, Some(lane), detail).with_related("copied", write.pc));
        }
        let other = write.warp();
        let copied = write.meta & ASYNC != 0;
        let own = other == accessor.warp;
        if !self.checked || own && write.lane() == lane || write.meta & STRONG != 0 && accessor.strong {
            return Ok(());
        }
        if write.time <= clock.known(accessor.warp, other) {
            return Ok(());
        }
        let (kind, what) = match (copied, own) {
            (true, _) => {
                (FaultKind::AsyncCopy, "which another thread copied and waited for, with no barrier since")
            }
            (false, false) => (FaultKind::SharedRace, "which another warp wrote, with no barrier since"),
            (false, true) => (FaultKind::SharedRace, "which another lane wrote, with no __syncwarp since"),
        };
        let detail = format!("{} hazard: {does} shared memory at {at:#x}, {what}", hazard_after_write(does));
        Err(lane_fault(kind, Some(lane), detail)
            .with_related(if copied { "copied" } else { "written" }, write.pc))
    }

    /// Checks that the last write and the last reads of a granule happened before a write.
    #[inline(always)]
    fn check_write(&self, clock: &VectorClock, accessor: Accessor, lane: u32, g: usize) -> LaneResult {
        let floor = clock.floor(accessor.warp);
        let write = self.writes.get(g);
        if self.must_check((write.time, write.meta), floor) {
            self.check_last_write(clock, accessor, lane, g, "writes")?;
        }
        let read = self.reads.get(g);
        if read.time > floor {
            self.check_last_reads(clock, accessor, lane, g)?;
        }
        Ok(())
    }

    fn check_last_reads(&self, clock: &VectorClock, accessor: Accessor, lane: u32, g: usize) -> LaneResult {
        let read = self.reads.get(g);
        let harmless = |v: usize| {
            let own = v == accessor.warp as usize && read.lane() == lane;
            !self.checked || own || clock.known(accessor.warp, v as u32) >= read.time
        };
        match lanes(read.warps).find(|&v| !harmless(v)) {
            None => Ok(()),
            Some(v) => {
                let reader = match v == accessor.warp as usize {
                    true => "another lane may still read: no __syncwarp since".to_owned(),
                    false => format!("warp {v} may still read: no barrier since"),
                };
                let detail = format!(
                    "WAR hazard: writes shared memory at {:#x}, which {reader}",
                    g << self.granule_log2
                );
                Err(lane_fault(FaultKind::SharedRace, Some(lane), detail).with_related("read", read.pc()))
            }
        }
    }

    /// Checks and records a store by each lane. `same(a, b)` is true when lanes a and b store the same value.
    #[inline(always)]
    pub fn write(
        &mut self,
        clock: &mut VectorClock,
        access: WarpAccess<'_>,
        tainted: u32,
        same: impl Fn(usize, usize) -> bool,
    ) -> LaneResult {
        let accessor = access.accessor;
        let flags = |k: usize| {
            (if tainted >> k & 1 != 0 { TAINTED } else { 0 }) | if accessor.strong { STRONG } else { 0 }
        };
        if self.mark(clock, access, flags) {
            return Ok(());
        }
        let sequence = self.next_sequence(clock);
        for k in lanes(access.footprint.mask) {
            let meta = accessor.warp | (k as u32) << 5 | flags(k) | sequence << SEQUENCE_SHIFT;
            for g in access.granules(k, self.granule_log2) {
                let last = self.writes.get(g);
                match last.time == clock.time() && last.meta >> SEQUENCE_SHIFT == sequence {
                    false => self.check_write(clock, accessor, k as u32, g)?,
                    true if !self.checked || same(last.lane() as usize, k) => {}
                    true => return Err(self.lanes_conflict(g, last.lane(), k as u32)),
                }
                self.writes.set(g..g + 1, LastWrite { time: clock.time(), meta, pc: accessor.pc });
            }
        }
        Ok(())
    }

    /// Records a store by each lane with the flags of that lane, if every lane has granules of its own and all earlier
    /// accesses to them are known to have happened before. Returns false if not.
    #[inline(always)]
    fn mark(&mut self, clock: &VectorClock, access: WarpAccess<'_>, flags: impl Fn(usize) -> u32) -> bool {
        match access.footprint.bytes >> self.granule_log2 {
            0 | 1 => self.mark_granules::<1>(clock, access, flags),
            2 => self.mark_granules::<2>(clock, access, flags),
            4 => self.mark_granules::<4>(clock, access, flags),
            8 => self.mark_granules::<8>(clock, access, flags),
            16 => self.mark_granules::<16>(clock, access, flags),
            _ => self.mark_granules::<32>(clock, access, flags),
        }
    }

    #[inline(always)]
    fn mark_granules<const N: usize>(
        &mut self,
        clock: &VectorClock,
        access: WarpAccess<'_>,
        flags: impl Fn(usize) -> u32,
    ) -> bool {
        let WarpAccess { accessor, offsets, footprint, .. } = access;
        let first = |place: Place| offsets[place.lane()] >> self.granule_log2;
        let (mut time, mut meta, mut read) = ([0; N], [0; N], [0; N]);
        for &place in footprint.places() {
            self.writes.join(first(place), &mut time, &mut meta);
            self.reads.latest(first(place), &mut read);
        }
        let floor = clock.floor(accessor.warp);
        let last = (most(&time), all_bits(&meta));
        if !footprint.is_distinct() || self.must_check(last, floor) || most(&read) > floor {
            return false;
        }
        for &place in footprint.places() {
            let lane = place.lane();
            let meta = accessor.warp | (lane as u32) << 5 | flags(lane);
            let granules = first(place)..first(place) + N;
            self.writes.set(granules, LastWrite { time: clock.time(), meta, pc: accessor.pc });
        }
        true
    }

    #[cold]
    fn lanes_conflict(&self, g: usize, first: u32, second: u32) -> Box<LaneFault> {
        let at = g << self.granule_log2;
        let detail = format!(
            "WAW hazard: lanes {first} and {second} of one store write different values to shared memory at {at:#x}"
        );
        lane_fault(FaultKind::SharedRace, Some(second), detail)
    }

    /// Returns a sequence number that no store of the current time has. When the numbers wrap around, time advances.
    fn next_sequence(&mut self, clock: &mut VectorClock) -> u32 {
        self.sequence += 1;
        if self.sequence >> (32 - SEQUENCE_SHIFT) != 0 {
            self.sequence = 1;
            clock.advance();
        }
        self.sequence
    }

    /// Marks the destinations of asynchronous copies: no access is allowed until the copies are waited for.
    #[inline(always)]
    pub fn copy_begin(&mut self, clock: &VectorClock, access: WarpAccess<'_>) -> LaneResult {
        if self.mark(clock, access, |_| PENDING) {
            return Ok(());
        }
        let accessor = access.accessor;
        for k in lanes(access.footprint.mask) {
            for g in access.granules(k, self.granule_log2) {
                self.check_write(clock, accessor, k as u32, g)?;
                let meta = accessor.warp | (k as u32) << 5 | PENDING;
                self.writes.set(g..g + 1, LastWrite { time: clock.time(), meta, pc: accessor.pc });
            }
        }
        Ok(())
    }

    /// Marks the destinations `to` of copies that their threads, the lanes of `mask`, have waited for.
    #[inline(always)]
    pub fn copy_end(
        &mut self,
        clock: &VectorClock,
        Accessor { warp, pc, .. }: Accessor,
        to: &Offsets,
        bytes: u32,
        mask: u32,
        tainted: u32,
    ) {
        for k in lanes(mask) {
            let flags = ASYNC | if tainted >> k & 1 != 0 { TAINTED } else { 0 };
            let write = LastWrite { time: clock.time(), meta: warp | (k as u32) << 5 | flags, pc };
            self.writes.set(self.granules(to[k], bytes), write);
        }
    }
}

#[inline(always)]
fn most<const N: usize>(numbers: &[u32; N]) -> u32 {
    numbers.iter().fold(0, |most, &x| most.max(x))
}

#[inline(always)]
fn all_bits<const N: usize>(numbers: &[u32; N]) -> u32 {
    numbers.iter().fold(0, |all, &x| all | x)
}

/// Returns the hazard of an access after a write, as racecheck names it; the access is "reads" or "writes".
pub fn hazard_after_write(access: &str) -> &'static str {
    if access == "reads" { "RAW" } else { "WAW" }
}
