//! A bug is put into the kernels, and its case is checked.

use crate::bug::Bug;
use codelsi_engine::Device;
use codelsi_kernels::check::{Report, case_on_device};
use codelsi_kernels::{ALL, roof};
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
    (": data race between blocks: ", "race between blocks"),
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
            (Outcome::Caught("numbers"), None) if bug.quiet => Some("said to be quiet, but the numbers are wrong".into()),
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

/// Checks the bug's case of `op` on a software GPU whose kernels have it.
pub fn run(op: &str, bug: &Bug) -> Outcome {
    check(op, bug).unwrap_or_else(Outcome::Untried)
}

fn check(op: &str, bug: &Bug) -> Result<Outcome, String> {
    let text = |e: codelsi_engine::Error| e.to_string();
    let spec = ALL.iter().find(|spec| spec.name == op).ok_or("there is no such op")?;
    let cases = (spec.cases)(bug.dtype);
    let case = cases.into_iter().find(|case| case.name == bug.case);
    let case = case.ok_or_else(|| format!("there is no case `{}`", bug.case))?;
    let device = Device::emulated("sm_80").map_err(text)?;
    let Device::Cuda(cuda) = &device else { return Err("no CUDA device".into()) };
    let mut applied = 0;
    for source in ALL.iter().flat_map(|spec| spec.sources.iter().copied()).chain([&roof::SOURCE]) {
        if let Some(broken) = bug.applied(source)? {
            cuda.substitute(broken).map_err(text)?;
            applied += 1;
        }
    }
    if applied == 0 {
        return Err("no source has this file".into());
    }
    let mut report = Report::default();
    match case_on_device(&case, &device, bug.dtype, SEED, &mut report) {
        Ok(()) if report.worst_ratio > 1.0 => Ok(Outcome::Caught("numbers")),
        Ok(()) => Ok(Outcome::Missed),
        Err(e) => {
            let e = e.to_string();
            let check = CHECKS.iter().find(|check| e.contains(check.0));
            check.map(|check| Outcome::Caught(check.1)).ok_or(e)
        }
    }
}
