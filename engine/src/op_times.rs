//! Time by op: where a step spends it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Forward or backward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pass {
    Forward,
    Backward,
}

/// Calls of an op, and the time that they took, without that of ops inside of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct OpTime {
    pub calls: usize,
    pub time: Duration,
}

/// Times by op and pass.
pub type OpTimes = BTreeMap<(&'static str, Pass), OpTime>;

#[derive(Default)]
struct Recording {
    times: OpTimes,
    /// The time of the ops inside of each op that is running, the outermost first.
    inner: Vec<Duration>,
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// Runs `f`, and returns the times of the ops that it called on this thread besides its result.
pub fn record<R>(f: impl FnOnce() -> R) -> (R, OpTimes) {
    RECORDING.set(Some(Recording::default()));
    let result = f();
    let recording = RECORDING.take().unwrap_or_default();
    (result, recording.times)
}

/// True if this thread records times.
pub(crate) fn is_recording() -> bool {
    RECORDING.with_borrow(Option::is_some)
}

/// Runs `f`; if this thread records times, its own is that of op `name`.
pub(crate) fn timed<R>(name: &'static str, pass: Pass, f: impl FnOnce() -> R) -> R {
    if !is_recording() {
        return f();
    }
    with_recording(|recording| recording.inner.push(Duration::ZERO));
    let started = Instant::now();
    let result = f();
    let all = started.elapsed();
    with_recording(|recording| {
        let inner = recording.inner.pop().unwrap_or_default();
        if let Some(outer) = recording.inner.last_mut() {
            *outer += all;
        }
        let op = recording.times.entry((name, pass)).or_default();
        (op.calls, op.time) = (op.calls + 1, op.time + all.saturating_sub(inner));
    });
    result
}

fn with_recording(f: impl FnOnce(&mut Recording)) {
    RECORDING.with_borrow_mut(|recording| recording.as_mut().map(f));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn an_op_has_its_own_time_without_that_of_ops_inside() {
        let pause = |milliseconds| sleep(Duration::from_millis(milliseconds));
        let ((), times) = record(|| {
            timed("outer", Pass::Backward, || {
                timed("inner", Pass::Forward, || pause(30));
                timed("inner", Pass::Forward, || ());
            });
        });
        let (outer, inner) = (times[&("outer", Pass::Backward)], times[&("inner", Pass::Forward)]);
        assert_eq!((times.len(), outer.calls, inner.calls), (2, 1, 2));
        assert!(inner.time >= Duration::from_millis(30) && outer.time < inner.time, "{times:?}");
        assert_eq!(timed("later", Pass::Forward, || 7), 7);
        assert!(!is_recording());
    }
}
