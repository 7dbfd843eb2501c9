//! `roofline`: the card's roofs, and how near to them each op comes at sizes of Code Llama 13B, or one's own.
//!
//! Random data; the L2 cache is flushed before every run, behind which the host gets ahead of the card; medians.

use super::{sizes, specs};
use codelsi_engine::cuda::{Cuda, Stream};
use codelsi_engine::rng::Key;
use codelsi_engine::{At, Ctx, DType, Device, Error, Grads, Label, Result, Tensor};
use codelsi_kernels::check::{inputs, random};
use codelsi_kernels::roof::Roof;
use codelsi_kernels::spec::{Case, Cost, Spec};
use serde_json::{Value, json};

/// Bytes that push everything else out of the L2 cache of any card.
const FLUSH: usize = 256 << 20;
/// Bytes of the copy that measures the memory's roof.
const COPY: usize = 1 << 30;
const ROUNDS: usize = 20_000;

/// What is timed.
pub struct Request<'a> {
    pub ops: &'a [String],
    pub shape: Option<&'a str>,
    /// Timed runs of each; the figure is their median.
    pub repeat: usize,
}

/// One op, one way, at one size.
pub struct Timed {
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
struct Bench<'a> {
    device: &'a Device,
    cuda: &'a Cuda,
    repeat: usize,
    flush: Tensor,
}

/// Measures the roofs, then every op; `seen` is told of each.
///
/// # Errors
/// When the device is no card, an op is unknown, a shape does not fit, or an op fails.
pub fn run(
    device: &Device,
    request: &Request,
    mut seen: impl FnMut(Roofs, &Timed),
) -> Result<(Roofs, Vec<Timed>)> {
    let cuda = match device {
        Device::Cuda(cuda) if cuda.emulator().is_none() => cuda,
        _ => return Err(Error::new("a roofline needs a card: use --device cuda")),
    };
    let flush = device.zeros(Label::Scratch, [FLUSH], DType::BF16);
    let mut bench = Bench { device, cuda, repeat: request.repeat.max(1), flush };
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

impl Bench<'_> {
    fn roofs(&mut self) -> Result<Roofs> {
        let roof = Roof::new(self.device, self.cuda);
        let x = self.device.zeros(Label::Scratch, [COPY / 4], DType::F32);
        let mut y = self.device.zeros(Label::Scratch, [COPY / 4], DType::F32);
        let moved = roof.copy(&mut y, &x)?;
        let copy = self.median(|| roof.copy(&mut y, &x).map(drop))?;
        let flops = roof.products(ROUNDS)?;
        let products = self.median(|| roof.products(ROUNDS).map(drop))?;
        Ok(Roofs { bytes: moved / copy * 1e3, flops: flops / products * 1e3 })
    }

    /// Forward, and backward where the op says what it costs.
    fn op(&mut self, spec: &Spec, dtype: DType, sizes: &[usize]) -> Result<Vec<Timed>> {
        let case = (spec.shapes.case)(dtype, sizes);
        let x = inputs(self.device, &case, dtype, 1)?;
        let x: Vec<&Tensor> = x.iter().collect();
        let device = self.device;
        let timed = |way: &str, milliseconds, cost| Timed {
            op: spec.name,
            name: format!("{} {dtype:?} {}{way}", spec.name, case.name),
            milliseconds,
            cost,
        };
        let forward = self.median(|| (case.run)(&Ctx::inference(device), &x).map(drop))?;
        let mut all = vec![timed("", forward, case.cost)];
        if let Some(cost) = spec.shapes.backward {
            all.push(timed(" backward", self.backward(&case, &x)?, cost(dtype, sizes)));
        }
        Ok(all)
    }

    fn backward(&mut self, case: &Case, x: &[&Tensor]) -> Result<f64> {
        let device = self.device;
        let mut times = Vec::with_capacity(self.repeat);
        for _ in 0..=self.repeat {
            let cx = Ctx::training(device, 1, 0);
            let outputs = (case.run)(&cx, x)?;
            let ends: Vec<&Tensor> = outputs.iter().filter(|y| y.id().is_some()).collect();
            let seeds: Vec<Tensor> = (0..)
                .zip(&ends)
                .map(|(site, y)| random(device, *y.shape(), y.dtype(), 1.0, Key { seed: 1, step: 1, site }))
                .collect::<Result<_>>()?;
            let pairs = ends.into_iter().zip(seeds).collect::<Vec<_>>();
            times.push(self.time(|| cx.backward_from(pairs, &mut Grads::default()))?);
        }
        Ok(median(times))
    }

    /// The median of `repeat` runs, after one that compiles and allocates.
    fn median(&mut self, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
        let times = (0..=self.repeat).map(|_| self.time(&mut f)).collect::<Result<_>>()?;
        Ok(median(times))
    }

    fn time(&mut self, f: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.flush.zero()?;
        let start = self.cuda.record(Stream::COMPUTE)?;
        f()?;
        let end = self.cuda.record(Stream::COMPUTE)?;
        Ok(self.cuda.elapsed(&start, &end)? as f64)
    }
}

/// The first run is left out.
fn median(mut times: Vec<f64>) -> f64 {
    let times = &mut times[1..];
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

impl Timed {
    /// GB/s, TFLOP/s and the share of the nearer roof.
    pub fn rates(&self, roofs: Roofs) -> (f64, f64, f64) {
        let per_second = |x: f64| x / self.milliseconds * 1e3;
        let (bytes, flops) = (per_second(self.cost.bytes), per_second(self.cost.flops));
        (bytes / 1e9, flops / 1e12, (bytes / roofs.bytes).max(flops / roofs.flops))
    }

    /// One line for people.
    pub fn line(&self, roofs: Roofs) -> String {
        let (gb, tflops, share) = self.rates(roofs);
        format!(
            "{:<56}{:>9.3} ms{gb:>9.0} GB/s{tflops:>9.1} TFLOP/s{:>7.1} %",
            self.name,
            self.milliseconds,
            100.0 * share
        )
    }
}

/// The result for other programs.
pub fn object(device: &str, roofs: Roofs, all: &[Timed]) -> Value {
    let ops = all.iter().map(|t| {
        let (gb, tflops, share) = t.rates(roofs);
        json!({
            "op": t.op, "name": t.name, "milliseconds": t.milliseconds, "gb_per_s": gb,
            "tflop_per_s": tflops, "share_of_roof": share,
        })
    });
    json!({
        "device": device, "copy_gb_per_s": roofs.bytes / 1e9, "mma_tflop_per_s": roofs.flops / 1e12,
        "ops": ops.collect::<Vec<_>>(),
    })
}
