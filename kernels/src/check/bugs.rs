//! Trials of seeded bugs: kernels are compiled with the bug, and its case is checked.

use super::{CheckReport, case_on_device, numbers_on_device};
use crate::ALL;
use crate::bug::Bug;
use crate::spec::{Case, Spec};
use codelsi_engine::Device;
use std::fmt;

const SEED: u64 = 20260914;

/// Texts of the errors of failed checks, and the checks' names.
const CHECKS: &[(&str, &str)] = &[
    (": out of bounds: ", "out of bounds"),
    (": misaligned: ", "misaligned"),
    (": uninitialised data: ", "uninitialised data"),
    (": read: ", "uninitialised result"),
    (": divergent collective: ", "divergent collective"),
    (": deadlock: ", "deadlock"),
    (": data race in shared memory: ", "race in shared memory"),
    (": data race in global memory: ", "race in global memory"),
    (": asynchronous copy: ", "asynchronous copy"),
    (": trap: ", "trap"),
    (": endless kernel: ", "endless kernel"),
    ("a kernel wrote ", "redzone"),
    ("has other bits in a second run", "bits of a second run"),
    ("is a copy and has other bits", "bits of a copy"),
];

/// The result of a bug's trial.
pub enum BugOutcome {
    /// Detected, by the named check.
    Caught(&'static str),
    Missed,
    /// Could not be tried, for this reason.
    Untried(String),
}

impl BugOutcome {
    /// Returns an objection if this differs from the declaration of `bug`.
    pub fn objection(&self, bug: &Bug) -> Option<String> {
        match (self, bug.missed) {
            (BugOutcome::Untried(why), _) => Some(why.clone()),
            (BugOutcome::Missed, None) => Some("no check sees it".into()),
            (BugOutcome::Caught(by), Some(why)) => {
                Some(format!("listed as missed ({why}), but caught by {by}"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for BugOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BugOutcome::Caught(by) => by,
            BugOutcome::Missed => "MISSED",
            BugOutcome::Untried(_) => "NOT TRIED",
        })
    }
}

/// Runs a bug's case on the unchanged kernels: it must pass.
///
/// # Errors
/// When it does not.
pub fn passes_without(spec: &Spec, bug: &Bug) -> Result<(), String> {
    let (failed, report) = check(spec, bug, &software_gpu()?)?;
    match failed {
        None if report.worst_ratio <= 1.0 => Ok(()),
        None => Err(format!("{} is off by {:.2} times what is allowed", report.worst, report.worst_ratio)),
        Some(e) => Err(e),
    }
}

/// Runs a bug's case on kernels that contain the bug. Which of the blocks that wait for each other comes first depends on
/// the threads that run them: what one run does not see is looked for again.
pub fn try_bug(spec: &Spec, bug: &Bug) -> BugOutcome {
    const RUNS: usize = 3;
    let mut outcomes = (0..RUNS).map(|_| try_once(spec, bug));
    outcomes.find(|outcome| !matches!(outcome, BugOutcome::Missed)).unwrap_or(BugOutcome::Missed)
}

fn try_once(spec: &Spec, bug: &Bug) -> BugOutcome {
    match broken(spec, bug).and_then(|device| check(spec, bug, &device)) {
        Err(e) => BugOutcome::Untried(e),
        Ok((None, report)) if report.worst_ratio > 1.0 => BugOutcome::Caught("numbers"),
        Ok((None, _)) => BugOutcome::Missed,
        Ok((Some(e), _)) => match CHECKS.iter().find(|check| e.contains(check.0)) {
            Some(check) => BugOutcome::Caught(check.1),
            None => BugOutcome::Untried(e),
        },
    }
}

/// Returns an objection if a bug declared quiet is not: without the checks of races and copies, its results in the
/// early schedule must be correct.
pub fn objection_to_quiet(spec: &Spec, bug: &Bug) -> Option<String> {
    let numbers = || {
        let (device, mut report) = (broken(spec, bug)?, CheckReport::default());
        if let Device::Cuda(cuda) = &device {
            cuda.emulator().ok_or("not a software GPU")?.set_ordering_checks(false);
        }
        let done = numbers_on_device(&case(spec, bug)?, &device, bug.dtype, SEED, &mut report);
        done.map(|()| report.worst_ratio).map_err(|e| e.to_string())
    };
    match numbers() {
        Ok(ratio) if ratio <= 1.0 => None,
        Ok(ratio) => {
            Some(format!("said to be quiet, but the numbers are off by {ratio:.2} times what is allowed"))
        }
        Err(e) => Some(format!("said to be quiet, but it fails: {e}")),
    }
}

/// Makes a software GPU that compiles kernels with the bug.
fn broken(spec: &Spec, bug: &Bug) -> Result<Device, String> {
    let device = software_gpu()?;
    let Device::Cuda(cuda) = &device else { return Err("no CUDA device".into()) };
    let mut applied = 0;
    for source in ALL.iter().copied().chain([spec]).flat_map(|spec| spec.sources) {
        if let Some(broken) = bug.applied(source)? {
            cuda.substitute_source(broken).map_err(|e| e.to_string())?;
            applied += 1;
        }
    }
    if applied == 0 {
        return Err("no source has this file".into());
    }
    Ok(device)
}

fn software_gpu() -> Result<Device, String> {
    Device::emulated("sm_80").map_err(|e| e.to_string())
}

/// Returns the error that stopped the bug's case, if there is one, and the report of its errors.
fn check(spec: &Spec, bug: &Bug, device: &Device) -> Result<(Option<String>, CheckReport), String> {
    let mut report = CheckReport::default();
    let done = case_on_device(&case(spec, bug)?, device, bug.dtype, SEED, &mut report);
    Ok((done.err().map(|e| e.to_string()), report))
}

/// Makes the case that detects the bug.
fn case(spec: &Spec, bug: &Bug) -> Result<Case, String> {
    let case = (spec.cases)(bug.dtype).into_iter().find(|case| case.name == bug.case);
    case.ok_or_else(|| format!("there is no case `{}`", bug.case))
}
