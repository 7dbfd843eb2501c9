//! The published figures that the model is held to: `targets.json`.

use super::Chip;
use super::op::{kernels, launches};
use crate::counters::Passes;
use crate::specs::specs;
use codelsi_engine::{At, DType, Error, Result};
use serde_json::{Value, json};

const FILE: &str = include_str!("../../targets.json");
/// Blocks of the launch that are executed.
const SAMPLED: u64 = 64;
/// Largest distance of a prediction from the published range.
const TOLERANCE: f64 = 0.15;

/// A published rate of a kernel, as a range.
struct Target {
    name: String,
    chip: Chip,
    op: String,
    sizes: Vec<usize>,
    mask: String,
    /// The kernel that is modelled.
    kernel: String,
    unit: Unit,
    low: f64,
    high: f64,
}

/// Unit of a rate: the case's flops in TFLOP/s, or its bytes in GB/s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    Teraflops,
    Gigabytes,
}

/// A target and the modelled rate, in the same unit.
pub struct MetTarget {
    target: Target,
    pub rate: f64,
}

/// Models every target whose name contains `name`; all when it is empty.
///
/// # Errors
/// When the file is damaged, an op fails or there is no compiler.
pub fn meet(name: &str) -> Result<Vec<MetTarget>> {
    let all = read(FILE)?.into_iter().filter(|target| target.name.contains(name));
    all.map(|target| {
        let rate = target.rate().at(&target.name)?;
        Ok(MetTarget { target, rate })
    })
    .collect()
}

impl Target {
    /// The modelled rate.
    fn rate(&self) -> Result<f64> {
        let spec = specs(std::slice::from_ref(&self.op))?[0];
        let case = (spec.shapes.case)(DType::BF16, &self.sizes);
        let mut launches = launches(&self.chip, &case, DType::BF16, Passes::Forward, SAMPLED)?;
        launches.retain(|launch| launch.kernel == self.kernel);
        let kernels = kernels(&self.chip, &launches)?;
        let [kernel] = &kernels[..] else {
            return Err(Error::new(format!("{} launches no {}", self.op, self.kernel)));
        };
        Ok(match self.unit {
            Unit::Teraflops => case.cost.flops / kernel.seconds / 1e12,
            Unit::Gigabytes => case.cost.bytes / kernel.seconds / 1e9,
        })
    }
}

impl MetTarget {
    /// The modelled rate over the nearer end of the published range; 1 inside of it.
    pub fn ratio(&self) -> f64 {
        self.rate / self.rate.clamp(self.target.low, self.target.high)
    }

    /// True when the modelled rate is near enough to the published range.
    pub fn is_met(&self) -> bool {
        (self.ratio() - 1.0).abs() <= TOLERANCE
    }
}

fn read(text: &str) -> Result<Vec<Target>> {
    let json: Value = serde_json::from_str(text).map_err(|e| Error::new(e.to_string()))?;
    let all = json.as_array().ok_or_else(|| Error::new("no array"))?;
    all.iter().map(target).collect::<Result<_>>().at("targets.json")
}

fn target(json: &Value) -> Result<Target> {
    let word = |key: &str| {
        json[key].as_str().map(str::to_owned).ok_or_else(|| Error::new(format!("{key} is no text")))
    };
    let number = |key: &str| {
        let number = json[key].as_f64().filter(|&x| x > 0.0);
        number.ok_or_else(|| Error::new(format!("{key} is no number above 0")))
    };
    let sizes = json["shape"].as_array().and_then(|sizes| sizes.iter().map(|n| n.as_u64()).collect());
    let sizes: Option<Vec<u64>> = sizes;
    let unit = match json["unit"].as_str() {
        Some("TFLOP/s") => Unit::Teraflops,
        Some("GB/s") => Unit::Gigabytes,
        _ => return Err(Error::new("unit is neither TFLOP/s nor GB/s")),
    };
    Ok(Target {
        name: word("name")?,
        chip: Chip::find(&word("chip")?)?,
        op: word("op")?,
        sizes: sizes
            .ok_or_else(|| Error::new("shape is no list of sizes"))?
            .iter()
            .map(|&n| n as usize)
            .collect(),
        mask: word("mask")?,
        kernel: word("kernel")?,
        unit,
        low: number("low")?,
        high: number("high")?,
    })
}

/// Returns the table of the targets.
pub fn targets_table(met: &[MetTarget]) -> String {
    let mut text = format!(
        "{:<28}{:<24}{:>10}{:>12}{:>9}{:>8}\n",
        "target", "shape", "modelled", "published", "", "ratio"
    );
    for m @ MetTarget { target, rate } in met {
        let Target { name, low, high, .. } = target;
        let verdict = if m.is_met() { "" } else { "  beyond 15 %" };
        text += &format!(
            "{name:<28}{:<24}{rate:>10.0}{:>12}{:>9}{:>8.2}{verdict}\n",
            target.shape(),
            format!("{low}-{high}"),
            target.unit.name(),
            m.ratio()
        );
    }
    text
}

/// Returns the targets as JSON.
pub fn targets_object(met: &[MetTarget]) -> Value {
    json!({ "ok": met.iter().all(MetTarget::is_met), "targets": target_rows(met) })
}

/// Returns an object of each target.
pub fn target_rows(met: &[MetTarget]) -> Vec<Value> {
    met.iter().map(MetTarget::row).collect()
}

impl MetTarget {
    fn row(&self) -> Value {
        let Target { name, chip, op, kernel, mask, low, high, .. } = &self.target;
        json!({
            "target": name, "chip": chip.name, "arch": chip.arch, "op": op, "shape": self.target.shape(),
            "dtype": "BF16", "mask": mask, "kernel": kernel, "unit": self.target.unit.name(),
            "modelled": self.rate, "low": low, "high": high, "ratio": self.ratio(), "ok": self.is_met(),
        })
    }
}

impl Target {
    fn shape(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(ToString::to_string).collect();
        sizes.join(",")
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Teraflops => "TFLOP/s",
            Unit::Gigabytes => "GB/s",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The constants were frozen before the last of them was computed.
    #[test]
    fn every_published_figure_is_met_within_15_percent() {
        if codelsi_testing::or_skip(codelsi_engine::cuda::Nvrtc::get()).is_none() {
            return;
        }
        let met = meet("").unwrap();
        print!("{}", targets_table(&met));
        assert_eq!(met.len(), 4);
        let missed: Vec<(&str, f64)> =
            met.iter().filter(|m| !m.is_met()).map(|m| (m.target.name.as_str(), m.ratio())).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}
