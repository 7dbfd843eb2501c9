//! Block barriers: who waits, who has arrived, when they are let go.

use super::block::Shared;
use super::clock::Clock;
use super::warp::{Stop, Warp, lanes};
use crate::fault::{Check, FaultKind, trouble};
use crate::inst::{FULL, Inst, LANES, Op, Reduce, Slot};

/// Barriers of a block.
const COUNT: usize = 16;

/// A warp's wait at a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub id: u32,
    /// Of `bar.red`: operation, destination, and this warp's predicate.
    reduce: Option<(Reduce, Slot, u32)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Barrier {
    /// Warps expected; 0 while nobody has come.
    expected: u32,
    /// Warps that have come, bit by bit: those that wait, and those that only arrived.
    waiting: u32,
    arrived: u32,
}

/// The barriers of a block.
#[derive(Debug)]
pub struct Barriers {
    all: [Barrier; COUNT],
    warps: u32,
}

impl Barriers {
    pub fn new(warps: u32) -> Barriers {
        Barriers { all: Default::default(), warps }
    }

    /// Lets the warps of complete barriers go on.
    pub fn release(&mut self, clock: &mut Clock, warps: &mut [Warp<'_>]) {
        for (id, b) in self.all.iter_mut().enumerate() {
            if b.expected == 0 || b.waiting.count_ones() + b.arrived.count_ones() < b.expected {
                continue;
            }
            clock.barrier(id as u32, b.waiting);
            let votes =
                lanes(b.waiting).filter_map(|w| warps[w].waiting?.reduce.map(|r| (r.2, warps[w].all)));
            let (mut count, mut all) = (0, 0);
            votes.for_each(|(p, lanes)| {
                count += (p & lanes).count_ones();
                all += lanes.count_ones();
            });
            for w in lanes(b.waiting) {
                let warp = &mut warps[w];
                if let Some(Wait { reduce: Some((op, d, _)), .. }) = warp.waiting.take() {
                    let truth = |t: bool| if t { FULL } else { 0 };
                    match op {
                        Reduce::Popc => warp.registers.set_word(d, &[count; LANES], warp.all),
                        Reduce::And => warp.registers.set_predicate(d, truth(count == all), warp.all),
                        _ => warp.registers.set_predicate(d, truth(count > 0), warp.all),
                    }
                }
            }
            *b = Barrier::default();
        }
    }
}

impl<'g> Warp<'g> {
    /// `bar.sync`, `bar.arrive`, `bar.red`.
    pub fn barrier(&mut self, shared: &mut Shared<'g>, i: &Inst, mask: u32) -> Check<Option<Stop>> {
        if mask == 0 {
            self.now.pc += 1;
            return Ok(None);
        }
        self.require_all(mask, "a barrier")?;
        for s in i.src {
            self.require_known(s, mask, "an operand of a barrier")?;
        }
        if let Ok(at) = shared.grid.program.live.binary_search_by_key(&self.now.pc, |l| l.0) {
            self.drop_taint(&shared.grid.program.live[at].1);
        }
        let uniform = |s: Slot| {
            let what = "a barrier's id and count must be the same in all lanes";
            self.registers.uniform(s, mask).ok_or_else(|| trouble(FaultKind::Invalid, None, what))
        };
        let id = uniform(i.src[0])?;
        let threads = match i.src[1].is_none() {
            true => shared.barriers.warps * LANES as u32,
            false => uniform(i.src[1])?,
        };
        let expected = threads / LANES as u32;
        if id as usize >= COUNT
            || threads % LANES as u32 != 0
            || expected == 0
            || expected > shared.barriers.warps
        {
            let detail =
                format!("barrier {id} with {threads} threads: the block has {}", shared.barriers.warps * 32);
            return Err(trouble(FaultKind::Invalid, None, detail));
        }
        let b = &mut shared.barriers.all[id as usize];
        if b.expected != 0 && b.expected != expected {
            let detail = format!("barrier {id} expects {} warps already, not {expected}", b.expected);
            return Err(trouble(FaultKind::Invalid, None, detail));
        }
        b.expected = expected;
        let here = 1 << self.index;
        self.now.pc += 1;
        if matches!(i.op, Op::BarrierArrive) {
            b.arrived |= here;
            shared.clock.arrive(id, self.index);
            return Ok(None);
        }
        b.waiting |= here;
        let reduce = match i.op {
            Op::BarrierReduce(op) => Some((op, i.dst[0], self.registers.predicate(i.src[2]))),
            _ => None,
        };
        self.waiting = Some(Wait { id, reduce });
        Ok(Some(Stop::Barrier))
    }
}
