//! Ranks that are threads of the test.

use codelsi_engine::comm::Host;
use codelsi_engine::{Comm, Device, Rank, Result, Threads};
use std::sync::Arc;
use std::time::Duration;

/// What each rank's `f` returns; a rank that fails tells the others.
pub fn on_ranks<T: Send>(world: usize, f: impl Fn(Rank) -> Result<T> + Sync) -> Vec<Result<T>> {
    on_ranks_over(Threads::group_within(world, Duration::from_secs(20)), |host| host, Device::cpu, f)
}

/// [`on_ranks`] of a group whose links are wrapped, each rank on a device of its own.
pub fn on_ranks_over<T: Send, C: Comm + 'static>(
    group: Vec<Host>,
    wrap: impl Fn(Host) -> C + Sync,
    device: impl Fn() -> Device + Sync,
    f: impl Fn(Rank) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let (f, wrap, device) = (&f, &wrap, &device);
    std::thread::scope(|scope| {
        let one = |host: Host| {
            let comm: Arc<dyn Comm> = Arc::new(wrap(host));
            let result = f(Rank { device: device(), comm: comm.clone() });
            result.inspect_err(|e| comm.abort(&e.to_string()))
        };
        let ranks: Vec<_> = group.into_iter().map(|host| scope.spawn(move || one(host))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}
