//! Data races between blocks: what each instruction of each block touched in global memory, compared when
//! the launch has ended.

use super::grid::Grid;
use super::pattern::Pattern;
use super::space::Offsets;
use super::warp::lanes;
use crate::fault::{Fault, FaultKind};
use crate::inst::{LANES, Op, Strength};

/// A set of addresses as half-open intervals.
#[derive(Clone, Debug, Default)]
struct Spans {
    list: Vec<(u64, u64)>,
    /// The interval last extended: loops come by in the same order again and again.
    cursor: usize,
    limit: usize,
}

/// Intervals kept before they are sorted and merged.
const LIMIT: usize = 1024;

impl Spans {
    #[inline(always)]
    fn add(&mut self, start: u64, end: u64) {
        let n = self.list.len();
        let next = if self.cursor + 1 < n { self.cursor + 1 } else { 0 };
        for at in [self.cursor, next] {
            if let Some(span) = self.list.get_mut(at)
                && start >= span.0
                && start <= span.1
            {
                span.1 = span.1.max(end);
                self.cursor = at;
                return;
            }
        }
        self.list.push((start, end));
        self.cursor = n;
        if n >= self.limit.max(LIMIT) {
            self.merge();
            self.limit = 2 * self.list.len();
        }
    }

    /// Sorts, and joins what overlaps or touches.
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

/// What a block touched, by memory instruction.
#[derive(Debug)]
pub struct Log {
    spans: Vec<Spans>,
}

impl Log {
    /// A log for a program with so many memory instructions; zero when the launch has a single block.
    pub fn new(accesses: usize) -> Log {
        Log { spans: vec![Spans::default(); accesses] }
    }

    /// Records a request at `base` plus the lanes' offsets.
    #[inline(always)]
    pub fn add(&mut self, access: u32, base: u64, at: &Offsets, bytes: u32, mask: u32, pattern: Pattern) {
        let Some(spans) = self.spans.get_mut(access as usize) else { return };
        let first = base + at[0] as u64;
        match pattern {
            Pattern::Contiguous => spans.add(first, first + LANES as u64 * bytes as u64),
            Pattern::Uniform => spans.add(first, first + bytes as u64),
            Pattern::Other => {
                let mut run: Option<(u64, u64)> = None;
                for k in lanes(mask) {
                    let start = base + at[k] as u64;
                    run = Some(match run {
                        Some((from, to)) if start >= from && start <= to => {
                            (from, to.max(start + bytes as u64))
                        }
                        other => {
                            if let Some((from, to)) = other {
                                spans.add(from, to);
                            }
                            (start, start + bytes as u64)
                        }
                    });
                }
                if let Some((from, to)) = run {
                    spans.add(from, to);
                }
            }
        }
    }
}

/// An interval that an instruction of a block touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Touch {
    start: u64,
    end: u64,
    block: u64,
    pc: u32,
}

/// The first race of a launch, in order of address.
pub fn find(grid: &Grid<'_>, logs: Vec<(u64, Log)>) -> Option<Fault> {
    let mut pcs = vec![0u32; grid.program.accesses];
    for (pc, inst) in grid.program.insts.iter().enumerate() {
        if inst.kind == crate::inst::Kind::Memory {
            pcs[grid.program.access_of[pc] as usize] = pc as u32;
        }
    }
    let (mut writes, mut others) = (Vec::new(), Vec::new());
    for (block, log) in logs {
        for (access, mut spans) in log.spans.into_iter().enumerate() {
            spans.merge();
            let pc = pcs[access];
            let plain_write =
                matches!(grid.program.insts[pc as usize].op, Op::Store(a) if a.strength == Strength::Plain);
            let list = if plain_write { &mut writes } else { &mut others };
            list.extend(spans.list.into_iter().map(|(start, end)| Touch { start, end, block, pc }));
        }
    }
    writes.sort_unstable();
    let (a, b, what) = write_write(&writes).map(|(a, b)| (a, b, "written")).or_else(|| {
        // Within a block writes may overlap; ends that only grow make the search below a search.
        let mut most = 0;
        let furthest = |w: &Touch| {
            most = most.max(w.end);
            most
        };
        let ends: Vec<u64> = writes.iter().map(furthest).collect();
        others.iter().find_map(|o| write_other(&writes, &ends, o).map(|w| (w, *o, "accessed")))
    })?;
    Some(fault(grid, a, b, what))
}

/// Two blocks' writes that overlap: each is held against the one before it that reaches furthest, and against
/// the one that reaches furthest among the other blocks.
fn write_write(writes: &[Touch]) -> Option<(Touch, Touch)> {
    let (mut far, mut other): (Option<Touch>, Option<Touch>) = (None, None);
    for &w in writes {
        if let Some(hit) = [far, other].into_iter().flatten().find(|r| r.block != w.block && r.end > w.start)
        {
            return Some((hit, w));
        }
        let further = |than: Option<Touch>| than.is_none_or(|t| w.end > t.end);
        match far {
            Some(f) if f.block != w.block && further(far) => (far, other) = (Some(w), Some(f)),
            Some(f) if f.block != w.block => other = if further(other) { Some(w) } else { other },
            _ => far = if further(far) { Some(w) } else { far },
        }
    }
    None
}

fn write_other(writes: &[Touch], ends: &[u64], o: &Touch) -> Option<Touch> {
    let first = ends.partition_point(|&end| end <= o.start);
    writes[first..]
        .iter()
        .take_while(|w| w.start < o.end)
        .find(|w| w.block != o.block && w.end > o.start)
        .copied()
}

fn fault(grid: &Grid<'_>, a: Touch, b: Touch, what: &str) -> Fault {
    let (from, to) = (a.start.max(b.start), a.end.min(b.end));
    let detail = format!(
        "{} bytes at {from:#x} written by block {:?} ({}) are {what} by this one in the same launch",
        to - from,
        grid.ctaid(a.block),
        grid.place(a.pc),
    );
    Fault {
        kind: FaultKind::GlobalRace,
        kernel: grid.kernel.name().to_string(),
        ptx_line: grid.program.origin(b.pc).ptx_line,
        cuda: grid.cuda(b.pc),
        block: grid.ctaid(b.block),
        thread: None,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(start: u64, end: u64, block: u64) -> Touch {
        Touch { start, end, block, pc: 0 }
    }

    #[test]
    fn spans_grow_and_merge() {
        let mut s = Spans::default();
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
