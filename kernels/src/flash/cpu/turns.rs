//! Turns of tasks that add to the same sums in a fixed order.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The number of tasks that have had their turn, for each of several sums.
pub(super) struct Turns {
    taken: Vec<AtomicU32>,
    /// True once a task has panicked: its turns never come.
    is_broken: AtomicBool,
}

/// A task's hold on [`Turns`]. Dropped by a panic, it ends the waiting of others.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    pub fn new(sums: usize) -> Self {
        Turns { taken: (0..sums).map(|_| AtomicU32::new(0)).collect(), is_broken: AtomicBool::new(false) }
    }

    /// Begins a task.
    pub fn begin(&self) -> Turn<'_> {
        Turn(self)
    }
}

impl Turn<'_> {
    /// Waits until `turn` tasks have had their turn at a sum. They are to have begun before, so that none waits for one that
    /// cannot begin.
    ///
    /// # Panics
    /// When another task has panicked.
    pub fn wait(&self, sum: usize, turn: usize) {
        /// Looks between two yields of the processor: the task before is a tile ahead, unless its thread lost its processor.
        const LOOKS: u32 = 1000;
        let mut looks = 0u32;
        while self.0.taken[sum].load(Ordering::Acquire) < turn as u32 {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS) {
                assert!(!self.0.is_broken.load(Ordering::Relaxed), "a task that comes before has panicked");
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }

    /// Ends the task's turn at a sum: what it wrote is seen by the next.
    pub fn pass(&self, sum: usize) {
        self.0.taken[sum].fetch_add(1, Ordering::Release);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::thread;

    #[test]
    fn turns_come_in_their_order() {
        let (turns, order) = (Turns::new(2), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for task in (0..4).rev() {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let turn = turns.begin();
                    turn.wait(1, task);
                    order.lock().unwrap().push(task);
                    turn.pass(1);
                });
            }
        });
        assert_eq!(order.into_inner().unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn nobody_waits_for_a_task_that_has_panicked() {
        let turns = Turns::new(1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.begin().wait(0, 1));
            let panicking = scope.spawn(|| {
                let _turn = turns.begin();
                panic!("of this test");
            });
            assert!(panicking.join().is_err() && waiting.join().is_err());
        });
    }
}
