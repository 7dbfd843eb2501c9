//! The ranges of numbers on the command line: one parser for each notion. What is outside is refused with its range.

use clap::builder::RangedU64ValueParser;
use codelsi_train::options;
use std::ops::RangeInclusive;

/// Parses an integer of a range.
type Count = RangedU64ValueParser<usize>;

fn count(range: RangeInclusive<usize>) -> Count {
    RangedU64ValueParser::new().range(*range.start() as u64..=*range.end() as u64)
}

/// Completions of a prompt or problem.
pub fn samples() -> Count {
    count(1..=1_000_000)
}

/// Tokens of a text, above 0; a model's positions limit them further.
pub fn tokens() -> Count {
    count(1..=1 << 24)
}

/// Tokens of a text; 0 leaves it out.
pub fn tokens_or_none() -> Count {
    count(0..=1 << 24)
}

/// Threads of the CPU's work.
pub fn threads() -> Count {
    count(1..=1024)
}

/// Layers of a model.
pub fn layers() -> Count {
    count(1..=1000)
}

/// Sequences at the same time, or in a step.
pub fn sequences() -> Count {
    count(options::SEQUENCES)
}

/// Steps of an optimizer, above 0.
pub fn steps() -> Count {
    count(options::STEPS)
}

/// Steps of an optimizer, or none.
pub fn steps_or_none() -> Count {
    count(0..=*options::STEPS.end())
}

/// Passes over the rows.
pub fn epochs() -> Count {
    count(options::EPOCHS)
}

/// Rows or problems, above 0.
pub fn rows() -> Count {
    count(1..=1_000_000_000)
}

/// Rows, or none.
pub fn rows_or_none() -> Count {
    count(0..=1_000_000_000)
}

/// Rank of an adapter.
pub fn rank() -> Count {
    count(options::RANK)
}

/// Seeds of an experiment.
pub fn seeds() -> Count {
    count(1..=1_000)
}

/// Repetitions of a measurement.
pub fn repetitions() -> Count {
    count(1..=1_000_000)
}

/// Rounds of a teacher, or none.
pub fn rounds_or_none() -> Count {
    count(0..=100)
}

/// Memory in MiB.
pub fn mebibytes() -> Count {
    count(1..=1 << 24)
}

/// Adapters of a batch, or none.
pub fn adapters() -> Count {
    count(0..=64)
}

/// Candidates among the tokens of a vocabulary; 0 is all of them.
pub fn candidates() -> Count {
    count(0..=1 << 31)
}

/// Parses a softmax temperature.
///
/// # Errors
/// When it is not from 0 to 1000.
pub fn temperature(text: &str) -> Result<f32, String> {
    within(text, 0.0, 1e3).map(|x| x as f32)
}

/// Parses a share.
///
/// # Errors
/// When it is not from 0 to 1.
pub fn share(text: &str) -> Result<f32, String> {
    within(text, 0.0, 1.0).map(|x| x as f32)
}

/// Parses a share in double precision.
///
/// # Errors
/// When it is not from 0 to 1.
pub fn fraction(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1.0)
}

/// Parses a number of events in a second.
///
/// # Errors
/// When it is not from 0 to 1000000.
pub fn rate(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1e6)
}

/// Parses a factor.
///
/// # Errors
/// When it is not from 0.001 to 1000.
pub fn factor(text: &str) -> Result<f32, String> {
    within(text, 1e-3, 1e3).map(|x| x as f32)
}

/// Parses a frequency or presence penalty; its range is that of OpenAI's API.
///
/// # Errors
/// When it is not from -2 to 2.
pub fn penalty(text: &str) -> Result<f32, String> {
    within(text, -2.0, 2.0).map(|x| x as f32)
}

fn within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().map_err(|_| "it is no number".to_owned())?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("it is not from {least} to {most}")),
    }
}
