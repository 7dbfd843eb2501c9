//! `metrics.jsonl`: one line per step, kept consistent with the checkpoint over a resume.

use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The measurements of one optimizer step: a line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Counted from 1.
    pub step: usize,
    /// Mean over the labelled tokens of the step, before the update: of cross-entropy, and on distilled tokens of the
    /// weighted divergence from the teacher.
    pub loss: f64,
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens of the step, prompts included.
    pub tokens: usize,
    pub tokens_per_s: f64,
    /// Share of the device's measured peak FLOP/s; absent on software GPUs, whose time has no meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roof_share: Option<f64>,
    /// Bytes in use on the device after the step.
    #[serde(default)]
    pub bytes: usize,
    /// The highest number of bytes in use so far.
    pub peak_bytes: usize,
    /// Seconds of the step that this rank spent in collectives, waiting included.
    #[serde(default)]
    pub comm_seconds: f64,
    /// Validation loss after the update, in steps that measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
}

impl fmt::Display for StepMetrics {
    /// One line: loss, speed, memory, gradient norm, time of collectives.
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

/// The metrics of a run so far, and its open `metrics.jsonl`.
pub struct MetricsLog {
    path: PathBuf,
    metrics: Vec<StepMetrics>,
    file: Option<File>,
}

impl MetricsLog {
    /// Opens `path` to continue after step `completed_steps`: later lines, and an incomplete last one, are removed.
    /// Without `writes` the file is left to another rank.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(path: impl Into<PathBuf>, completed_steps: usize, writes: bool) -> Result<MetricsLog> {
        let path = path.into();
        let mut metrics = read(&path)?;
        metrics.retain(|metric| metric.step <= completed_steps);
        let mut file = None;
        if writes {
            write_atomic(&path, metrics.iter().map(to_line).collect::<String>().as_bytes())?;
            file = Some(File::options().append(true).open(&path).map_err(|e| Error::io(&path, e))?);
        }
        Ok(MetricsLog { path, metrics, file })
    }

    /// The metrics of all steps so far.
    pub fn metrics(&self) -> &[StepMetrics] {
        &self.metrics
    }

    /// Appends one step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&mut self, metric: &StepMetrics) -> Result<()> {
        self.metrics.push(metric.clone());
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(to_line(metric).as_bytes()));
        written.map_err(|e| Error::io(&self.path, e))
    }
}

/// Reads the complete lines of a `metrics.jsonl`; none when it does not exist.
///
/// # Errors
/// A file that exists and cannot be read.
pub fn read(path: &Path) -> Result<Vec<StepMetrics>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io(path, e)),
    }
}

fn to_line(metric: &StepMetrics) -> String {
    serde_json::to_string(metric).expect("plain numbers") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(step: usize) -> StepMetrics {
        let validation_loss = (step == 2).then_some(0.5);
        StepMetrics {
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
    fn a_resumed_log_drops_steps_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0, true).unwrap();
        (1..=4).for_each(|step| log.write(&metric(step)).unwrap());
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"step\": 5, \"lo").unwrap();
        let silent = MetricsLog::open(&path, 2, false).unwrap();
        let mut log = MetricsLog::open(&path, 2, true).unwrap();
        assert_eq!(silent.metrics(), log.metrics());
        assert_eq!(read(&path).unwrap(), [metric(1), metric(2)]);
        log.write(&metric(3)).unwrap();
        assert_eq!(read(&path).unwrap(), [metric(1), metric(2), metric(3)]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
