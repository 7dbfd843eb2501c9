//! What every op must show: the reference's values and gradients, and the same bits every time.

use crate::spec::{Case, Kind, Spec, Value};
use codelsi_engine::rng::Key;
use codelsi_engine::{Ctx, DType, Device, Error, Grads, Label, Result, Tensor};
use half::bf16;

/// The worst error of an op's cases, as a share of what is allowed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub cases: usize,
    pub worst_ratio: f64,
    /// The case and tensor of the worst ratio.
    pub worst: String,
}

impl Report {
    fn see(&mut self, ratio: f64, what: impl FnOnce() -> String) {
        // A NaN is the worst there is.
        if ratio.is_nan() || ratio > self.worst_ratio {
            self.worst_ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
            self.worst = what();
        }
    }
}

/// Holds every case of `spec` to its reference, in both storage types, values and gradients.
///
/// # Errors
/// When an op fails, or an error exceeds what is allowed.
pub fn against_reference(spec: &Spec, seed: u64) -> Result<Report> {
    let mut report = Report::default();
    for dtype in [DType::F32, DType::BF16] {
        for case in (spec.cases)(dtype) {
            let place = format!("{dtype:?} {}", case.name);
            check_case(&case, dtype, seed, &place, &mut report).map_err(|e| e.at(place).at(spec.name))?;
            report.cases += 1;
        }
    }
    if report.worst_ratio > 1.0 {
        let message = format!("{} is off by {:.2} times what is allowed", report.worst, report.worst_ratio);
        return Err(Error::op(spec.name, message));
    }
    Ok(report)
}

/// Every output and gradient of every case, as bytes: to be compared between runs.
pub fn fingerprint(spec: &Spec, seed: u64) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        for case in (spec.cases)(dtype) {
            let run = Run::new(&case, dtype, seed)?;
            for t in run.outputs.iter().chain(run.gradients.iter().flatten()) {
                all.push(t.bytes()?.to_vec());
            }
        }
    }
    Ok(all)
}

/// One execution of a case: forward, and backward from random output gradients.
struct Run {
    inputs: Vec<Value>,
    output_grads: Vec<Value>,
    outputs: Vec<Tensor>,
    gradients: Vec<Option<Tensor>>,
}

impl Run {
    fn new(case: &Case, dtype: DType, seed: u64) -> Result<Self> {
        let device = Device::cpu();
        let tensors: Vec<Tensor> =
            (0..case.inputs.len()).map(|i| input(&device, case, i, dtype, seed)).collect::<Result<_>>()?;
        let cx = Ctx::training(&device, seed, 0);
        let outputs = (case.run)(&cx, &tensors.iter().collect::<Vec<_>>())?;
        let mut run = Run {
            inputs: tensors.iter().map(value).collect::<Result<_>>()?,
            output_grads: Vec::new(),
            outputs: Vec::new(),
            gradients: Vec::new(),
        };
        let mut grads = Grads::default();
        let recorded: Vec<bool> = outputs.iter().map(|y| y.id().is_some()).collect();
        let mut seeds = Vec::new();
        for (i, y) in outputs.iter().enumerate() {
            let g = random(&device, *y.shape(), y.dtype(), 1.0, Key { seed, step: 1, site: i as u32 })?;
            run.output_grads.push(value(&g)?);
            seeds.push(g);
        }
        if recorded.iter().any(|&r| r) {
            let pairs: Vec<_> = outputs.iter().zip(seeds).filter(|(y, _)| y.id().is_some()).collect();
            cx.backward_from(pairs, &mut grads)?;
        }
        run.gradients = tensors.iter().map(|t| grads.take(t)).collect();
        run.outputs = outputs;
        Ok(run)
    }
}

fn check_case(case: &Case, dtype: DType, seed: u64, place: &str, report: &mut Report) -> Result<()> {
    let run = Run::new(case, dtype, seed)?;
    let truth = (case.reference)(&run.inputs);
    if truth.len() != run.outputs.len() {
        return Err(Error::new(format!("{} outputs, the reference has {}", run.outputs.len(), truth.len())));
    }
    for (i, (y, truth)) in run.outputs.iter().zip(&truth).enumerate() {
        if *y.shape() != truth.shape {
            return Err(Error::new(format!("output {i} is {}, the reference {}", y.shape(), truth.shape)));
        }
        let ratio = error_ratio(&value(y)?.data, &truth.data, allowed(y.dtype(), case.terms));
        report.see(ratio, || format!("output {i} of {place}"));
    }
    for (i, gradient) in run.gradients.iter().enumerate() {
        if !case.inputs[i].grad {
            continue;
        }
        let Some(gradient) = gradient else {
            return Err(Error::new(format!("input {i} got no gradient")));
        };
        let ratio = gradient_ratio(case, &run, i, gradient, dtype, seed)?;
        report.see(ratio, || format!("gradient of input {i} of {place}"));
    }
    Ok(())
}

/// Relative error that a correct op may show: one rounding to storage, and 2·√K·2⁻²⁴ of accumulation.
fn allowed(dtype: DType, terms: usize) -> f64 {
    let rounding = match dtype {
        DType::BF16 => 2f64.powi(-9),
        _ => 2f64.powi(-24),
    };
    rounding + 2.0 * (terms.max(4) as f64).sqrt() * 2f64.powi(-24)
}

/// The larger of the RMS error and an eighth of the largest, relative to the truth's RMS, over `allowed`.
fn error_ratio(y: &[f64], truth: &[f64], allowed: f64) -> f64 {
    let scale = rms(truth.iter().copied()).max(1e-30);
    let errors = || y.iter().zip(truth).map(|(y, t)| (y - t).abs());
    let worst = y.iter().zip(truth).map(|(y, t)| (y - t).abs() / (t.abs() + scale));
    let worst = worst.fold(0.0f64, |m, e| if e.is_nan() { f64::INFINITY } else { m.max(e) });
    (rms(errors()) / scale / 2.0).max(worst / 8.0) / allowed
}

fn rms(x: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = x.fold((0.0, 0usize), |(s, n), x| (s + x * x, n + 1));
    (sum / n.max(1) as f64).sqrt()
}

/// Compares a gradient with central differences of the reference: coordinate by coordinate when there are
/// few, else sixty-four of them.
fn gradient_ratio(
    case: &Case,
    run: &Run,
    i: usize,
    gradient: &Tensor,
    dtype: DType,
    seed: u64,
) -> Result<f64> {
    let got = value(gradient)?.data;
    let loss = |inputs: &[Value]| -> f64 {
        let y = (case.reference)(inputs);
        let terms = y.iter().zip(&run.output_grads).flat_map(|(y, g)| y.data.iter().zip(&g.data));
        terms.map(|(y, g)| y * g).sum()
    };
    let coordinates: Vec<usize> = match got.len() {
        n if n <= 64 => (0..n).collect(),
        n => {
            let key = Key { seed, step: 2, site: i as u32 };
            (0..64).map(|c| (key.uniform(0, c) as f64 * n as f64) as usize).collect()
        }
    };
    let mut inputs = run.inputs.clone();
    let mut truth = Vec::with_capacity(coordinates.len());
    for &c in &coordinates {
        let (x, h) = (inputs[i].data[c], 1e-4);
        let mut at = |x: f64| {
            inputs[i].data[c] = x;
            loss(&inputs)
        };
        // Fourth-order central difference.
        let slope = (8.0 * (at(x + h) - at(x - h)) - (at(x + 2.0 * h) - at(x - 2.0 * h))) / (12.0 * h);
        inputs[i].data[c] = x;
        truth.push(slope);
    }
    let got: Vec<f64> = coordinates.iter().map(|&c| got[c]).collect();
    // Backward rounds intermediate results to storage once more than forward, and differences carry ~1e-9.
    let storage = if dtype == DType::BF16 { 3.0 * allowed(DType::BF16, case.terms) } else { 0.0 };
    let limit = storage + 4.0 * allowed(gradient.dtype(), case.terms) + 1e-8;
    Ok(error_ratio(&got, &truth, limit))
}

fn input(device: &Device, case: &Case, i: usize, dtype: DType, seed: u64) -> Result<Tensor> {
    let input = &case.inputs[i];
    let key = Key { seed, step: 0, site: i as u32 };
    let t = match &input.kind {
        Kind::Int(data) => device.tensor(Label::Activations, input.shape, data)?,
        Kind::Storage(std) => random(device, input.shape, dtype, *std, key)?,
        Kind::F32(std) => random(device, input.shape, DType::F32, *std, key)?,
    };
    Ok(if input.grad { t.with_grad() } else { t })
}

/// Normal deviates keyed by position.
pub fn random(
    device: &Device,
    shape: codelsi_engine::Shape,
    dtype: DType,
    std: f32,
    key: Key,
) -> Result<Tensor> {
    let draw = |i: usize| std * key.normal((i >> 16) as u32, (i & 0xffff) as u32);
    let n = shape.elements();
    match dtype {
        DType::BF16 => {
            let data: Vec<bf16> = (0..n).map(|i| bf16::from_f32(draw(i))).collect();
            device.tensor(Label::Activations, shape, &data)
        }
        _ => device.tensor(Label::Activations, shape, &(0..n).map(draw).collect::<Vec<f32>>()),
    }
}

/// A tensor as float64.
pub fn value(t: &Tensor) -> Result<Value> {
    let data = match t.dtype() {
        DType::F32 => t.slice::<f32>()?.iter().map(|&x| x as f64).collect(),
        DType::BF16 => t.slice::<bf16>()?.iter().map(|x| x.to_f64()).collect(),
        DType::I32 => t.slice::<i32>()?.iter().map(|&x| x as f64).collect(),
    };
    Ok(Value { shape: *t.shape(), data })
}
