//! `metrics.jsonl`: one line a step, and how a resumed run goes on with it.

use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Counted from 1.
    pub step: usize,
    /// Mean over the step's labelled tokens, before the update.
    pub loss: f64,
    pub lr: f64,
    /// Global norm before clipping.
    pub grad_norm: f64,
    /// Tokens of the step, prompts included.
    pub tokens: usize,
    pub tokens_per_s: f64,
    /// Of the flops a second that the device was measured at; absent where time means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roof_share: Option<f64>,
    /// In use on the device after the step, and at most so far.
    #[serde(default)]
    pub bytes: usize,
    pub peak_bytes: usize,
    /// Seconds of the step in which this rank waited for others or exchanged with them.
    #[serde(default)]
    pub comm_seconds: f64,
    /// After the update, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
}

impl fmt::Display for Metric {
    /// One line: how far, how fast, how full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        write!(f, "loss {:.4}, {:.0} tokens/s", self.loss, self.tokens_per_s)?;
        if let Some(share) = self.roof_share {
            write!(f, " ({:.1} % of the roof)", 100.0 * share)?;
        }
        write!(f, ", {:.0}/{:.0} MiB", mib(self.bytes), mib(self.peak_bytes))?;
        write!(f, ", gradient {:.3}, exchange {:.2} s", self.grad_norm, self.comm_seconds)
    }
}

/// The steps of a run so far, and the open `metrics.jsonl`.
pub struct Log {
    path: PathBuf,
    metrics: Vec<Metric>,
    file: Option<File>,
}

impl Log {
    /// Opens `path` to go on after step `done`: later lines, and one that a kill cut short, are removed. A log that does
    /// not write leaves the file to another rank.
    pub fn open(path: impl Into<PathBuf>, done: usize, writes: bool) -> Result<Log> {
        let path = path.into();
        let mut metrics = read(&path)?;
        metrics.retain(|metric| metric.step <= done);
        let mut file = None;
        if writes {
            write_atomic(&path, metrics.iter().map(line).collect::<String>().as_bytes())?;
            file = Some(File::options().append(true).open(&path).map_err(|e| Error::io(&path, e))?);
        }
        Ok(Log { path, metrics, file })
    }

    /// The steps so far.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Appends one line.
    pub fn write(&mut self, metric: &Metric) -> Result<()> {
        self.metrics.push(metric.clone());
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(line(metric).as_bytes()));
        written.map_err(|e| Error::io(&self.path, e))
    }
}

/// The whole lines of a `metrics.jsonl`; none when it does not exist.
pub fn read(path: &Path) -> Result<Vec<Metric>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io(path, e)),
    }
}

fn line(metric: &Metric) -> String {
    serde_json::to_string(metric).expect("plain numbers") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(step: usize) -> Metric {
        let validation_loss = (step == 2).then_some(0.5);
        Metric {
            step,
            loss: 1.0 / step as f64,
            lr: 1e-4,
            grad_norm: 2.0,
            tokens: 7,
            tokens_per_s: 3.5,
            roof_share: Some(0.5),
            bytes: 8,
            peak_bytes: 9,
            comm_seconds: 0.25,
            validation_loss,
        }
    }

    #[test]
    fn a_resumed_log_forgets_what_the_checkpoint_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = Log::open(&path, 0, true).unwrap();
        (1..=4).for_each(|step| log.write(&metric(step)).unwrap());
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"step\": 5, \"lo").unwrap();
        let silent = Log::open(&path, 2, false).unwrap();
        let mut log = Log::open(&path, 2, true).unwrap();
        assert_eq!(silent.metrics(), log.metrics());
        assert_eq!(read(&path).unwrap(), [metric(1), metric(2)]);
        log.write(&metric(3)).unwrap();
        assert_eq!(read(&path).unwrap(), [metric(1), metric(2), metric(3)]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
