//! MultiPL-E's reading of a finished process: the status, and the diagnostics worth showing.

use super::judgement::Status;
use crate::sandbox::{ProcessOutput, Resource, Termination};
use std::path::Path;

/// Returns the status of a program that compiled, by MultiPL-E's rule.
pub fn classify(run: &ProcessOutput) -> Status {
    match run.end {
        Termination::LimitExceeded(Resource::Wall | Resource::Cpu) => Status::Timeout,
        Termination::Exited(0) => Status::Ok,
        _ if run.stderr.contains("ERR_ASSERTION") => Status::AssertionError,
        _ if run.stderr.contains("SyntaxError") => Status::SyntaxError,
        _ if run.stderr.contains("ReferenceError") => Status::ReferenceError,
        _ => Status::Exception,
    }
}

/// Returns the diagnostics of a run that failed: the limit that it exceeded, or the lines in which its tools report the
/// error. The path of `folder`, which is different in every run, is left out.
pub fn diagnostics(run: &ProcessOutput, folder: &Path) -> String {
    match run.end {
        Termination::Exited(0) => return String::new(),
        Termination::LimitExceeded(resource) => {
            return format!("stopped: over its limit of {}", resource.name());
        }
        Termination::Exited(_) => {}
    }
    let prefix = format!("{}/", folder.display());
    let [stdout, stderr] = [&run.stdout, &run.stderr].map(|stream| stream.printable().replace(&prefix, ""));
    let shown = first_lines(if stderr.trim().is_empty() { &stdout } else { &stderr });
    if shown.is_empty() { format!("ended with {:?} without output", run.end) } else { shown }
}

/// Returns the first lines of an output, bounded in number and length, without stack frames and versions.
pub fn first_lines(output: &str) -> String {
    const LINES: usize = 60;
    const CHARACTERS: usize = 8_000;
    let noise =
        |line: &&str| line.trim().is_empty() || line.starts_with("    at ") || line.starts_with("Node.js v");
    let lines: Vec<&str> = output.lines().filter(|line| !noise(line)).collect();
    let text = lines.iter().take(LINES).copied().collect::<Vec<_>>().join("\n");
    let shown: String = text.chars().take(CHARACTERS).collect();
    if lines.len() > LINES || shown.len() < text.len() { shown + " …" } else { shown }
}
