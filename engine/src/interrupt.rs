//! A wish to end the process, as a signal expresses it: long work asks for it at each boundary, saves, and returns an
//! error that says so.
//!
//! The program's `main` lets its signals set [`flag`]; nobody else writes it but [`request`].

use crate::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

static FLAG: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The number of the signal that wishes the process to end; 0 until then.
pub fn flag() -> Arc<AtomicUsize> {
    FLAG.clone()
}

/// The number of the signal that wishes the process to end, if one has come.
pub fn requested() -> Option<usize> {
    Some(FLAG.load(Ordering::Relaxed)).filter(|&signal| signal > 0)
}

/// Wishes the process to end as signal `signal` would.
pub fn request(signal: usize) {
    FLAG.store(signal, Ordering::Relaxed);
}

/// The name of a signal that may end a process.
pub fn name(signal: usize) -> String {
    match signal {
        2 => "SIGINT".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}"),
    }
}

/// Returns an error if the process is wished to end; `kept` says what its work leaves behind.
///
/// # Errors
/// Only then.
pub fn check(kept: &str) -> Result<()> {
    match requested() {
        Some(signal) => Err(Error::new(format!("stopped by {}; {kept}", name(signal))).interrupted()),
        None => Ok(()),
    }
}
