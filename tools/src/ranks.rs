//! `--ranks` and `--layout`: the workers of a command, as threads of this process or as processes of a launcher.

use crate::launcher::{Member, launched};
use crate::place::DeviceArg;
use clap::{Args, ValueEnum};
use codelsi_engine::comm::{Host, Nccl, Rendezvous, Sockets, TIMEOUT, UniqueId};
use codelsi_engine::cuda::Cuda;
use codelsi_engine::{At, Comm, Device, Error, Rank, Result, Solo, Threads};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Who shares the work, and how.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct RankArgs {
    /// Workers, each with a device of its own: card N, N + 1, … [default: 1; under torchrun or mpirun, their processes]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// How they share a model.
    #[arg(long, value_enum, default_value_t)]
    layout: Layout,
    /// Seconds that a rank waits for the others before the run ends [default: CODELSI_TIMEOUT, or 600]
    #[arg(long)]
    timeout: Option<f64>,
}

/// `--layout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Each rank holds the whole model and takes its share of the work.
    #[default]
    Replicate,
    /// Each rank holds a part of every frozen weight, gathered layer by layer.
    Shard,
    /// Each rank holds and computes a part of every layer.
    Tensor,
}

impl RankArgs {
    /// Runs `f` once a rank and returns what rank 0's returns; nothing in a process that is another rank.
    ///
    /// # Errors
    /// The first rank's to fail; or when ranks, devices and launcher do not fit together.
    pub fn run<T: Send>(self, device: DeviceArg, f: impl Fn(Rank) -> Result<T> + Sync) -> Result<Option<T>> {
        match launched(|name| std::env::var(name).ok())? {
            Some(member) => self.process(&member, device, &f),
            None => self.threads(device, f).map(Some),
        }
    }

    /// The devices of all ranks, in a process that holds them all.
    ///
    /// # Errors
    /// As [`RankArgs::in_one_process`]; or when a device is not there.
    pub fn devices(self, device: DeviceArg) -> Result<Vec<Device>> {
        let world = self.in_one_process()?;
        (0..world).map(|rank| open(device, rank, world)).collect()
    }

    /// The number of ranks of a command that holds them all in one process.
    ///
    /// # Errors
    /// Under a launcher of several processes; or when there is no such layout.
    pub fn in_one_process(self) -> Result<usize> {
        self.check()?;
        match launched(|name| std::env::var(name).ok())? {
            Some(member) if member.world > 1 => Err(Error::new(
                "this command holds its ranks in one process: start it without a launcher, with --ranks N",
            )),
            _ => Ok(self.ranks.unwrap_or(1).into()),
        }
    }

    fn check(self) -> Result<()> {
        match self.layout {
            Layout::Replicate => Ok(()),
            Layout::Shard | Layout::Tensor => Err(Error::new(
                format!("--layout {:?} is not there yet; use replicate", self.layout).to_lowercase(),
            )),
        }
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

    fn threads<T: Send>(self, device: DeviceArg, f: impl Fn(Rank) -> Result<T> + Sync) -> Result<T> {
        let world: usize = self.ranks.unwrap_or(1).into();
        if world == 1 {
            return f(Rank::from(&open(device, 0, 1)?));
        }
        self.check()?;
        let ids = if cards(device, world) >= world { Some(UniqueId::pair()?) } else { None };
        let first: Mutex<Option<Error>> = Mutex::default();
        let fail = |rank: usize, e: Error| {
            let mut first = first.lock().unwrap_or_else(|e| e.into_inner());
            first.get_or_insert(e.at(format!("rank {rank}")));
        };
        let one = |rank: usize, host: Host| {
            let host = Arc::new(host);
            let ran = contained(&*host, || {
                let device = open(device, rank, world)?;
                let comm: Arc<dyn Comm> = match &ids {
                    Some(ids) => Arc::new(Nccl::new(&device, ids, host.clone())?),
                    None => host.clone(),
                };
                pool(world)?.install(|| f(Rank { device, comm }))
            });
            ran.map_err(|e| fail(rank, e)).ok()
        };
        let one = &one;
        let group = Threads::group_within(world, self.timeout()?);
        let results: Vec<Option<T>> = std::thread::scope(|scope| {
            let group = group.into_iter().enumerate();
            let ranks: Vec<_> = group.map(|(rank, host)| scope.spawn(move || one(rank, host))).collect();
            ranks.into_iter().map(|rank| rank.join().ok().flatten()).collect()
        });
        match first.into_inner().unwrap_or_else(|e| e.into_inner()) {
            Some(error) => Err(error),
            None => results.into_iter().next().flatten().ok_or_else(|| Error::new("rank 0 gave no result")),
        }
    }

    fn process<T: Send>(
        self,
        member: &Member,
        device: DeviceArg,
        f: &(impl Fn(Rank) -> Result<T> + Sync),
    ) -> Result<Option<T>> {
        let Member { rank, world, local_rank, local_world, .. } = *member;
        if self.ranks.is_some_and(|ranks| usize::from(ranks) != world) {
            let ranks = self.ranks.unwrap_or(0);
            return Err(Error::new(format!(
                "--ranks is {ranks}, and the launcher started {world} processes"
            )));
        }
        self.check()?;
        let run = || {
            let device = open(device, local_rank, local_world)?;
            if world == 1 && !is_card(&device) {
                return f(Rank { device, comm: Arc::new(Solo) });
            }
            let host = Arc::new(Sockets::connect(&Rendezvous {
                address: member.address.clone(),
                port: member.port,
                rank,
                world,
                timeout: self.timeout()?,
            })?);
            contained(&*host.clone(), || {
                let comm: Arc<dyn Comm> = match is_card(&device) {
                    true => Arc::new(Nccl::new(&device, &UniqueId::pair_of(&*host)?, host)?),
                    false => host,
                };
                pool(local_world)?.install(|| f(Rank { device, comm }))
            })
        };
        let result = run().at(format!("rank {rank}"))?;
        Ok((rank == 0).then_some(result))
    }
}

/// Runs a rank; however it fails, the others are told.
fn contained<T>(comm: &dyn Comm, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let ran = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let words = |p: &Box<dyn Any + Send>| p.downcast_ref::<String>().cloned();
        let words = words(&panic).or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(Error::new(format!("panicked: {}", words.unwrap_or_default())))
    });
    ran.inspect_err(|e| comm.abort(&e.to_string()))
}

/// Threads for the CPU work of one rank of `world` on this machine.
pub fn pool(world: usize) -> Result<rayon::ThreadPool> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads((cores / world).max(1));
    pool.build().map_err(|e| Error::new(e.to_string()))
}

/// The device of a rank among `world` on this machine.
fn open(device: DeviceArg, rank: usize, world: usize) -> Result<Device> {
    let first = match device {
        DeviceArg::Cuda(first) => first,
        DeviceArg::Auto if Cuda::count().is_ok_and(|cards| cards > 0) => 0,
        _ => return device.open(),
    };
    let cards = Cuda::count()?.saturating_sub(first);
    if world == 1 || cards >= world || cards == 0 {
        return Device::cuda(first + rank);
    }
    if rank == 0 {
        eprintln!("{world} ranks share {cards} of this machine's cards and exchange through host memory");
    }
    Device::cuda(first + rank % cards)
}

/// Cards that ranks can have to themselves; 0 where the device is none.
fn cards(device: DeviceArg, world: usize) -> usize {
    let first = match device {
        DeviceArg::Cuda(first) => first,
        DeviceArg::Auto => 0,
        _ => return 0,
    };
    Cuda::count().map_or(0, |cards| cards.saturating_sub(first)).min(world)
}

fn is_card(device: &Device) -> bool {
    matches!(device, Device::Cuda(cuda) if cuda.emulator().is_none())
}
