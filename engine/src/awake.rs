//! Threads that stay awake between the small pieces of one piece of work.
//!
//! A thread of the pool that finds nothing to do sleeps after some microseconds, and waking it takes longer than a small
//! product. A decode step is hundreds of them, one after another.

use rayon::Yield;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs `work`, during which the other threads of the caller's pool look for its parts without sleeping. They give way to
/// other processes each time that they find none. A caller outside of a pool runs `work` alone.
pub fn while_awake<R>(work: impl FnOnce() -> R) -> R {
    let Some(caller) = rayon::current_thread_index() else { return work() };
    let done = AtomicBool::new(false);
    rayon::in_place_scope(|scope| {
        // Not a task that the caller could take itself while it waits for one of `work`: it would wait for its own end.
        scope.spawn_broadcast(|_, thread| {
            while thread.index() != caller && !done.load(Ordering::Acquire) {
                if rayon::yield_now() != Some(Yield::Executed) {
                    std::thread::yield_now();
                }
            }
        });
        let _done = OnDrop(&done);
        work()
    })
}

/// Sets its flag when it is dropped, also by a panic, for which the others must not wait.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn work_is_done_in_parts_within_and_without_a_pool() {
        let sum = || {
            while_awake(|| {
                (0..1000).map(|_| (0..64u64).into_par_iter().map(|i| i * i).sum::<u64>()).sum::<u64>()
            })
        };
        let wanted = 85_344_000;
        assert_eq!(sum(), wanted);
        for threads in 1..5 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(sum), wanted, "{threads} threads");
            // One within another, as when each of several ranks has its own.
            assert_eq!(pool.install(|| while_awake(|| rayon::join(sum, sum))), (wanted, wanted));
        }
    }

    #[test]
    fn a_panic_of_the_work_ends_the_waiting() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let work = || pool.install(|| while_awake(|| panic!("of the work")));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    }
}
