//! Mutants: small wrong edits of CUDA text, drawn from a seed, which the cases of an op must tell from the text as it is.

use super::{CheckReport, case_on_device, cases};
use crate::spec::{Draw, Spec};
use codelsi_engine::cuda::{Source, compile};
use codelsi_engine::{DType, Device, Result};
use std::fmt;

const SEED: u64 = 20260914;

/// Text, and what it becomes.
const EDITS: &[(&str, &str)] = &[
    (" < ", " <= "),
    (" <= ", " < "),
    (" > ", " >= "),
    (" >= ", " > "),
    (" == ", " != "),
    (" + ", " - "),
    (" - ", " + "),
    (" * ", " + "),
    (" / ", " * "),
    (" % ", " / "),
    (" && ", " || "),
    (" || ", " && "),
    (" += ", " -= "),
    (" 1", " 2"),
    (" 2", " 3"),
    (" 4", " 3"),
    (" 8", " 7"),
    (" 16", " 15"),
    (" 32", " 31"),
    ("(0", "(1"),
    ("[0", "[1"),
    ("[1", "[0"),
    (" = 0", " = 1"),
    ("min(", "max("),
    ("max(", "min("),
    (".x", ".y"),
    ("true", "false"),
    ("false", "true"),
    ("__syncthreads();", ";"),
    ("-INFINITE", "0.0f"),
];

/// A wrong edit of one file.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub file: &'static str,
    pub line: usize,
    /// The line as it was and as it is.
    pub text: [String; 2],
    source: &'static Source,
}

/// The outcome of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MutantOutcome {
    /// A case failed: its name and error.
    Caught(String),
    /// Every case passed.
    Survived,
    /// It does not compile, or is the same machine code.
    Stillborn,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = &self.text;
        write!(f, "{}:{}: `{}` -> `{}`", self.file, self.line, before.trim(), after.trim())
    }
}

/// Draws an edit of the files of `source`, the prelude apart.
pub fn draw(source: &'static Source, draw: &mut Draw) -> Mutant {
    let own = source.headers.iter().filter(|header| header.0 != "prelude.cuh");
    let files: Vec<(&str, &str)> = own.copied().chain([(source.name, source.text)]).collect();
    let mut places = Vec::new();
    for (f, (_, text)) in files.iter().enumerate() {
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.trim_start().starts_with('#') || code.contains("static_assert") {
                continue;
            }
            for edit in EDITS {
                places.extend(code.match_indices(edit.0).map(|(at, _)| (f, n, at, edit)));
            }
        }
    }
    let (f, n, at, edit) = draw.pick(&places);
    let (name, text) = files[f];
    let lines: Vec<&str> = text.lines().collect();
    let edited = [&lines[n][..at], edit.1, &lines[n][at + edit.0.len()..]].concat();
    let before = lines[n].to_owned();
    let text = lines.iter().enumerate().map(|(i, line)| if i == n { &*edited } else { line });
    let text: &'static str = (text.collect::<Vec<_>>().join("\n") + "\n").leak();
    let swap = |(file, old): (&'static str, &'static str)| (file, if file == name { text } else { old });
    let headers: Vec<_> = source.headers.iter().map(|&header| swap(header)).collect();
    let mutated = Source { text: swap((source.name, source.text)).1, headers: headers.leak(), ..*source };
    Mutant { file: name, line: n + 1, text: [before, edited], source: Box::leak(Box::new(mutated)) }
}

/// Runs the cases of `spec` with the mutant in place, until one fails.
///
/// # Errors
/// When there is no software GPU, or a case cannot be made.
pub fn outcome(spec: &Spec, source: &Source, mutant: &Mutant) -> Result<MutantOutcome> {
    let mut differs = false;
    for variant in (source.variants)() {
        match compile(mutant.source, variant, "sm_80") {
            Err(_) => return Ok(MutantOutcome::Stillborn),
            Ok(code) => differs |= code.kernels() != compile(source, variant, "sm_80")?.kernels(),
        }
        if differs {
            break;
        }
    }
    if !differs {
        return Ok(MutantOutcome::Stillborn);
    }
    let device = Device::emulated("sm_80")?;
    if let Device::Cuda(cuda) = &device {
        cuda.substitute_source(mutant.source)?;
    }
    for dtype in [DType::BF16, DType::F32] {
        for case in cases(spec, dtype)? {
            let mut report = CheckReport::default();
            let done = case_on_device(&case, &device, dtype, SEED, &mut report);
            let caught = |what: &str| MutantOutcome::Caught(format!("{dtype:?} {}: {what}", case.name));
            match done {
                Err(e) if e.to_string().contains("does not compile") => return Ok(MutantOutcome::Stillborn),
                Err(e) => return Ok(caught(&e.to_string())),
                Ok(()) if report.worst_ratio > 1.0 => return Ok(caught("numbers")),
                Ok(()) => {}
            }
        }
    }
    Ok(MutantOutcome::Survived)
}
