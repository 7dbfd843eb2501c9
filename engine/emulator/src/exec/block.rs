//! A block: its warps take turns on one host thread.

use super::barrier::Barriers;
use super::clock::Clock;
use super::grid::Grid;
use super::races::Log;
use super::shadow::SharedMemory;
use super::warp::{Stop, Warp, lanes, thread};
use super::written::Written;
use crate::counters::{Counters, Executed};
use crate::fault::{Check, Fault, FaultKind, Trouble, trouble};
use crate::gpu::Schedule;
use crate::inst::{Kind, LANES};

/// What the warps of a block share.
pub struct Shared<'g> {
    pub grid: &'g Grid<'g>,
    pub ctaid: [u32; 3],
    pub counters: Counters,
    pub executed: [Executed; Kind::COUNT],
    pub clock: Clock,
    pub memory: SharedMemory,
    pub written: Written,
    pub barriers: Barriers,
    /// For every memory instruction the allocation it last touched: most touch one all the time.
    pub hits: Vec<u32>,
    /// What the block touches in global memory.
    pub log: Log,
}

/// A block.
pub struct Block<'g> {
    shared: Shared<'g>,
    warps: Vec<Warp<'g>>,
}

impl<'g> Block<'g> {
    pub fn new(grid: &'g Grid<'g>, number: u64) -> Block<'g> {
        let ctaid = grid.ctaid(number);
        let warps = grid.config.block.iter().product::<u32>().div_ceil(LANES as u32);
        let shared = Shared {
            grid,
            ctaid,
            counters: Counters::default(),
            executed: Default::default(),
            clock: Clock::new(warps),
            memory: SharedMemory::new(grid),
            written: Written::new(grid.program.global_grain),
            barriers: Barriers::new(warps),
            hits: vec![0; grid.program.accesses],
            log: Log::new(if grid.blocks > 1 { grid.program.accesses } else { 0 }),
        };
        Block { shared, warps: (0..warps).map(|w| Warp::new(grid, ctaid, w)).collect() }
    }

    /// Runs all warps to their ends.
    pub fn run(mut self) -> Result<(Counters, Log), Fault> {
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        if self.shared.grid.rules.schedule == Schedule::Late {
            order.reverse();
        }
        loop {
            let mut moved = false;
            for &w in &order {
                let warp = &mut self.warps[w];
                if warp.live() == 0 || warp.waiting.is_some() {
                    continue;
                }
                moved = true;
                run_warp(warp, &mut self.shared).map_err(|t| self.fault(w, *t))?;
            }
            self.shared.barriers.release(&mut self.shared.clock, &mut self.warps);
            if self.warps.iter().all(|w| w.live() == 0) {
                self.shared.counters.executed(&self.shared.executed);
                return Ok((self.shared.counters, self.shared.log));
            }
            let limit = self.shared.grid.rules.limit;
            if self.shared.executed.iter().map(|e| e.warps).sum::<u64>() > limit {
                let running =
                    self.warps.iter().position(|w| w.live() != 0 && w.waiting.is_none()).unwrap_or(0);
                let detail = format!("more than {limit} instructions of its warps executed, and no end");
                return Err(self.fault(running, *trouble(FaultKind::Endless, None, detail)));
            }
            if !moved && self.warps.iter().all(|w| w.live() == 0 || w.waiting.is_some()) {
                return Err(self.deadlock());
            }
        }
    }

    /// No warp can go on: says who waits for what.
    fn deadlock(&self) -> Fault {
        let waits = |w: &Warp<'_>| w.waiting.as_ref().map(|wait| wait.id);
        let who = |f: &dyn Fn(&Warp<'_>) -> bool| {
            let found: Vec<_> = self.warps.iter().filter(|w| f(w)).map(|w| w.index.to_string()).collect();
            found.join(", ")
        };
        let first = self.warps.iter().position(|w| w.waiting.is_some()).unwrap_or(0);
        let id = waits(&self.warps[first]).unwrap_or(0);
        let mut detail = format!("warps {} wait at barrier {id}", who(&|w| waits(w) == Some(id)));
        let others = who(&|w| waits(w).is_some_and(|other| other != id));
        if !others.is_empty() {
            detail += &format!(", warps {others} at other barriers");
        }
        let gone = who(&|w| w.live() == 0);
        if !gone.is_empty() {
            detail += &format!(", warps {gone} have exited");
        }
        self.fault(first, *trouble(FaultKind::Deadlock, None, detail))
    }

    fn fault(&self, warp: usize, t: Trouble) -> Fault {
        let (grid, warp) = (self.shared.grid, &self.warps[warp]);
        let lane = t.lane.unwrap_or(lanes(warp.now.mask).next().unwrap_or(0) as u32);
        let mut detail = t.detail;
        if let Some(other) = t.other {
            detail += &format!(" ({})", grid.place(other));
        }
        Fault {
            kind: t.kind,
            kernel: grid.kernel.name().to_string(),
            ptx_line: grid.program.origin(warp.now.pc).ptx_line,
            cuda: grid.cuda(warp.now.pc),
            block: self.shared.ctaid,
            thread: Some(thread(grid.config.block, warp.index, lane)),
            detail,
        }
    }
}

/// The run loop, compiled for the instructions this machine has.
fn run_warp<'g>(warp: &mut Warp<'g>, shared: &mut Shared<'g>) -> Check<Stop> {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
        fn with_vectors<'g>(warp: &mut Warp<'g>, shared: &mut Shared<'g>) -> Check<Stop> {
            warp.run(shared)
        }
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2")
            && has!("fma")
            && has!("bmi1")
            && has!("bmi2")
            && has!("lzcnt")
            && has!("popcnt")
            && has!("f16c")
        {
            // SAFETY: every feature the function is compiled for was just detected.
            return unsafe { with_vectors(warp, shared) };
        }
    }
    warp.run(shared)
}
