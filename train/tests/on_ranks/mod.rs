//! Ranks as threads of the test process.
#![allow(dead_code, reason = "each test uses its part")]

use codelsi_engine::comm::HostComm;
use codelsi_engine::{Comm, Device, Rank, Result, Threads};
use std::sync::Arc;
use std::time::Duration;

/// Runs `f` on `world` ranks and returns their results; a rank that fails aborts the others.
pub fn on_ranks<T: Send>(world: usize, f: impl Fn(Rank) -> Result<T> + Sync) -> Vec<Result<T>> {
    on_ranks_over(Threads::group_within(world, Duration::from_secs(20)), |host| host, Device::cpu, f)
}

/// Runs `f` on the ranks of `group`, each with its communicator wrapped and a device of its own.
pub fn on_ranks_over<T: Send, C: Comm + 'static>(
    group: Vec<HostComm>,
    wrap: impl Fn(HostComm) -> C + Sync,
    device: impl Fn() -> Device + Sync,
    f: impl Fn(Rank) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let (f, wrap, device) = (&f, &wrap, &device);
    std::thread::scope(|scope| {
        let run = |host: HostComm| {
            let comm: Arc<dyn Comm> = Arc::new(wrap(host));
            let result = f(Rank { device: device(), comm: comm.clone() });
            result.inspect_err(|e| comm.abort(&e.to_string()))
        };
        let ranks: Vec<_> = group.into_iter().map(|host| scope.spawn(move || run(host))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}
