//! Supervision of ranks on cards: a rank that waits for its card does not notice that another rank is gone or hangs, so
//! a separate thread does.

use super::{Comm, HostComm};
use crate::{DType, Device, Error, Label, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two heartbeats.
const INTERVAL: Duration = Duration::from_millis(500);

/// A thread that exchanges the number of started collectives with the other ranks, until this is dropped.
pub(super) struct Heartbeat {
    stopped: Arc<AtomicBool>,
}

impl Heartbeat {
    /// Starts the heartbeat; every rank must start one. `started` counts the collectives that have been started without
    /// waiting for their end. `ended` is called with the reason when the run ends before this is dropped: a rank is
    /// gone, or stays behind the others for longer than the timeout.
    pub fn start(
        host: Arc<HostComm>,
        started: Arc<AtomicU64>,
        ended: impl FnOnce(Error) + Send + 'static,
    ) -> Heartbeat {
        let stopped = Arc::new(AtomicBool::new(false));
        let heartbeat = Heartbeat { stopped: stopped.clone() };
        std::thread::spawn(move || {
            let mut stragglers = Stragglers { since: Instant::now(), counts: vec![0; host.world()] };
            loop {
                let exchanged = counts(&host, started.load(Ordering::Relaxed));
                match exchanged.and_then(|counts| stragglers.check(counts, host.timeout())) {
                    _ if stopped.load(Ordering::Relaxed) => return,
                    Ok(()) => std::thread::sleep(INTERVAL),
                    Err(why) => return ended(why),
                }
            }
        });
        heartbeat
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Gathers the counts of all ranks.
fn counts(host: &HostComm, own_count: u64) -> Result<Vec<u64>> {
    let device = Device::cpu();
    let mut input = device.empty(Label::Scratch, [2], DType::I32);
    input.write_bytes(&own_count.to_le_bytes())?;
    let mut all = device.empty(Label::Scratch, [2 * host.world()], DType::I32);
    host.heartbeat().all_gather(&input, &mut all)?;
    Ok(all.to_bytes()?.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
}

/// The counts of all ranks at the last progress of one that is behind.
struct Stragglers {
    since: Instant,
    counts: Vec<u64>,
}

impl Stragglers {
    /// Fails when the ranks that are behind have made no progress for `timeout`.
    fn check(&mut self, counts: Vec<u64>, timeout: Duration) -> Result<()> {
        let max = counts.iter().max().copied().unwrap_or(0);
        let is_behind = |rank: &usize| counts[*rank] < max;
        let moved = (0..counts.len()).filter(is_behind).any(|rank| counts[rank] != self.counts[rank]);
        let behind: Vec<String> = (0..counts.len()).filter(is_behind).map(|rank| rank.to_string()).collect();
        if moved || behind.is_empty() {
            *self = Stragglers { since: Instant::now(), counts };
            return Ok(());
        }
        if self.since.elapsed() < timeout {
            return Ok(());
        }
        let min = counts.iter().min().copied().unwrap_or(0);
        Err(Error::new(format!(
            "rank {} hangs: it has come to {min} collectives between cards, others to {max}, for {} s",
            behind.join(", "),
            timeout.as_secs_f64()
        )))
    }
}
