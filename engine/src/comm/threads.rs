//! Ranks that are threads of one process, on the CPU or on GPUs of any kind.

use super::TIMEOUT;
use super::host::{Call, Host, Link};
use crate::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Ranks that are threads of one process.
pub struct Threads;

impl Threads {
    /// One handle a rank. A handle that is dropped before the run is over ends it for the others.
    pub fn group(world: usize) -> Vec<Host> {
        Threads::group_within(world, TIMEOUT)
    }

    /// [`Threads::group`] whose ranks wait no longer than `timeout` for each other.
    pub fn group_within(world: usize, timeout: Duration) -> Vec<Host> {
        let links = [(); 3].map(|()| Arc::new(Meeting::new(world, timeout)));
        let seats = |rank| links.each_ref().map(|meeting| Seat { meeting: meeting.clone(), rank });
        (0..world).map(|rank| Host::new(seats(rank))).collect()
    }
}

/// Where the threads meet.
struct Meeting {
    table: Mutex<Table>,
    turned: Condvar,
    timeout: Duration,
}

struct Table {
    /// What each rank has brought to the call in hand.
    brought: Vec<Option<(Call, Vec<u8>)>>,
    /// Calls completed, and what the ranks brought to the last.
    round: u64,
    last: Arc<Vec<Vec<u8>>>,
    /// Why there will be no further call.
    ended: Option<Error>,
}

/// One rank's place.
struct Seat {
    meeting: Arc<Meeting>,
    rank: usize,
}

impl Meeting {
    fn new(world: usize, timeout: Duration) -> Self {
        let brought = (0..world).map(|_| None).collect();
        let table = Table { brought, round: 0, last: Arc::default(), ended: None };
        Meeting { table: Mutex::new(table), turned: Condvar::new(), timeout }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn end(&self, why: String) -> Error {
        let why = self.table().ended.get_or_insert(Error::new(why)).clone();
        self.turned.notify_all();
        why
    }
}

impl Table {
    /// Closes the round if everybody is here.
    fn close(&mut self) -> Result<bool> {
        if !self.brought.iter().all(Option::is_some) {
            return Ok(false);
        }
        let brought: Vec<(Call, Vec<u8>)> = self.brought.iter_mut().filter_map(Option::take).collect();
        for (them, (call, _)) in brought.iter().enumerate() {
            brought[0].0.agree(0, call, them)?;
        }
        self.last = Arc::new(brought.into_iter().map(|(_, bytes)| bytes).collect());
        self.round += 1;
        Ok(true)
    }

    /// The ranks that have not come, in words.
    fn missing(&self) -> String {
        let missing = self.brought.iter().enumerate().filter(|(_, brought)| brought.is_none());
        let missing: Vec<String> = missing.map(|(rank, _)| rank.to_string()).collect();
        format!("{} {}", if missing.len() == 1 { "rank" } else { "ranks" }, missing.join(", "))
    }
}

impl Link for Seat {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.meeting.table().brought.len()
    }

    fn exchange(&self, call: Call, mine: Vec<u8>) -> Result<Vec<u8>> {
        let Meeting { turned, timeout, .. } = &*self.meeting;
        let (deadline, what) = (Instant::now() + *timeout, call.to_string());
        let mut table = self.meeting.table();
        let round = table.round;
        table.brought[self.rank] = Some((call.clone(), mine));
        match table.close() {
            Ok(false) => {}
            Ok(true) => turned.notify_all(),
            Err(apart) => {
                drop(table);
                return Err(self.meeting.end(apart.to_string()));
            }
        }
        // The round cannot turn twice before this rank has seen it: the next one needs this rank.
        while table.round == round {
            if let Some(why) = &table.ended {
                return Err(why.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let missing = table.missing();
                drop(table);
                let why = format!("{missing} did not come to {what} within {} s", timeout.as_secs_f64());
                return Err(self.meeting.end(why));
            }
            table = turned.wait_timeout(table, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        let given = table.last.clone();
        drop(table);
        call.outcome(&given, self.rank)
    }

    fn timeout(&self) -> Duration {
        self.meeting.timeout
    }

    fn abort(&self, why: &str) {
        self.meeting.end(format!("rank {}: {why}", self.rank));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.meeting.end(format!("rank {} has left the run", self.rank));
    }
}
