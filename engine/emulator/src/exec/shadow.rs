//! The shared memory of a block and its records: who touched what, and when.
//!
//! An access to a granule must find the last write, and a write the last reads too, in the past as the block's
//! [`Clock`] has it; otherwise the two race.
//!
//! A granule is as wide as the kernel's narrowest access to shared memory. Reads by several warps share one
//! record; where they are not ordered among themselves it keeps the earlier time, which can hide a race with
//! a later reader (with named barriers only) but never invents one.

use super::clock::Clock;
use super::grid::Grid;
use super::space::Offsets;
use super::warp::lanes;
use crate::fault::{Check, FaultKind, Trouble, trouble};

/// An asynchronous copy is under way.
const PENDING: u32 = 1 << 10;
/// Written by an asynchronous copy: other lanes of the same warp need a barrier too.
const ASYNC: u32 = 1 << 11;
/// Some bytes may be uninitialised; the taint words tell which.
const TAINTED: u32 = 1 << 12;
/// Written by an atomic or a strong store: others of that kind may follow unordered.
const STRONG: u32 = 1 << 13;
/// The store's number begins here.
const STORE: u32 = 14;

/// The last write of a granule.
#[derive(Clone, Copy)]
struct Write {
    time: u32,
    /// Warp in bits 0 to 4, lane in bits 5 to 9, flags, the store's number.
    meta: u32,
    pc: u32,
}

impl Write {
    fn warp(self) -> u32 {
        self.meta & 31
    }

    fn lane(self) -> u32 {
        self.meta >> 5 & 31
    }
}

/// The last reads of a granule: the warps, one bit each, and the lane if it was always the same.
#[derive(Clone, Copy, Default)]
struct Read {
    time: u32,
    warps: u32,
    pc: u32,
    lane: u32,
}

/// Of a [`Read`]: lanes of several numbers.
const SEVERAL: u32 = u32::MAX;

/// Who accesses.
#[derive(Clone, Copy)]
pub struct Who {
    pub warp: u32,
    pub pc: u32,
    /// Atomic, volatile or otherwise made to be concurrent.
    pub strong: bool,
}

/// An access of some lanes, all of the same size.
#[derive(Clone, Copy)]
pub struct Touch<'a> {
    pub who: Who,
    /// Of the allocation; 0 in shared memory.
    pub base: u64,
    pub at: &'a Offsets,
    pub bytes: u32,
    pub mask: u32,
}

impl Touch<'_> {
    /// What a lane touches, in granules of 2^`grain` bytes.
    #[inline(always)]
    pub fn granules(self, lane: usize, grain: u32) -> std::ops::Range<usize> {
        let first = (self.base as usize + self.at[lane]) >> grain;
        first..first + ((self.bytes >> grain) as usize).max(1)
    }
}

/// The shared memory of a block.
pub struct SharedMemory {
    pub words: Vec<u32>,
    /// All ones in uninitialised bytes.
    pub taint: Vec<u32>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    /// log2 of a granule's bytes.
    grain: u32,
    store: u32,
    /// Whether races are faults.
    checked: bool,
}

impl SharedMemory {
    pub fn new(grid: &Grid<'_>) -> SharedMemory {
        let (bytes, grain) = (grid.shared_bytes, grid.program.shared_grain);
        let words = (bytes as usize).div_ceil(4);
        let granules = (bytes as usize).div_ceil(grain as usize);
        SharedMemory {
            words: vec![u32::MAX; words],
            taint: vec![u32::MAX; words],
            writes: vec![Write { time: 0, meta: TAINTED, pc: 0 }; granules],
            reads: vec![Read::default(); granules],
            grain: grain.trailing_zeros(),
            store: 0,
            checked: grid.rules.ordering,
        }
    }

    /// The taint of a word: only granules marked so have any.
    pub fn taint_of(&self, word: usize) -> u32 {
        if self.taint[word] == 0 {
            return 0;
        }
        let marked = |byte: usize| {
            let g = (4 * word + byte) >> self.grain;
            self.writes.get(g).is_some_and(|w| w.meta & TAINTED != 0)
        };
        (0..4).filter(|&b| marked(b)).fold(0, |t, b| t | self.taint[word] & 0xff << (8 * b))
    }

    fn granules(&self, at: usize, bytes: u32) -> std::ops::Range<usize> {
        let first = at >> self.grain;
        first..first + ((bytes >> self.grain) as usize).max(1)
    }

    /// Records a read of `bytes` by each lane; true when some may be uninitialised.
    #[inline(always)]
    pub fn read(&mut self, clock: &Clock, touch: Touch<'_>) -> Check<bool> {
        let who = touch.who;
        let floor = clock.floor(who.warp);
        let mut tainted = 0;
        for k in lanes(touch.mask) {
            for g in touch.granules(k, self.grain) {
                let write = self.writes[g];
                tainted |= write.meta & TAINTED;
                if self.concerns(write, floor) {
                    self.after_write(clock, who, k as u32, g, "reads")?;
                }
                let read = self.reads[g];
                let bit = 1 << who.warp;
                let lane = k as u32;
                let known = read.time == clock.time() && read.warps & bit != 0;
                if !who.strong && !(known && (read.lane == lane || read.lane == SEVERAL)) {
                    self.reads[g] = join(read, clock, who, lane);
                }
            }
        }
        Ok(tainted != 0)
    }

    /// Whether a write needs a closer look: it is under way, or not long past.
    #[inline(always)]
    fn concerns(&self, write: Write, floor: u32) -> bool {
        write.time > floor || write.meta & PENDING != 0
    }

    /// Checks that the last write of a granule lies in the past of an access.
    fn after_write(&self, clock: &Clock, who: Who, lane: u32, g: usize, does: &str) -> Check {
        let write = self.writes[g];
        let at = g << self.grain;
        if write.meta & PENDING != 0 && self.checked {
            let detail =
                format!("{does} shared memory at {at:#x} while a copy to it is under way, not waited for");
            return Err(trouble(FaultKind::AsyncCopy, Some(lane), detail).also_at(write.pc));
        }
        let other = write.warp();
        let copied = write.meta & ASYNC != 0;
        let own = other == who.warp;
        if !self.checked || own && write.lane() == lane || write.meta & STRONG != 0 && who.strong {
            return Ok(());
        }
        if write.time <= clock.known(who.warp, other) {
            return Ok(());
        }
        let (kind, what) = match (copied, own) {
            (true, _) => (
                FaultKind::AsyncCopy,
                "which another thread copied and waited for, but with no barrier since",
            ),
            (false, false) => (FaultKind::SharedRace, "which another warp wrote, with no barrier since"),
            (false, true) => (FaultKind::SharedRace, "which another lane wrote, with no __syncwarp since"),
        };
        let detail = format!("{does} shared memory at {at:#x}, {what}");
        Err(trouble(kind, Some(lane), detail).also_at(write.pc))
    }

    /// Checks that a write may happen: after the last write and the last reads.
    #[inline(always)]
    fn before_write(&self, clock: &Clock, who: Who, lane: u32, g: usize) -> Check {
        let floor = clock.floor(who.warp);
        let write = self.writes[g];
        if self.concerns(write, floor) {
            self.after_write(clock, who, lane, g, "writes")?;
        }
        let read = self.reads[g];
        if read.time > floor {
            self.after_reads(clock, who, lane, g)?;
        }
        Ok(())
    }

    fn after_reads(&self, clock: &Clock, who: Who, lane: u32, g: usize) -> Check {
        let read = self.reads[g];
        let harmless = |v: usize| {
            let own = v == who.warp as usize && read.lane == lane;
            !self.checked || own || clock.known(who.warp, v as u32) >= read.time
        };
        match lanes(read.warps).find(|&v| !harmless(v)) {
            None => Ok(()),
            Some(v) => {
                let reader = match v == who.warp as usize {
                    true => "another lane may still read: no __syncwarp since".to_owned(),
                    false => format!("warp {v} may still read: no barrier since"),
                };
                let detail = format!("writes shared memory at {:#x}, which {reader}", g << self.grain);
                Err(trouble(FaultKind::SharedRace, Some(lane), detail).also_at(read.pc))
            }
        }
    }

    /// Records a store of `bytes` by each lane. `same` tells whether two lanes store the same value.
    #[inline(always)]
    pub fn write(
        &mut self,
        clock: &mut Clock,
        touch: Touch<'_>,
        tainted: u32,
        same: impl Fn(usize, usize) -> bool,
    ) -> Check {
        let (who, store) = (touch.who, self.next_store(clock));
        for k in lanes(touch.mask) {
            let flags = if tainted >> k & 1 != 0 { TAINTED } else { 0 } | if who.strong { STRONG } else { 0 };
            let meta = who.warp | (k as u32) << 5 | flags | store << STORE;
            for g in touch.granules(k, self.grain) {
                let last = self.writes[g];
                match last.time == clock.time() && last.meta >> STORE == store {
                    false => self.before_write(clock, who, k as u32, g)?,
                    true if !self.checked || same(last.lane() as usize, k) => {}
                    true => return Err(self.two_lanes(g, last.lane(), k as u32)),
                }
                self.writes[g] = Write { time: clock.time(), meta, pc: who.pc };
            }
        }
        Ok(())
    }

    #[cold]
    fn two_lanes(&self, g: usize, first: u32, second: u32) -> Box<Trouble> {
        let at = g << self.grain;
        let detail = format!(
            "lanes {first} and {second} of one store write different values to shared memory at {at:#x}"
        );
        trouble(FaultKind::SharedRace, Some(second), detail)
    }

    /// A number no recent store has. When numbers begin anew, time advances, so that old ones cannot match.
    fn next_store(&mut self, clock: &mut Clock) -> u32 {
        self.store += 1;
        if self.store >> (32 - STORE) != 0 {
            self.store = 1;
            clock.advance();
        }
        self.store
    }

    /// Asynchronous copies begin: from now on nobody may touch their destinations.
    pub fn copy_begin(&mut self, clock: &Clock, touch: Touch<'_>) -> Check {
        let who = touch.who;
        for k in lanes(touch.mask) {
            for g in touch.granules(k, self.grain) {
                self.before_write(clock, who, k as u32, g)?;
                let meta = who.warp | (k as u32) << 5 | PENDING;
                self.writes[g] = Write { time: clock.time(), meta, pc: who.pc };
            }
        }
        Ok(())
    }

    /// Its thread has waited for it.
    pub fn copy_end(&mut self, clock: &Clock, warp: u32, lane: u32, at: usize, bytes: u32, tainted: bool) {
        for g in self.granules(at, bytes) {
            let flags = ASYNC | if tainted { TAINTED } else { 0 };
            let w = &mut self.writes[g];
            (w.time, w.meta) = (clock.time(), warp | lane << 5 | flags);
        }
    }
}

/// The record of reads with one more.
#[inline(always)]
fn join(read: Read, clock: &Clock, who: Who, lane: u32) -> Read {
    let bit = 1 << who.warp;
    let past = read.time <= clock.floor(who.warp)
        || read.time < clock.time()
            && lanes(read.warps).all(|v| clock.known(who.warp, v as u32) >= read.time);
    if past {
        return Read { time: clock.time(), warps: bit, pc: who.pc, lane };
    }
    let lane = if read.lane == lane { lane } else { SEVERAL };
    Read { warps: read.warps | bit, pc: who.pc, lane, ..read }
}
