//! Signals: the first ends the server in order, a second at once.

use crate::drain::Drain;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Begins the end at SIGTERM or SIGINT.
///
/// # Errors
/// When no handler can be set.
pub fn begin_on_signal(drain: Drain) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        drain.begin();
        let number = next(&mut terminate, &mut interrupt).await;
        std::process::exit(128 + number);
    });
    Ok(())
}

/// Waits for a signal and returns its number.
async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
    }
}
