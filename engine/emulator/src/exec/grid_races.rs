//! Racecheck between blocks: every memory instruction of every block logs the global addresses it touched;
//! the logs are compared when the launch has ended.

use super::address::Offsets;
use super::footprint::{AccessPattern, Footprint};
use super::launch::LaunchContext;
use super::warp::lanes;
use crate::fault::{Fault, FaultKind};
use crate::inst::{LANES, Opcode, Strength};

/// A set of addresses as half-open intervals.
#[derive(Clone, Debug, Default)]
struct IntervalSet {
    list: Vec<(u64, u64)>,
    /// Index of the interval extended last: a loop visits its intervals in the same order again and again.
    cursor: usize,
    merge_threshold: usize,
}

/// Number of intervals kept before they are sorted and merged.
const MERGE_THRESHOLD: usize = 1024;

impl IntervalSet {
    #[inline(always)]
    fn add(&mut self, start: u64, end: u64) {
        let n = self.list.len();
        let next = if self.cursor + 1 < n { self.cursor + 1 } else { 0 };
        for at in [self.cursor, next] {
            if let Some(interval) = self.list.get_mut(at)
                && start >= interval.0
                && start <= interval.1
            {
                interval.1 = interval.1.max(end);
                self.cursor = at;
                return;
            }
        }
        self.list.push((start, end));
        self.cursor = n;
        if n >= self.merge_threshold.max(MERGE_THRESHOLD) {
            self.merge();
            self.merge_threshold = 2 * self.list.len();
        }
    }

    /// Sorts the intervals and joins those that overlap or are adjacent.
    fn merge(&mut self) {
        self.list.sort_unstable();
        self.list.dedup_by(|next, kept| {
            let joins = next.0 <= kept.1;
            if joins {
                kept.1 = kept.1.max(next.1);
            }
            joins
        });
        self.cursor = 0;
    }
}

/// Global addresses that a block touched, by memory instruction.
#[derive(Debug)]
pub struct AccessLog {
    intervals: Vec<IntervalSet>,
}

impl AccessLog {
    /// Returns an empty log for `access_count` memory instructions. With 0 it records nothing: a single block needs no
    /// log.
    pub fn new(access_count: usize) -> AccessLog {
        AccessLog { intervals: vec![IntervalSet::default(); access_count] }
    }

    /// Records a request to the addresses `base` plus the lanes' offsets.
    #[inline(always)]
    pub fn add(&mut self, access: u32, base: u64, offsets: &Offsets, footprint: &Footprint) {
        let Some(intervals) = self.intervals.get_mut(access as usize) else { return };
        let (first, bytes) = (base + offsets[0] as u64, footprint.bytes);
        match footprint.pattern {
            AccessPattern::Contiguous => intervals.add(first, first + LANES as u64 * bytes as u64),
            AccessPattern::Uniform => intervals.add(first, first + bytes as u64),
            AccessPattern::Other => {
                let mut run: Option<(u64, u64)> = None;
                for k in lanes(footprint.mask) {
                    let start = base + offsets[k] as u64;
                    run = Some(match run {
                        Some((from, to)) if start >= from && start <= to => {
                            (from, to.max(start + bytes as u64))
                        }
                        other => {
                            if let Some((from, to)) = other {
                                intervals.add(from, to);
                            }
                            (start, start + bytes as u64)
                        }
                    });
                }
                if let Some((from, to)) = run {
                    intervals.add(from, to);
                }
            }
        }
    }
}

/// An address interval that an instruction of a block touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TouchedRange {
    start: u64,
    end: u64,
    block: u64,
    pc: u32,
}

/// Returns the race at the lowest address of a launch, if there is one.
pub fn find(launch: &LaunchContext<'_>, logs: Vec<(u64, AccessLog)>) -> Option<Fault> {
    let mut pcs = vec![0u32; launch.code.access_count];
    for (pc, inst) in launch.code.insts.iter().enumerate() {
        if inst.kind == crate::inst::InstructionKind::Memory {
            pcs[launch.code.access_index[pc] as usize] = pc as u32;
        }
    }
    let (mut writes, mut others) = (Vec::new(), Vec::new());
    for (block, log) in logs {
        for (access, mut intervals) in log.intervals.into_iter().enumerate() {
            intervals.merge();
            let pc = pcs[access];
            let plain_write =
                matches!(launch.code.insts[pc as usize].op, Opcode::Store(a) if a.strength == Strength::Weak);
            let list = if plain_write { &mut writes } else { &mut others };
            list.extend(intervals.list.into_iter().map(|(start, end)| TouchedRange {
                start,
                end,
                block,
                pc,
            }));
        }
    }
    writes.sort_unstable();
    let (a, b, what) = write_write(&writes).map(|(a, b)| (a, b, "written")).or_else(|| {
        // Within a block writes may overlap; ends that only grow make the search below a search.
        let mut max_end = 0;
        let furthest = |w: &TouchedRange| {
            max_end = max_end.max(w.end);
            max_end
        };
        let ends: Vec<u64> = writes.iter().map(furthest).collect();
        others.iter().find_map(|o| write_other(&writes, &ends, o).map(|w| (w, *o, "accessed")))
    })?;
    Some(fault(launch, a, b, what))
}

/// Returns two overlapping writes of different blocks. Each write, in order of address, is compared with the earlier
/// write that ends last, and with the one that ends last among the other blocks.
fn write_write(writes: &[TouchedRange]) -> Option<(TouchedRange, TouchedRange)> {
    let (mut far, mut other): (Option<TouchedRange>, Option<TouchedRange>) = (None, None);
    for &w in writes {
        if let Some(hit) = [far, other].into_iter().flatten().find(|r| r.block != w.block && r.end > w.start)
        {
            return Some((hit, w));
        }
        let further = |than: Option<TouchedRange>| than.is_none_or(|t| w.end > t.end);
        match far {
            Some(f) if f.block != w.block && further(far) => (far, other) = (Some(w), Some(f)),
            Some(f) if f.block != w.block => other = if further(other) { Some(w) } else { other },
            _ => far = if further(far) { Some(w) } else { far },
        }
    }
    None
}

fn write_other(writes: &[TouchedRange], ends: &[u64], o: &TouchedRange) -> Option<TouchedRange> {
    let first = ends.partition_point(|&end| end <= o.start);
    writes[first..]
        .iter()
        .take_while(|w| w.start < o.end)
        .find(|w| w.block != o.block && w.end > o.start)
        .copied()
}

fn fault(launch: &LaunchContext<'_>, a: TouchedRange, b: TouchedRange, what: &str) -> Fault {
    let (from, to) = (a.start.max(b.start), a.end.min(b.end));
    let [x, y, z] = launch.ctaid(a.block);
    let detail = format!(
        "{} bytes at {from:#x} are written by block ({x}, {y}, {z}) ({}) and {what} by this one, \
         which nothing orders: use atomics or two launches",
        to - from,
        launch.describe(a.pc),
    );
    Fault {
        kind: FaultKind::GlobalRace,
        kernel: launch.kernel.name().to_string(),
        ptx_line: launch.code.location(b.pc).ptx_line,
        cuda: launch.cuda(b.pc),
        block: launch.ctaid(b.block),
        thread: None,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(start: u64, end: u64, block: u64) -> TouchedRange {
        TouchedRange { start, end, block, pc: 0 }
    }

    #[test]
    fn spans_grow_and_merge() {
        let mut s = IntervalSet::default();
        for step in 0..3 {
            for row in 0..4 {
                let start = 1000 * row + 64 * step;
                s.add(start, start + 64);
            }
        }
        assert_eq!(s.list, [(0, 192), (1000, 1192), (2000, 2192), (3000, 3192)]);
        s.add(192, 1000);
        s.merge();
        assert_eq!(s.list, [(0, 1192), (2000, 2192), (3000, 3192)]);
    }

    #[test]
    fn writes_of_two_blocks_must_not_overlap() {
        assert!(write_write(&[touch(0, 8, 0), touch(8, 16, 1), touch(8, 12, 1)]).is_none());
        assert!(write_write(&[touch(0, 100, 0), touch(4, 8, 0), touch(99, 120, 1)]).is_some());
        assert!(write_write(&[touch(0, 100, 0), touch(100, 101, 1), touch(101, 102, 0)]).is_none());
        assert!(
            write_write(&[touch(0, 100, 0), touch(1, 2, 0), touch(100, 200, 1), touch(150, 160, 0)])
                .is_some()
        );
    }

    #[test]
    fn reads_must_not_overlap_another_block_s_writes() {
        let writes = [touch(0, 100, 0), touch(10, 20, 0), touch(200, 300, 1)];
        let ends = [100, 100, 300];
        assert!(write_other(&writes, &ends, &touch(50, 60, 0)).is_none());
        assert!(write_other(&writes, &ends, &touch(50, 60, 1)).is_some());
        assert!(write_other(&writes, &ends, &touch(100, 200, 2)).is_none());
        assert!(write_other(&writes, &ends, &touch(250, 260, 1)).is_none());
    }
}
