//! Turns of tasks that add to the same sums in a fixed order.

use std::sync::atomic::{AtomicU32, Ordering};

/// The number of tasks that have had their turn, for each of several sums.
pub(super) struct Turns(Vec<AtomicU32>);

impl Turns {
    pub fn new(sums: usize) -> Self {
        Turns((0..sums).map(|_| AtomicU32::new(0)).collect())
    }

    /// Waits until `turn` tasks have had their turn at a sum. They are to have begun before, so that none waits for one that
    /// cannot begin.
    pub fn wait(&self, sum: usize, turn: usize) {
        /// Looks between two yields of the processor: the task before is a tile ahead, unless its thread lost its processor.
        const LOOKS: u32 = 1000;
        let mut looks = 0u32;
        while self.0[sum].load(Ordering::Acquire) < turn as u32 {
            looks = looks.wrapping_add(1);
            match looks.is_multiple_of(LOOKS) {
                true => std::thread::yield_now(),
                false => std::hint::spin_loop(),
            }
        }
    }

    /// Ends the turn of the task that has waited for it: what it wrote is seen by the next.
    pub fn pass(&self, sum: usize) {
        self.0[sum].fetch_add(1, Ordering::Release);
    }
}
