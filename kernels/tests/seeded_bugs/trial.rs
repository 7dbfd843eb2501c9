//! A bug is put into the kernels, and its case is checked.

use crate::bug::Bug;
use codelsi_engine::Device;
use codelsi_kernels::ALL;
use codelsi_kernels::check::{Report, case_on_device, numbers_on_device};
use codelsi_kernels::spec::Case;
use std::fmt;

const SEED: u64 = 20260914;

/// What errors say when a check has failed, and the check's name.
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
    ("a kernel wrote ", "fence"),
    ("has other bits in a second run", "bits of a second run"),
    ("is a copy and has other bits", "bits of a copy"),
];

/// What became of a bug.
pub enum Outcome {
    /// By which check.
    Caught(&'static str),
    Missed,
    /// It could not be tried: why.
    Untried(String),
}

impl Outcome {
    /// What is wrong with this outcome of `bug`.
    pub fn objection(&self, bug: &Bug) -> Option<String> {
        match (self, bug.missed) {
            (Outcome::Untried(why), _) => Some(why.clone()),
            (Outcome::Missed, None) => Some("no check sees it".into()),
            (Outcome::Caught(by), Some(why)) => Some(format!("listed as missed ({why}), but caught by {by}")),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Caught(by) => by,
            Outcome::Missed => "MISSED",
            Outcome::Untried(_) => "NOT TRIED",
        })
    }
}

/// Runs a bug's case of `op` on kernels as they are.
pub fn sound(op: &str, bug: &Bug) -> Result<(), String> {
    let (failed, report) = check(op, bug, &software_gpu()?)?;
    match failed {
        None if report.worst_ratio <= 1.0 => Ok(()),
        None => Err(format!("{} is off by {:.2} times what is allowed", report.worst, report.worst_ratio)),
        Some(e) => Err(e),
    }
}

/// Runs a bug's case of `op` on kernels that have it.
pub fn run(op: &str, bug: &Bug) -> Outcome {
    match broken(bug).and_then(|device| check(op, bug, &device)) {
        Err(e) => Outcome::Untried(e),
        Ok((None, report)) if report.worst_ratio > 1.0 => Outcome::Caught("numbers"),
        Ok((None, _)) => Outcome::Missed,
        Ok((Some(e), _)) => match CHECKS.iter().find(|check| e.contains(check.0)) {
            Some(check) => Outcome::Caught(check.1),
            None => Outcome::Untried(e),
        },
    }
}

/// Says what is wrong when a quiet bug is not: with races and copies left unchecked, its numbers in the early schedule
/// must be right.
pub fn loud(op: &str, bug: &Bug) -> Option<String> {
    let numbers = || {
        let (device, mut report) = (broken(bug)?, Report::default());
        if let Device::Cuda(cuda) = &device {
            cuda.emulator().ok_or("not a software GPU")?.set_ordering_checks(false);
        }
        let done = numbers_on_device(&case(op, bug)?, &device, bug.dtype, SEED, &mut report);
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

/// A software GPU that compiles kernels with the bug.
fn broken(bug: &Bug) -> Result<Device, String> {
    let device = software_gpu()?;
    let Device::Cuda(cuda) = &device else { return Err("no CUDA device".into()) };
    let mut applied = 0;
    for source in ALL.iter().flat_map(|spec| spec.sources.iter()) {
        if let Some(broken) = bug.applied(source)? {
            cuda.substitute(broken).map_err(|e| e.to_string())?;
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

/// What stopped the bug's case, if anything did, and how far its numbers are off.
fn check(op: &str, bug: &Bug, device: &Device) -> Result<(Option<String>, Report), String> {
    let mut report = Report::default();
    let done = case_on_device(&case(op, bug)?, device, bug.dtype, SEED, &mut report);
    Ok((done.err().map(|e| e.to_string()), report))
}

/// The case that is enough to show the bug.
fn case(op: &str, bug: &Bug) -> Result<Case, String> {
    let spec = ALL.iter().find(|spec| spec.name == op).ok_or("there is no such op")?;
    let case = (spec.cases)(bug.dtype).into_iter().find(|case| case.name == bug.case);
    case.ok_or_else(|| format!("there is no case `{}`", bug.case))
}
