//! Ranks of a command, as threads of this process or as processes of a launcher.

use crate::device::DeviceChoice;
use crate::environment::{ProcessRank, process_rank};
use crate::threads::on_share_of_threads;
use codelsi_engine::comm::{HostComm, NcclComm, Rendezvous, Sockets, TIMEOUT, UniqueId};
use codelsi_engine::cuda::Cuda;
use codelsi_engine::{At, Comm, Device, Error, Rank, Result, Solo, Threads};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The ranks of a command.
#[derive(Clone, Copy, Debug, Default)]
pub struct RankOptions {
    /// Workers, each with a device of its own: on cards, those from the chosen one on. By default 1, or a launcher's processes.
    pub count: Option<u16>,
    /// Seconds that a rank waits for the others before the run ends. By default `CODELSI_TIMEOUT`, or 600.
    pub timeout: Option<f64>,
}

impl RankOptions {
    /// Runs `f` once per rank and returns the result of rank 0; `None` in a process of another rank.
    ///
    /// # Errors
    /// That of the first rank to fail; or when ranks, devices and launcher contradict each other.
    pub fn run<T: Send>(
        self,
        device: DeviceChoice,
        f: impl Fn(Rank) -> Result<T> + Sync,
    ) -> Result<Option<T>> {
        match process_rank(|name| std::env::var(name).ok())? {
            Some(process) => self.process(&process, device, &f),
            None => self.threads(device, f).map(Some),
        }
    }

    /// Opens all ranks in this process.
    ///
    /// # Errors
    /// As [`RankOptions::in_one_process`]; or when a device or NCCL is not there.
    pub fn open(self, device: DeviceChoice) -> Result<Vec<Rank>> {
        self.group(device, self.in_one_process()?)
    }

    /// Returns the number of ranks of a command that runs them all in one process.
    ///
    /// # Errors
    /// Under a launcher of several processes.
    pub fn in_one_process(self) -> Result<usize> {
        match process_rank(|name| std::env::var(name).ok())? {
            Some(process) if process.world > 1 => Err(Error::new(
                "this command holds its ranks in one process: start it without a launcher, with --ranks N",
            )),
            _ => Ok(self.count.unwrap_or(1).into()),
        }
    }

    /// Returns the number of ranks.
    ///
    /// # Errors
    /// When a launcher's environment is incomplete.
    pub fn world(self) -> Result<usize> {
        let process = process_rank(|name| std::env::var(name).ok())?;
        Ok(process.map_or(self.count.unwrap_or(1).into(), |process| process.world))
    }

    fn timeout(self) -> Result<Duration> {
        let named = || std::env::var("CODELSI_TIMEOUT").ok();
        let seconds = match (self.timeout, named()) {
            (Some(seconds), _) => Some(seconds),
            (None, Some(text)) => Some(text.parse::<f64>().map_err(|_| {
                Error::new(format!("CODELSI_TIMEOUT is `{text}`, which is no number of seconds"))
            })?),
            (None, None) => None,
        };
        match seconds {
            None => Ok(TIMEOUT),
            Some(seconds) if (0.1..1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            Some(seconds) => Err(Error::new(format!("a timeout is 0.1 to 1000000 seconds, not {seconds}"))),
        }
    }

    fn threads<T: Send>(self, device: DeviceChoice, f: impl Fn(Rank) -> Result<T> + Sync) -> Result<T> {
        let mut group = self.group(device, self.count.unwrap_or(1).into())?;
        if group.len() == 1 {
            return f(group.swap_remove(0));
        }
        let ranks = group.into_iter().map(|rank| (rank.comm.clone(), rank)).collect();
        Ok(on_all_ranks(ranks, f)?.swap_remove(0))
    }

    /// Opens `world` ranks that are threads of this process, each with its device.
    fn group(self, device: DeviceChoice, world: usize) -> Result<Vec<Rank>> {
        if world == 1 {
            return Ok(vec![Rank::from(&device_of_thread(device, 0, 1)?)]);
        }
        let available = card_count(device);
        let ids = if available >= world { Some(UniqueId::for_run()?) } else { None };
        if ids.is_none() && available > 0 {
            eprintln!("{world} ranks share {available} card(s) and exchange through host memory");
        }
        let join = |host: Arc<HostComm>| {
            let device = device_of_thread(device, host.rank(), world)?;
            let comm: Arc<dyn Comm> = match &ids {
                Some(ids) => Arc::new(NcclComm::new(&device, ids, host)?),
                None => host,
            };
            Ok(Rank { device, comm })
        };
        let hosts = Threads::group_within(world, self.timeout()?).into_iter().map(Arc::new);
        on_all_ranks(hosts.map(|host| (host.clone() as Arc<dyn Comm>, host)).collect(), join)
    }

    fn process<T: Send>(
        self,
        process: &ProcessRank,
        device: DeviceChoice,
        f: &(impl Fn(Rank) -> Result<T> + Sync),
    ) -> Result<Option<T>> {
        let ProcessRank { rank, world, local_rank, local_world, .. } = *process;
        if self.count.is_some_and(|ranks| usize::from(ranks) != world) {
            let ranks = self.count.unwrap_or(0);
            return Err(Error::new(format!(
                "--ranks is {ranks}, and the launcher started {world} processes"
            )));
        }
        let run = || {
            let device = device_of_process(device, local_rank)?;
            if world == 1 && !is_card(&device) {
                return f(Rank { device, comm: Arc::new(Solo) });
            }
            let host = Arc::new(Sockets::connect(&Rendezvous {
                address: process.address.clone(),
                port: process.port,
                rank,
                world,
                timeout: self.timeout()?,
            })?);
            let run = || {
                let comm: Arc<dyn Comm> = match is_card(&device) {
                    true => {
                        Arc::new(NcclComm::new(&device, &UniqueId::broadcast_over(&host)?, host.clone())?)
                    }
                    false => host.clone(),
                };
                on_share_of_threads(local_world, || f(Rank { device, comm }))
            };
            run_contained(&*host, run, |_| ())
        };
        let result = run().at(format!("rank {rank}"))?;
        Ok((rank == 0).then_some(result))
    }
}

/// Runs `f` on every rank at once, each with its share of the threads; a rank alone runs on the caller's. When one fails, in
/// whatever way, the others end too.
///
/// # Errors
/// That of the first rank to fail, with its number.
pub fn on_all_ranks<R: Send, T: Send>(
    ranks: Vec<(Arc<dyn Comm>, R)>,
    f: impl Fn(R) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let world = ranks.len();
    if world == 1 {
        return ranks.into_iter().map(|(comm, place)| run_contained(&*comm, || f(place), |_| ())).collect();
    }
    let first: Mutex<Option<Error>> = Mutex::default();
    let fail = |rank: usize, e: &Error| {
        let mut first = first.lock().unwrap_or_else(|e| e.into_inner());
        first.get_or_insert(e.clone().at(format!("rank {rank}")));
    };
    let one = |rank: usize, comm: Arc<dyn Comm>, place: R| {
        run_contained(&*comm, || on_share_of_threads(world, || f(place)), |e| fail(rank, e)).ok()
    };
    let one = &one;
    let results: Option<Vec<T>> = std::thread::scope(|scope| {
        let ranks = ranks.into_iter().enumerate();
        let ranks: Vec<_> =
            ranks.map(|(rank, (comm, place))| scope.spawn(move || one(rank, comm, place))).collect();
        ranks.into_iter().map(|rank| rank.join().ok().flatten()).collect()
    });
    match first.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => results.ok_or_else(|| Error::new("a rank gave no result")),
    }
}

/// Runs a rank and contains its panic; a failure is passed to `failed`, then to the other ranks.
fn run_contained<T>(
    comm: &dyn Comm,
    run: impl FnOnce() -> Result<T>,
    failed: impl FnOnce(&Error),
) -> Result<T> {
    let ran = catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Error::new(format!("panicked: {}", panic_message(&panic)))));
    ran.inspect_err(|e| {
        failed(e);
        comm.abort(&e.to_string());
    })
}

fn panic_message(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    panic.downcast_ref::<String>().cloned().or(text).unwrap_or_default()
}

/// Opens the device of one of `world` ranks in this process.
fn device_of_thread(device: DeviceChoice, rank: usize, world: usize) -> Result<Device> {
    match first_card(device) {
        Some(first) if world > 1 => Device::cuda(first + rank % card_count(device).clamp(1, world)),
        _ => device.open(),
    }
}

/// Opens the device of the process that is number `local_rank` on its machine: a card of its own, where there are cards.
fn device_of_process(device: DeviceChoice, local_rank: usize) -> Result<Device> {
    first_card(device).map_or_else(|| device.open(), |first| Device::cuda(first + local_rank))
}

/// Returns the card of rank 0, where ranks are to run on cards.
fn first_card(device: DeviceChoice) -> Option<usize> {
    match device {
        DeviceChoice::Cuda(first) => Some(first),
        DeviceChoice::Auto => Cuda::card_count().is_ok_and(|cards| cards > 0).then_some(0),
        DeviceChoice::Cpu | DeviceChoice::Emulated(_) => None,
    }
}

/// Returns the number of cards from the first on.
fn card_count(device: DeviceChoice) -> usize {
    let from = |first| Cuda::card_count().map_or(0, |cards| cards.saturating_sub(first));
    first_card(device).map_or(0, from)
}

fn is_card(device: &Device) -> bool {
    matches!(device, Device::Cuda(cuda) if cuda.emulator().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T: Send>(ranks: u16, f: impl Fn(Rank) -> Result<T> + Sync) -> Result<T> {
        let args = RankOptions { count: Some(ranks), timeout: Some(5.0) };
        args.threads(DeviceChoice::Cpu, f)
    }

    #[test]
    fn ranks_have_a_number_a_link_and_their_share_of_the_cores() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let f = |rank: Rank| {
            rank.comm.barrier()?;
            Ok((rank.comm.rank(), rank.comm.world(), rayon::current_num_threads()))
        };
        assert_eq!(run(3, f).unwrap(), (0, 3, (cores / 3).max(1)));
    }

    #[test]
    fn the_rank_that_fails_first_is_the_one_that_is_named() {
        let fails = |rank: Rank, how: &dyn Fn() -> Result<()>| match rank.comm.rank() {
            1 => how(),
            _ => rank.comm.barrier(),
        };
        for _ in 0..20 {
            let failed = run(3, |rank| fails(rank, &|| Err(Error::new("the disk is full"))));
            assert_eq!(failed.unwrap_err().to_string(), "rank 1: the disk is full");
        }
        let panicked = run(2, |rank| fails(rank, &|| panic!("index 7")));
        assert_eq!(panicked.unwrap_err().to_string(), "rank 1: panicked: index 7");
        let left = run(2, |rank| fails(rank, &|| Ok(())));
        assert_eq!(left.unwrap_err().to_string(), "rank 0: rank 1 has left the run");
    }
}
