//! The end of the server: it takes no new requests, and waits for those that run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Requests that run, and the wish to end.
#[derive(Clone, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    draining: AtomicBool,
    in_flight: AtomicUsize,
    changed: Notify,
}

/// A request that runs; dropped, it has ended.
pub struct InFlight {
    shared: Arc<Shared>,
}

impl Drain {
    /// True once the server is to end.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::SeqCst)
    }

    /// Wishes the server to end.
    pub fn begin(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.shared.changed.notify_waiters();
    }

    /// Counts a request; `None` once the server is to end.
    pub fn enter(&self) -> Option<InFlight> {
        // Counted before it is asked, so that an end that begins now waits for it.
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        let in_flight = InFlight { shared: self.shared.clone() };
        (!self.is_draining()).then_some(in_flight)
    }

    /// Waits until the end has begun.
    pub async fn begun(&self) {
        self.wait(Self::is_draining).await;
    }

    /// Waits until no request runs.
    pub async fn idle(&self) {
        self.wait(|drain| drain.shared.in_flight.load(Ordering::SeqCst) == 0).await;
    }

    async fn wait(&self, until: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            if until(self) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.shared.changed.notify_waiters();
    }
}
