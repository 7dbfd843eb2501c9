//! `roofline`: the card's roofs, and how near to them each op comes at sizes of Code Llama 13B, or one's own.
//!
//! Random data; the L2 cache is flushed before every run, behind which the host gets ahead of the card; medians.

use crate::specs::{sizes, specs};
use codelsi_engine::{At, DType, Device, Error, Result};
use codelsi_kernels::roof;
use codelsi_kernels::spec::{Case, Cost, Spec};
use codelsi_kernels::stopwatch::{Pass, Stopwatch, TimedCase};
use serde_json::{Value, json};
use std::time::Duration;

/// The ops to time, at which sizes.
pub struct RooflineRequest<'a> {
    pub ops: &'a [String],
    pub shape: Option<&'a str>,
    /// Timed runs of each; the figure is their median.
    pub repeat: usize,
}

/// The time of one op, forward or backward, at one size.
pub struct OpTiming {
    pub op: &'static str,
    pub name: String,
    pub milliseconds: f64,
    pub cost: Cost,
}

/// The card's roofs.
#[derive(Clone, Copy)]
pub struct Roofs {
    /// Bytes a second of a copy, read and write counted.
    pub bytes: f64,
    /// bf16 flops a second of mma.sync.
    pub flops: f64,
}

/// A card and its stopwatch.
struct RooflineBench<'a> {
    device: &'a Device,
    repeat: usize,
    watch: Stopwatch,
}

/// Measures the roofs, then every op, and calls `seen` with each timing.
///
/// # Errors
/// When the device is no card, an op is unknown, a shape does not fit, or an op fails.
pub fn run(
    device: &Device,
    request: &RooflineRequest,
    mut seen: impl FnMut(Roofs, &OpTiming),
) -> Result<(Roofs, Vec<OpTiming>)> {
    if !matches!(device, Device::Cuda(_)) {
        return Err(Error::new("a roofline needs a card: use --device cuda"));
    }
    let mut bench = RooflineBench { device, repeat: request.repeat.max(1), watch: Stopwatch::new(device) };
    let roofs = bench.roofs()?;
    let mut all = Vec::new();
    for spec in specs(request.ops)? {
        let shapes = match request.shape {
            Some(text) => vec![sizes(spec, text)?],
            None => spec.shapes.real.iter().map(|s| s.to_vec()).collect(),
        };
        for (dtype, sizes) in
            [DType::BF16, DType::F32].into_iter().flat_map(|d| shapes.iter().map(move |s| (d, s)))
        {
            for timed in bench.op(spec, dtype, sizes).at(spec.name)? {
                seen(roofs, &timed);
                all.push(timed);
            }
        }
    }
    Ok((roofs, all))
}

/// Returns the name of a case's timing.
pub fn timing_name(spec: &Spec, dtype: DType, case: &Case, pass: Pass) -> String {
    let suffix = if pass == Pass::Backward { " backward" } else { "" };
    format!("{} {dtype:?} {}{suffix}", spec.name, case.name)
}

impl RooflineBench<'_> {
    fn roofs(&self) -> Result<Roofs> {
        let measured = (roof::bytes(self.device)?, roof::flops(self.device, DType::BF16)?);
        let (Some(bytes), Some(flops)) = measured else {
            return Err(Error::new("a roofline needs a card: use --device cuda"));
        };
        Ok(Roofs { bytes, flops })
    }

    /// Times an op forward, and backward where the op states that cost.
    fn op(&mut self, spec: &Spec, dtype: DType, sizes: &[usize]) -> Result<Vec<OpTiming>> {
        let case = (spec.shapes.case)(dtype, sizes);
        let backward = spec.shapes.backward.map(|cost| cost(dtype, sizes));
        let passes = [(Pass::Forward, Some(case.cost)), (Pass::Backward, backward)];
        let passes = passes.map(|(pass, cost)| (pass, timing_name(spec, dtype, &case, pass), cost));
        let mut work = TimedCase::new(self.device, case, dtype)?;
        let mut all = Vec::new();
        for (pass, name, cost) in passes {
            let Some(cost) = cost else { continue };
            let milliseconds = self.median(|watch| work.time(pass, watch))?;
            all.push(OpTiming { op: spec.name, name, milliseconds, cost });
        }
        Ok(all)
    }

    /// Returns the median in milliseconds of `repeat` runs, after one that compiles and allocates.
    fn median(&mut self, mut run: impl FnMut(&mut Stopwatch) -> Result<Duration>) -> Result<f64> {
        run(&mut self.watch)?;
        let mut times: Vec<Duration> =
            (0..self.repeat).map(|_| run(&mut self.watch)).collect::<Result<_>>()?;
        times.sort();
        Ok(times[times.len() / 2].as_secs_f64() * 1e3)
    }
}

impl OpTiming {
    /// Returns GB/s, TFLOP/s and the share of the nearer roof ([`roof::share`]).
    pub fn rates(&self, roofs: Roofs) -> (f64, f64, Option<f64>) {
        let per_second = |x: f64| x / self.milliseconds * 1e3;
        let (bytes, flops) = (per_second(self.cost.bytes), per_second(self.cost.flops));
        (bytes / 1e9, flops / 1e12, roof::share((bytes / roofs.bytes).max(flops / roofs.flops), 1.0))
    }

    /// Returns the timing as a line of text.
    pub fn line(&self, roofs: Roofs) -> String {
        let (gb, tflops, share) = self.rates(roofs);
        format!(
            "{:<56}{:>9.3} ms{gb:>9.0} GB/s{tflops:>9.1} TFLOP/s  {}",
            self.name,
            self.milliseconds,
            roof::share_text(share)
        )
    }
}

/// Returns the results as JSON.
pub fn object(device: &str, roofs: Roofs, all: &[OpTiming]) -> Value {
    json!({
        "device": device, "copy_gb_per_s": roofs.bytes / 1e9, "mma_tflop_per_s": roofs.flops / 1e12,
        "ops": rows(roofs, all),
    })
}

/// Returns an object of each timing.
pub fn rows(roofs: Roofs, all: &[OpTiming]) -> Vec<Value> {
    let row = |t: &OpTiming| {
        let (gb, tflops, share) = t.rates(roofs);
        json!({
            "op": t.op, "name": t.name, "milliseconds": t.milliseconds, "gb_per_s": gb,
            "tflop_per_s": tflops, "share_of_roof": share,
        })
    };
    all.iter().map(row).collect()
}
