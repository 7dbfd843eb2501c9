//! The threads of the CPU's work.

use codelsi_engine::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Starts the threads of this process: `threads`, or one for each processor. The caller is one of them, so that it computes
/// while others would wait for it, unless it would be alone: another thread's work must not wait for a busy caller.
///
/// # Errors
/// When the threads are started already, or cannot be.
pub fn start_threads(threads: Option<usize>) -> Result<()> {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or_else(processors);
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    let pool = if threads > 1 { pool.use_current_thread() } else { pool };
    pool.build_global().map_err(|e| Error::new(e.to_string()))
}

/// Makes the calling thread one of a pool of its own, as large as the process's, for as long as the result lives: a thread
/// that is not the one of [`start_threads`] computes itself then, instead of waiting for those of the process.
///
/// # Errors
/// When the threads cannot be started.
pub fn join_own_threads() -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).use_current_thread();
    pool.build().map_err(|e| Error::new(e.to_string()))
}

/// Runs `f` on a share of this process's threads, that of one of `ranks` ranks.
///
/// # Errors
/// That of `f`, or when the threads cannot be started.
pub fn on_share_of_threads<T: Send>(ranks: usize, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let threads = (rayon::current_num_threads() / ranks).max(1);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::new(e.to_string()))?.install(f)
}
