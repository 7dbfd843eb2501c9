//! A rank that waits for a card cannot see that another is gone, or hangs. A thread beside it can.

use super::{Comm, Host};
use crate::{DType, Device, Error, Label, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often ranks show each other that they live.
const PULSE: Duration = Duration::from_millis(500);

/// While it lives, the ranks meet on a link of their own again and again, and tell how many collectives they have come to.
pub(super) struct Watch {
    over: Arc<AtomicBool>,
}

impl Watch {
    /// Every rank starts one, and counts in `come` the collectives that return before they are done. `ended` hears why
    /// there is no run any more, should that be before this is dropped: a rank is gone, or stays behind the others for
    /// longer than they wait for each other.
    pub fn start(host: Arc<Host>, come: Arc<AtomicU64>, ended: impl FnOnce(Error) + Send + 'static) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let watch = Watch { over: over.clone() };
        std::thread::spawn(move || {
            let mut behind = Behind { since: Instant::now(), counts: vec![0; host.world()] };
            loop {
                let met = counts(&host, come.load(Ordering::Relaxed));
                match met.and_then(|counts| behind.check(counts, host.timeout())) {
                    _ if over.load(Ordering::Relaxed) => return,
                    Ok(()) => std::thread::sleep(PULSE),
                    Err(why) => return ended(why),
                }
            }
        });
        watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Every rank's count.
fn counts(host: &Host, mine: u64) -> Result<Vec<u64>> {
    let device = Device::cpu();
    let mut given = device.empty(Label::Scratch, [2], DType::I32);
    given.write_bytes(&mine.to_le_bytes())?;
    let mut all = device.empty(Label::Scratch, [2 * host.world()], DType::I32);
    host.pulse().all_gather(&given, &mut all)?;
    Ok(all.to_bytes()?.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
}

/// What the ranks had come to when the last of them moved.
struct Behind {
    since: Instant,
    counts: Vec<u64>,
}

impl Behind {
    /// Refuses that ranks which are behind do not move for `timeout`.
    fn check(&mut self, counts: Vec<u64>, timeout: Duration) -> Result<()> {
        let most = counts.iter().max().copied().unwrap_or(0);
        let is_behind = |rank: &usize| counts[*rank] < most;
        let moved = (0..counts.len()).filter(is_behind).any(|rank| counts[rank] != self.counts[rank]);
        let behind: Vec<String> = (0..counts.len()).filter(is_behind).map(|rank| rank.to_string()).collect();
        if moved || behind.is_empty() {
            *self = Behind { since: Instant::now(), counts };
            return Ok(());
        }
        if self.since.elapsed() < timeout {
            return Ok(());
        }
        let least = counts.iter().min().copied().unwrap_or(0);
        Err(Error::new(format!(
            "rank {} hangs: it has come to {least} collectives between cards, others to {most}, for {} s",
            behind.join(", "),
            timeout.as_secs_f64()
        )))
    }
}
