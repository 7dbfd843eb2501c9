//! Waits for other blocks of a launch: loops that load a word of global memory and sleep (`nanosleep`) until another block
//! has changed it. A block that can only sleep is set aside, and goes on after others; when none can, that is a deadlock.
//!
//! Rounds of such a loop that end in sleep are not counted: how many there are is a matter of time.

use super::launch::LaunchContext;
use super::thread_block::{BlockState, ThreadBlock};
use super::warp::{StopReason, Warp};
use crate::counters::{Counters, InstructionCount};
use crate::inst::InstructionKind;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Blocks set aside above which none is begun that could be waited for by fewer.
const ASIDE: usize = 64;
/// Time between two looks at the memory that blocks wait for.
const LOOK: Duration = Duration::from_micros(200);

/// Counts of a block at an earlier point.
#[derive(Debug)]
pub struct Counted {
    counters: Counters,
    executed: [InstructionCount; InstructionKind::COUNT],
}

impl BlockState<'_> {
    pub fn counted(&self) -> Counted {
        Counted { counters: self.counters.clone(), executed: self.executed }
    }

    fn count_again_from(&mut self, counted: Counted) {
        (self.counters, self.executed) = (counted.counters, counted.executed);
    }
}

impl<'g> Warp<'g> {
    /// Notes a load that a sleep may repeat. Returns true when it does.
    pub fn poll(&mut self, block: &mut BlockState<'g>) -> bool {
        if !block.launch.code.sleeps {
            return false;
        }
        let slept = self.woken.take();
        let again = slept.is_some();
        if let Some(counted) = slept {
            block.count_again_from(counted);
        }
        self.polled = Some(block.counted());
        again
    }

    /// Executes `nanosleep`: the rest of the block goes on.
    pub fn sleep(&mut self, block: &mut BlockState<'g>) -> StopReason {
        if let Some(counted) = self.polled.take() {
            block.count_again_from(counted);
        }
        self.active.pc += 1;
        self.asleep = true;
        StopReason::Asleep
    }
}

/// The blocks of a launch that are not running: those to begin, in order, and those set aside.
pub struct Blocks<'g> {
    launch: &'g LaunchContext<'g>,
    waiting: Mutex<Waiting<'g>>,
    changed: Condvar,
}

struct Waiting<'g> {
    fresh: std::vec::IntoIter<u64>,
    aside: Vec<(u64, BlockAside<'g>)>,
    running: usize,
}

/// A block that sleeps, and the state of memory that did not let it go on.
struct BlockAside<'g> {
    block: ThreadBlock<'g>,
    version: u64,
}

/// A block to run, with its number.
pub struct Next<'g> {
    pub number: u64,
    pub block: ThreadBlock<'g>,
    /// True when no block can go on.
    pub deadlocked: bool,
    version: u64,
}

impl<'g> Blocks<'g> {
    pub fn new(launch: &'g LaunchContext<'g>, chosen: Vec<u64>) -> Blocks<'g> {
        let waiting = Waiting { fresh: chosen.into_iter(), aside: Vec::new(), running: 0 };
        Blocks { launch, waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<'g>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next block to run; `None` when all have ended.
    pub fn next(&self) -> Option<Next<'g>> {
        let mut waiting = self.lock();
        loop {
            let version = self.launch.version.load(Relaxed);
            // The block that a sampled one waits for may not run.
            let changed = |seen: u64| seen != version || self.launch.is_sampled();
            let ready = |w: &Waiting<'_>| w.aside.iter().position(|a| changed(a.1.version));
            let full = waiting.aside.len() >= ASIDE;
            let resumed = if full { ready(&waiting) } else { None };
            if resumed.is_none()
                && let Some(number) = waiting.fresh.next()
            {
                waiting.running += 1;
                drop(waiting);
                let block = ThreadBlock::new(self.launch, number);
                return Some(Next { number, block, deadlocked: false, version });
            }
            let resumed = resumed.or_else(|| ready(&waiting));
            let deadlocked = resumed.is_none() && waiting.running == 0;
            match resumed {
                None if waiting.running > 0 => {
                    let woken = self.changed.wait_timeout(waiting, LOOK);
                    waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                None if waiting.aside.is_empty() => return None,
                at => {
                    let (number, aside) = waiting.aside.swap_remove(at.unwrap_or(0));
                    waiting.running += 1;
                    return Some(Next { number, block: aside.block, deadlocked, version });
                }
            }
        }
    }

    /// Sets a block aside that can only sleep.
    pub fn set_aside(&self, next: Next<'g>) {
        let mut waiting = self.lock();
        waiting.running -= 1;
        waiting.aside.push((next.number, BlockAside { block: next.block, version: next.version }));
        self.changed.notify_all();
    }

    /// Notes that a block has ended.
    pub fn ended(&self) {
        self.lock().running -= 1;
        self.changed.notify_all();
    }
}
