//! SIGINT and SIGTERM: the first lets the work end in order, the second ends the process at once.

use codelsi_engine::{Error, Result, interrupt};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Handles both signals from now on.
///
/// # Errors
/// When the system refuses.
pub fn handle() -> Result<()> {
    let armed = Arc::new(AtomicBool::new(false));
    let register = |signal: i32| {
        // In this order: the first signal arms the end that the second meets.
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
        flag::register(signal, armed.clone())?;
        flag::register_usize(signal, interrupt::flag(), signal as usize)
    };
    let registered = [SIGINT, SIGTERM].into_iter().try_for_each(|signal| register(signal).map(drop));
    registered.map_err(|e: std::io::Error| Error::new(format!("signals cannot be handled: {e}")))
}

/// Lets SIGINT set a flag from now on, however often it comes, and end nothing. SIGTERM ends the process.
///
/// # Errors
/// When the system refuses.
pub fn catch_interrupts() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let registered = flag::register(SIGINT, interrupted.clone());
    registered.map(|_| interrupted).map_err(|e| Error::new(format!("SIGINT cannot be handled: {e}")))
}

/// The exit code of a process that a signal ended.
pub fn exit_code(signal: usize) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
