//! The threads of the CPU's work.

use codelsi_engine::team::Team;
use codelsi_engine::{Error, Result};
use rayon::ThreadPoolBuilder;

/// Starts the threads of this process, `threads` or one for each processor: a team for the ops of the calling thread, and a
/// pool for work beside them. The caller is one of the pool too, so that it computes while others would wait for it, unless
/// it would be alone: another thread's work must not wait for a busy caller.
///
/// # Errors
/// When the threads are started already, or cannot be.
pub fn start_threads(threads: Option<usize>) -> Result<()> {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or_else(processors);
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    let pool = if threads > 1 { pool.use_current_thread() } else { pool };
    pool.build_global().map_err(|e| Error::new(e.to_string()))?;
    Team::gather(threads)?.keep();
    Ok(())
}

/// Runs `f` on a share of this process's threads, that of one of `ranks` ranks.
///
/// # Errors
/// That of `f`, or when the threads cannot be started.
pub fn on_share_of_threads<T: Send>(ranks: usize, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let threads = (rayon::current_num_threads() / ranks).max(1);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let work = || {
        let _team = Team::gather(threads)?;
        f()
    };
    pool.map_err(|e| Error::new(e.to_string()))?.install(work)
}
