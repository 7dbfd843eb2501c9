//! A thread block (CTA): its warps take turns on one host thread.

use super::barrier::Barriers;
use super::footprint::Footprints;
use super::global_shadow::GlobalShadow;
use super::grid_races::AccessLog;
use super::launch::LaunchContext;
use super::shared_memory::SharedMemory;
use super::vector_clock::VectorClock;
use super::warp::{StopReason, Warp, lanes, thread};
use crate::counters::{Counters, InstructionCount};
use crate::fault::{Fault, FaultKind, LaneFault, LaneResult, lane_fault};
use crate::gpu::Schedule;
use crate::inst::{InstructionKind, LANES};
use std::sync::PoisonError;

/// State that the warps of a block share.
pub struct BlockState<'g> {
    pub launch: &'g LaunchContext<'g>,
    pub ctaid: [u32; 3],
    pub counters: Counters,
    pub executed: [InstructionCount; InstructionKind::COUNT],
    pub clock: VectorClock,
    pub shared_memory: SharedMemory,
    pub global_shadow: GlobalShadow,
    pub barriers: Barriers,
    /// Index of the allocation that each memory instruction touched last: most touch the same one all the time.
    pub last_allocation: Vec<u32>,
    pub footprints: Footprints,
    /// Global addresses that the block touched, for the racecheck between blocks.
    pub log: AccessLog,
}

/// Large parts of a block that the next one needs too: memory, which it clears, and knowledge, which it keeps.
pub struct Leftovers {
    shared_memory: SharedMemory,
    footprints: Footprints,
}

/// A thread block.
pub struct ThreadBlock<'g> {
    state: BlockState<'g>,
    warps: Vec<Warp<'g>>,
}

impl<'g> ThreadBlock<'g> {
    pub fn new(launch: &'g LaunchContext<'g>, number: u64) -> ThreadBlock<'g> {
        let ctaid = launch.ctaid(number);
        let warps = launch.config.block.iter().product::<u32>().div_ceil(LANES as u32);
        let left = launch.left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (mut shared_memory, footprints) = match left {
            Some(Leftovers { shared_memory, footprints }) => (shared_memory, footprints),
            None => (SharedMemory::new(launch), Footprints::new(launch.code.access_count)),
        };
        shared_memory.clear();
        let state = BlockState {
            launch,
            ctaid,
            counters: Counters::default(),
            executed: Default::default(),
            clock: VectorClock::new(warps),
            shared_memory,
            global_shadow: GlobalShadow::new(launch.code.global_granule),
            barriers: Barriers::new(warps),
            last_allocation: vec![0; launch.code.access_count],
            footprints,
            log: AccessLog::new(if launch.blocks > 1 { launch.code.access_count } else { 0 }),
        };
        ThreadBlock { state, warps: (0..warps).map(|w| Warp::new(launch, ctaid, w)).collect() }
    }

    /// Executes all warps, to their ends or until all that can go on sleep. Returns true at their ends.
    pub fn run(&mut self) -> Result<bool, Fault> {
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        if self.state.launch.options.schedule == Schedule::Late {
            order.reverse();
        }
        loop {
            let mut progressed = false;
            for &w in &order {
                let warp = &mut self.warps[w];
                if warp.running() == 0 || warp.waiting.is_some() {
                    continue;
                }
                let asleep = warp.asleep;
                let stopped = run_warp(warp, &mut self.state);
                progressed |= !(asleep && matches!(stopped, Ok(StopReason::Asleep)));
                stopped.map_err(|t| self.fault(w, *t))?;
            }
            self.state.barriers.release(&mut self.state.clock, &mut self.warps);
            if self.warps.iter().all(|w| w.running() == 0) {
                return Ok(true);
            }
            let limit = self.state.launch.options.instruction_limit;
            if self.state.executed.iter().map(|e| e.warps).sum::<u64>() > limit {
                let running =
                    self.warps.iter().position(|w| w.running() != 0 && w.waiting.is_none()).unwrap_or(0);
                let detail = format!(
                    "the warps of the block executed more than {limit} instructions: a loop does not end, or the \
                     limit is too low (Gpu::set_instruction_limit)"
                );
                return Err(self.fault(running, *lane_fault(FaultKind::Endless, None, detail)));
            }
            let stuck = |w: &Warp<'_>| w.running() == 0 || w.waiting.is_some() || w.asleep;
            if !progressed && self.warps.iter().all(stuck) {
                return if self.warps.iter().any(|w| w.asleep) { Ok(false) } else { Err(self.deadlock()) };
            }
        }
    }

    /// Returns what the block counted and touched, after its end.
    pub fn finish(mut self) -> (Counters, AccessLog) {
        self.state.counters.add_executed(&self.state.executed);
        let BlockState { launch, shared_memory, footprints, counters, log, .. } = self.state;
        let left = Leftovers { shared_memory, footprints };
        launch.left.lock().unwrap_or_else(PoisonError::into_inner).push(left);
        (counters, log)
    }

    /// Describes a deadlock: no warp can continue.
    pub fn deadlock(&self) -> Fault {
        if let Some(w) = self.warps.iter().position(|w| w.asleep) {
            let detail = "the block waits for another one, and no block of the launch can go on";
            return self.fault(w, *lane_fault(FaultKind::Deadlock, None, detail));
        }
        let waits = |w: &Warp<'_>| w.waiting.as_ref().map(|wait| wait.id);
        let list = |f: &dyn Fn(&Warp<'_>) -> bool| {
            let found: Vec<_> = self.warps.iter().filter(|w| f(w)).map(|w| w.index.to_string()).collect();
            found.join(", ")
        };
        let first = self.warps.iter().position(|w| w.waiting.is_some()).unwrap_or(0);
        let id = waits(&self.warps[first]).unwrap_or(0);
        let mut detail = format!("warps {} wait at barrier {id}", list(&|w| waits(w) == Some(id)));
        let others = list(&|w| waits(w).is_some_and(|other| other != id));
        if !others.is_empty() {
            detail += &format!(", warps {others} wait at other barriers");
        }
        let exited = list(&|w| w.running() == 0);
        if !exited.is_empty() {
            detail += &format!(", warps {exited} have exited");
        }
        self.fault(first, *lane_fault(FaultKind::Deadlock, None, detail))
    }

    fn fault(&self, warp: usize, t: LaneFault) -> Fault {
        let (launch, warp) = (self.state.launch, &self.warps[warp]);
        let lane = t.lane.unwrap_or(lanes(warp.active.mask).next().unwrap_or(0) as u32);
        let mut detail = t.detail;
        if let Some((role, pc)) = t.related {
            detail += &format!(" ({role} at {})", launch.describe(pc));
        }
        Fault {
            kind: t.kind,
            kernel: launch.kernel.name().to_string(),
            ptx_line: launch.code.location(warp.active.pc).ptx_line,
            cuda: launch.cuda(warp.active.pc),
            block: self.state.ctaid,
            thread: Some(thread(launch.config.block, warp.index, lane)),
            detail,
        }
    }
}

/// Runs a warp, with the run loop compiled for the vector instructions that this machine has.
fn run_warp<'g>(warp: &mut Warp<'g>, block: &mut BlockState<'g>) -> LaneResult<StopReason> {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
        fn with_vectors<'g>(warp: &mut Warp<'g>, block: &mut BlockState<'g>) -> LaneResult<StopReason> {
            warp.run(block)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
        fn with_wide_vectors<'g>(warp: &mut Warp<'g>, block: &mut BlockState<'g>) -> LaneResult<StopReason> {
            warp.run(block)
        }
        use std::arch::is_x86_feature_detected as has;
        let vectors = has!("avx2")
            && has!("fma")
            && has!("bmi1")
            && has!("bmi2")
            && has!("lzcnt")
            && has!("popcnt")
            && has!("f16c");
        let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        if vectors {
            let run: unsafe fn(_, _) -> _ = if wide { with_wide_vectors } else { with_vectors };
            // SAFETY: every feature that the chosen function is compiled for was just detected.
            return unsafe { run(warp, block) };
        }
    }
    warp.run(block)
}
