//! Ranks that are threads of one process, on the CPU or on any GPUs.

use super::TIMEOUT;
use super::host::{Call, HostComm, Link};
use crate::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Connects ranks that are threads of one process.
pub struct Threads;

impl Threads {
    /// Returns one communicator per rank. Dropping one before the run is over ends it for the others.
    pub fn group(world: usize) -> Vec<HostComm> {
        Threads::group_within(world, TIMEOUT)
    }

    /// Returns a [`Threads::group`] with the given time limit.
    pub fn group_within(world: usize, timeout: Duration) -> Vec<HostComm> {
        let links = [(); 3].map(|()| Arc::new(Exchange::new(world, timeout)));
        let thread_links =
            |rank| links.each_ref().map(|exchange| ThreadLink { exchange: exchange.clone(), rank });
        (0..world).map(|rank| HostComm::new(thread_links(rank))).collect()
    }
}

/// The state that the threads of a group share.
struct Exchange {
    state: Mutex<ExchangeState>,
    changed: Condvar,
    timeout: Duration,
}

struct ExchangeState {
    /// The contribution of each rank to the current call.
    contributions: Vec<Option<(Call, Vec<u8>)>>,
    /// Number of completed calls, and the bytes that each rank sent in the last one.
    round: u64,
    last: Arc<Vec<Vec<u8>>>,
    /// The reason why the run ended.
    ended: Option<Error>,
}

/// One rank's end of a link.
struct ThreadLink {
    exchange: Arc<Exchange>,
    rank: usize,
}

impl Exchange {
    fn new(world: usize, timeout: Duration) -> Self {
        let contributions = (0..world).map(|_| None).collect();
        let state = ExchangeState { contributions, round: 0, last: Arc::default(), ended: None };
        Exchange { state: Mutex::new(state), changed: Condvar::new(), timeout }
    }

    fn state(&self) -> MutexGuard<'_, ExchangeState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn end(&self, why: String) -> Error {
        let why = self.state().ended.get_or_insert(Error::new(why)).clone();
        self.changed.notify_all();
        why
    }
}

impl ExchangeState {
    /// Completes the call when all ranks have contributed; false when some are missing.
    fn complete(&mut self) -> Result<bool> {
        if !self.contributions.iter().all(Option::is_some) {
            return Ok(false);
        }
        let contributions: Vec<(Call, Vec<u8>)> =
            self.contributions.iter_mut().filter_map(Option::take).collect();
        for (rank, (call, _)) in contributions.iter().enumerate() {
            contributions[0].0.ensure_same(0, call, rank)?;
        }
        self.last = Arc::new(contributions.into_iter().map(|(_, bytes)| bytes).collect());
        self.round += 1;
        Ok(true)
    }

    /// Names the ranks that are missing.
    fn missing(&self) -> String {
        let missing =
            self.contributions.iter().enumerate().filter(|(_, contribution)| contribution.is_none());
        let missing: Vec<String> = missing.map(|(rank, _)| rank.to_string()).collect();
        format!("{} {}", if missing.len() == 1 { "rank" } else { "ranks" }, missing.join(", "))
    }
}

impl Link for ThreadLink {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.exchange.state().contributions.len()
    }

    fn exchange(&self, call: Call, input: Vec<u8>) -> Result<Vec<u8>> {
        let Exchange { changed, timeout, .. } = &*self.exchange;
        let (deadline, what) = (Instant::now() + *timeout, call.to_string());
        let mut state = self.exchange.state();
        let round = state.round;
        state.contributions[self.rank] = Some((call.clone(), input));
        match state.complete() {
            Ok(false) => {}
            Ok(true) => changed.notify_all(),
            Err(diverged) => {
                drop(state);
                return Err(self.exchange.end(diverged.to_string()));
            }
        }
        // The next round needs this rank, so the round cannot advance twice unnoticed.
        while state.round == round {
            if let Some(why) = &state.ended {
                return Err(why.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let missing = state.missing();
                drop(state);
                let why = format!("{missing} did not come to {what} within {} s", timeout.as_secs_f64());
                return Err(self.exchange.end(why));
            }
            state = changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        let inputs = state.last.clone();
        drop(state);
        call.result_for(&inputs, self.rank)
    }

    fn timeout(&self) -> Duration {
        self.exchange.timeout
    }

    fn abort(&self, why: &str) {
        self.exchange.end(format!("rank {}: {why}", self.rank));
    }
}

impl Drop for ThreadLink {
    fn drop(&mut self) {
        self.exchange.end(format!("rank {} has left the run", self.rank));
    }
}
