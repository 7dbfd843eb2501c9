//! Named barriers of a block: the warps that wait and that have arrived, and their release.

use super::thread_block::BlockState;
use super::vector_clock::VectorClock;
use super::warp::{StopReason, Warp, lanes};
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::inst::{FULL, Inst, LANES, Opcode, ReduxOp, RegisterSlot};

/// Number of barriers of a block.
const BARRIERS: usize = 16;

/// A wait of a warp at a barrier.
#[derive(Clone, Copy, Debug)]
pub struct BarrierWait {
    pub id: u32,
    /// For `bar.red`: operation, destination, and this warp's predicate.
    reduce: Option<(ReduxOp, RegisterSlot, u32)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct NamedBarrier {
    /// Number of warps expected; 0 while none has arrived.
    expected: u32,
    /// Masks of the warps that have arrived: by `bar.sync`, which waits, and by `bar.arrive`, which does not.
    waiting: u32,
    arrived: u32,
}

/// The barriers of a block.
#[derive(Debug)]
pub struct Barriers {
    barriers: [NamedBarrier; BARRIERS],
    warps: u32,
}

impl Barriers {
    pub fn new(warps: u32) -> Barriers {
        Barriers { barriers: Default::default(), warps }
    }

    /// Releases the warps that wait at complete barriers.
    pub fn release(&mut self, clock: &mut VectorClock, warps: &mut [Warp<'_>]) {
        for (id, b) in self.barriers.iter_mut().enumerate() {
            if b.expected == 0 || b.waiting.count_ones() + b.arrived.count_ones() < b.expected {
                continue;
            }
            clock.complete_barrier(id as u32, b.waiting);
            let votes =
                lanes(b.waiting).filter_map(|w| warps[w].waiting?.reduce.map(|r| (r.2, warps[w].launched)));
            let (mut count, mut all) = (0, 0);
            votes.for_each(|(p, lanes)| {
                count += (p & lanes).count_ones();
                all += lanes.count_ones();
            });
            for w in lanes(b.waiting) {
                let warp = &mut warps[w];
                if let Some(BarrierWait { reduce: Some((op, d, _)), .. }) = warp.waiting.take() {
                    let truth = |t: bool| if t { FULL } else { 0 };
                    match op {
                        ReduxOp::Popc => warp.registers.set_b32(d, &[count; LANES], warp.launched),
                        ReduxOp::And => warp.registers.set_predicate(d, truth(count == all), warp.launched),
                        _ => warp.registers.set_predicate(d, truth(count > 0), warp.launched),
                    }
                }
            }
            *b = NamedBarrier::default();
        }
    }
}

impl<'g> Warp<'g> {
    /// Executes `bar.sync`, `bar.arrive` and `bar.red`.
    pub fn barrier(
        &mut self,
        block: &mut BlockState<'g>,
        i: &Inst,
        mask: u32,
    ) -> LaneResult<Option<StopReason>> {
        if mask == 0 {
            self.active.pc += 1;
            return Ok(None);
        }
        self.require_all(mask, "a barrier")?;
        for s in i.src {
            self.require_known(s, mask, "an operand of a barrier")?;
        }
        if let Ok(at) = block.launch.code.live_after_barrier.binary_search_by_key(&self.active.pc, |l| l.0) {
            self.drop_taint(&block.launch.code.live_after_barrier[at].1);
        }
        let uniform = |s: RegisterSlot| {
            let what = "the id and the thread count of a barrier must be the same in all lanes";
            self.registers.uniform(s, mask).ok_or_else(|| lane_fault(FaultKind::Invalid, None, what))
        };
        let id = uniform(i.src[0])?;
        let threads = match i.src[1].is_none() {
            true => block.barriers.warps * LANES as u32,
            false => uniform(i.src[1])?,
        };
        let expected = threads / LANES as u32;
        if id as usize >= BARRIERS
            || threads % LANES as u32 != 0
            || expected == 0
            || expected > block.barriers.warps
        {
            let detail = format!(
                "barrier {id} with {threads} threads: the id must be below {BARRIERS}, the thread count a \
                 multiple of 32 from 32 to the block's {}",
                block.barriers.warps * 32
            );
            return Err(lane_fault(FaultKind::Invalid, None, detail));
        }
        let b = &mut block.barriers.barriers[id as usize];
        if b.expected != 0 && b.expected != expected {
            let detail = format!(
                "barrier {id} already expects {} warps, not {expected}: all must give it the same thread count",
                b.expected
            );
            return Err(lane_fault(FaultKind::Invalid, None, detail));
        }
        b.expected = expected;
        let bit = 1 << self.index;
        self.active.pc += 1;
        if matches!(i.op, Opcode::BarrierArrive) {
            b.arrived |= bit;
            block.clock.arrive(id, self.index);
            return Ok(None);
        }
        b.waiting |= bit;
        let reduce = match i.op {
            Opcode::BarrierReduce(op) => Some((op, i.dst[0], self.registers.predicate(i.src[2]))),
            _ => None,
        };
        self.waiting = Some(BarrierWait { id, reduce });
        Ok(Some(StopReason::Barrier))
    }
}
