//! The shared memory of a block and its shadow memory, which records the last write and the last reads of every
//! granule.
//!
//! Racecheck: the last write of a granule must happen before every later access, and the last reads before every later
//! write, in the order of the block's [`VectorClock`]; otherwise the two accesses race.
//!
//! A granule is as wide as the kernel's narrowest access to shared memory. Reads by several warps share one
//! record; where they are not ordered among themselves it keeps the earlier time, which can hide a race with
//! a later reader (with named barriers only) but never invents one.

use super::address::Offsets;
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

/// The last write of a granule.
#[derive(Clone, Copy)]
struct LastWrite {
    time: u32,
    /// Warp in bits 0 to 4, lane in bits 5 to 9, flags, then the store's sequence number.
    meta: u32,
    pc: u32,
}

impl LastWrite {
    fn warp(self) -> u32 {
        self.meta & 31
    }

    fn lane(self) -> u32 {
        self.meta >> 5 & 31
    }
}

/// The last reads of a granule: the warps, one bit each, and the lane if all reads had the same lane number.
#[derive(Clone, Copy, Default)]
struct LastReads {
    time: u32,
    warps: u32,
    pc: u32,
    lane: u32,
}

/// [`LastReads::lane`] after reads with different lane numbers.
const SEVERAL: u32 = u32::MAX;

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
    pub bytes: u32,
    pub mask: u32,
}

impl WarpAccess<'_> {
    /// Granules of 2^`granule_log2` bytes that a lane touches.
    #[inline(always)]
    pub fn granules(self, lane: usize, granule_log2: u32) -> std::ops::Range<usize> {
        let first = (self.base as usize + self.offsets[lane]) >> granule_log2;
        first..first + ((self.bytes >> granule_log2) as usize).max(1)
    }
}

/// The shared memory of a block.
pub struct SharedMemory {
    pub words: Vec<u32>,
    /// Ones in the bits of uninitialised bytes.
    pub taint: Vec<u32>,
    writes: Vec<LastWrite>,
    reads: Vec<LastReads>,
    /// log2 of a granule's bytes.
    granule_log2: u32,
    sequence: u32,
    /// True where races are faults.
    checked: bool,
}

impl SharedMemory {
    pub fn new(launch: &LaunchContext<'_>) -> SharedMemory {
        let (bytes, granule_log2) = (launch.shared_bytes, launch.code.shared_granule);
        let words = (bytes as usize).div_ceil(4);
        let granules = (bytes as usize).div_ceil(granule_log2 as usize);
        SharedMemory {
            words: vec![u32::MAX; words],
            taint: vec![u32::MAX; words],
            writes: vec![LastWrite { time: 0, meta: TAINTED, pc: 0 }; granules],
            reads: vec![LastReads::default(); granules],
            granule_log2: granule_log2.trailing_zeros(),
            sequence: 0,
            checked: launch.options.racecheck,
        }
    }

    /// Returns the taint of a word. Only granules with the flag [`TAINTED`] have any.
    pub fn taint_of(&self, word: usize) -> u32 {
        if self.taint[word] == 0 {
            return 0;
        }
        let marked = |byte: usize| {
            let g = (4 * word + byte) >> self.granule_log2;
            self.writes.get(g).is_some_and(|w| w.meta & TAINTED != 0)
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
        let accessor = access.accessor;
        let floor = clock.floor(accessor.warp);
        let mut tainted = 0;
        for k in lanes(access.mask) {
            for g in access.granules(k, self.granule_log2) {
                let write = self.writes[g];
                tainted |= write.meta & TAINTED;
                if self.must_check(write, floor) {
                    self.check_last_write(clock, accessor, k as u32, g, "reads")?;
                }
                let read = self.reads[g];
                let bit = 1 << accessor.warp;
                let lane = k as u32;
                let known = read.time == clock.time() && read.warps & bit != 0;
                if !accessor.strong && !(known && (read.lane == lane || read.lane == SEVERAL)) {
                    self.reads[g] = with_read(read, clock, accessor, lane);
                }
            }
        }
        Ok(tainted != 0)
    }

    /// Returns true for a write that must be checked: it is under way, or not yet known to every lane of the warp.
    #[inline(always)]
    fn must_check(&self, write: LastWrite, floor: u32) -> bool {
        write.time > floor || write.meta & PENDING != 0
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
        let write = self.writes[g];
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
        let write = self.writes[g];
        if self.must_check(write, floor) {
            self.check_last_write(clock, accessor, lane, g, "writes")?;
        }
        let read = self.reads[g];
        if read.time > floor {
            self.check_last_reads(clock, accessor, lane, g)?;
        }
        Ok(())
    }

    fn check_last_reads(&self, clock: &VectorClock, accessor: Accessor, lane: u32, g: usize) -> LaneResult {
        let read = self.reads[g];
        let harmless = |v: usize| {
            let own = v == accessor.warp as usize && read.lane == lane;
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
                Err(lane_fault(FaultKind::SharedRace, Some(lane), detail).with_related("read", read.pc))
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
        let (accessor, sequence) = (access.accessor, self.next_sequence(clock));
        for k in lanes(access.mask) {
            let flags =
                if tainted >> k & 1 != 0 { TAINTED } else { 0 } | if accessor.strong { STRONG } else { 0 };
            let meta = accessor.warp | (k as u32) << 5 | flags | sequence << SEQUENCE_SHIFT;
            for g in access.granules(k, self.granule_log2) {
                let last = self.writes[g];
                match last.time == clock.time() && last.meta >> SEQUENCE_SHIFT == sequence {
                    false => self.check_write(clock, accessor, k as u32, g)?,
                    true if !self.checked || same(last.lane() as usize, k) => {}
                    true => return Err(self.lanes_conflict(g, last.lane(), k as u32)),
                }
                self.writes[g] = LastWrite { time: clock.time(), meta, pc: accessor.pc };
            }
        }
        Ok(())
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
    pub fn copy_begin(&mut self, clock: &VectorClock, access: WarpAccess<'_>) -> LaneResult {
        let accessor = access.accessor;
        for k in lanes(access.mask) {
            for g in access.granules(k, self.granule_log2) {
                self.check_write(clock, accessor, k as u32, g)?;
                let meta = accessor.warp | (k as u32) << 5 | PENDING;
                self.writes[g] = LastWrite { time: clock.time(), meta, pc: accessor.pc };
            }
        }
        Ok(())
    }

    /// Marks the destination of a copy that its thread has waited for.
    pub fn copy_end(
        &mut self,
        clock: &VectorClock,
        warp: u32,
        lane: u32,
        at: usize,
        bytes: u32,
        tainted: bool,
    ) {
        for g in self.granules(at, bytes) {
            let flags = ASYNC | if tainted { TAINTED } else { 0 };
            let w = &mut self.writes[g];
            (w.time, w.meta) = (clock.time(), warp | lane << 5 | flags);
        }
    }
}

/// Returns the hazard of an access after a write, as racecheck names it; the access is "reads" or "writes".
pub fn hazard_after_write(access: &str) -> &'static str {
    if access == "reads" { "RAW" } else { "WAW" }
}

/// Returns the record of reads with one more read.
#[inline(always)]
fn with_read(read: LastReads, clock: &VectorClock, accessor: Accessor, lane: u32) -> LastReads {
    let bit = 1 << accessor.warp;
    let past = read.time <= clock.floor(accessor.warp)
        || read.time < clock.time()
            && lanes(read.warps).all(|v| clock.known(accessor.warp, v as u32) >= read.time);
    if past {
        return LastReads { time: clock.time(), warps: bit, pc: accessor.pc, lane };
    }
    let lane = if read.lane == lane { lane } else { SEVERAL };
    LastReads { warps: read.warps | bit, pc: accessor.pc, lane, ..read }
}
