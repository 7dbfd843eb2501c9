//! An op on a CUDA device against the float64 reference, within a multiple of the error of its CPU twin.
//!
//! Errors, the largest and the root of the mean square, are at most twice the twin's plus half an ulp of the
//! storage type at the tensor's RMS. Copies are the twin's bits. Every case runs twice and must repeat its bits:
//! once between redzones and over memory full of NaN, once without either, on the software GPU in its two schedules. There
//! the second run also sees a GPU of one multiprocessor, for which launches may choose other tiles; where they do, a third
//! run has those tiles in the first one's place. Gradients in bf16 are compared with those of the twin in f32, which the
//! check of the reference confirms; gradients in f32 with differences of the reference.
//! The error of a small case varies much, so it runs on several seeds, once on all but the first, and their errors are
//! pooled.

use super::execution::{Execution, value};
use super::{CheckReport, FiniteDifferences, Measured, allowed, cases, gradient_limit, relative_error};
use crate::spec::{Case, Compare, Spec};
use codelsi_engine::cuda::CompiledKernel;
use codelsi_engine::{DType, Device, Error, Result, Tensor};
use std::collections::BTreeSet;

/// Cases with fewer elements, or compared in fewer values, run on several seeds.
const SMALL: usize = 4096;
const FEW: usize = 32;
const SEEDS: u64 = 4;

/// Compares every case of `spec` on `device` with its reference and its CPU twin, in both storage types.
///
/// # Errors
/// When an op fails, an error exceeds what is allowed, a redzone is overwritten or bits differ between runs.
pub fn on_device(spec: &Spec, device: &Device, seed: u64) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    for dtype in [DType::F32, DType::BF16] {
        for case in cases(spec, dtype)? {
            case_on_device(&case, device, dtype, seed, &mut report).map_err(|e| e.at(spec.name))?;
        }
    }
    report.verdict(spec)
}

/// Compares one case as [`on_device`] does; the worst error goes into `report`.
///
/// # Errors
/// As [`on_device`], but for errors that are too large.
pub fn case_on_device(
    case: &Case,
    device: &Device,
    dtype: DType,
    seed: u64,
    report: &mut CheckReport,
) -> Result<()> {
    several(twice, case, device, dtype, seed, report)
}

/// Compares one case by its numbers in a single run, without redzones and in the early schedule.
///
/// # Errors
/// When the op fails.
pub fn numbers_on_device(
    case: &Case,
    device: &Device,
    dtype: DType,
    seed: u64,
    report: &mut CheckReport,
) -> Result<()> {
    several(Execution::new, case, device, dtype, seed, report)
}

/// Executes a case on a device.
type Execute = fn(&Device, &Case, DType, u64) -> Result<Execution>;

/// Executes the case on as many seeds as it needs.
fn several(
    execute: Execute,
    case: &Case,
    device: &Device,
    dtype: DType,
    seed: u64,
    report: &mut CheckReport,
) -> Result<()> {
    let place = format!("{dtype:?} {}", case.name);
    let elements: usize = case.inputs.iter().map(|input| input.shape.elements()).sum();
    let mut errors: Vec<Errors> = Vec::new();
    for round in 0..SEEDS {
        let seed = seed + round;
        // Where threads and copies meet does not depend on the numbers: later rounds run once.
        let execute = if round == 0 { execute } else { Execution::new };
        let run = execute(device, case, dtype, seed).map_err(|e| e.at(&place))?;
        measure(&run, case, dtype, seed, &mut errors).map_err(|e| e.at(&place))?;
        if elements >= SMALL && errors.iter().all(|e| e.count == 0 || e.count >= FEW) {
            break;
        }
    }
    report.begin(case, dtype);
    for e in errors {
        let Measured { error, limit } = e.worst();
        report.record(Measured { error, limit: case.compare.limit(limit) }, &e.name);
    }
    Ok(())
}

/// The errors of one output or gradient, over all seeds.
#[derive(Default)]
struct Errors {
    name: String,
    dtype: Option<DType>,
    /// Largest error, of the device and of its twin.
    largest: [f64; 2],
    /// Sum of squared errors, likewise.
    squares: [f64; 2],
    truth_squares: f64,
    count: usize,
    /// Relative error of the truth itself.
    of_truth: f64,
    /// Difference of device and twin, relative to the twin.
    elsewhere: Measured,
}

impl Errors {
    fn record(&mut self, got: &[f64], twin: &[f64], truth: &[f64]) {
        for (i, y) in [got, twin].into_iter().enumerate() {
            for error in y.iter().zip(truth).map(|(y, t)| (y - t).abs()) {
                self.largest[i] = if error.is_nan() { f64::INFINITY } else { self.largest[i].max(error) };
                self.squares[i] += error * error;
            }
        }
        self.truth_squares += truth.iter().map(|t| t * t).sum::<f64>();
        self.count += truth.len();
    }

    /// The device's error that is worst as a share of its limit: the largest, the RMS, or that against the twin.
    fn worst(&self) -> Measured {
        let rms = |squares: f64| (squares / self.count.max(1) as f64).sqrt();
        let scale = rms(self.truth_squares);
        let floor = half_ulp(scale, self.dtype) + self.of_truth * scale;
        let beside = |[got, twin]: [f64; 2]| Measured { error: got, limit: 2.0 * twin + floor };
        beside(self.largest).worse(beside(self.squares.map(rms))).worse(self.elsewhere)
    }
}

/// Half the distance of two neighbours at `x`.
fn half_ulp(x: f64, dtype: Option<DType>) -> f64 {
    let digits = if dtype == Some(DType::BF16) { 8 } else { 24 };
    match x {
        0.0 => 0.0,
        _ => 2f64.powi(x.log2().floor() as i32 - digits),
    }
}

/// Executes the case twice, and a third time if the second run chose other kernels; all must give the same bits.
fn twice(device: &Device, case: &Case, dtype: DType, seed: u64) -> Result<Execution> {
    let execute = |redzones, single| {
        let new = || Execution::new(device, case, dtype, seed);
        let run = with_redzones(device, redzones, || on_multiprocessors(device, single, new))?;
        Ok::<_, Error>((run, launched(device)))
    };
    launched(device);
    let (run, kernels) = execute(true, false)?;
    let (again, other_kernels) = execute(false, true)?;
    same_bits(&run, &again)?;
    if kernels != other_kernels {
        same_bits(&run, &execute(true, true)?.0)?;
    }
    Ok(run)
}

/// Returns the kernels that the software GPU launched since the last call.
fn launched(device: &Device) -> BTreeSet<CompiledKernel> {
    let Device::Cuda(cuda) = device else { return BTreeSet::new() };
    cuda.emulator().map(|emulator| emulator.coverage().take_recent()).unwrap_or_default()
}

/// Executes the case on the CPU too and adds its and the device's errors: outputs first, then gradients.
fn measure(run: &Execution, case: &Case, dtype: DType, seed: u64, errors: &mut Vec<Errors>) -> Result<()> {
    let twin = Execution::new(&Device::cpu(), case, dtype, seed)?;
    let truth = (case.reference)(&twin.inputs);
    let exact = twin.in_f32(case, seed)?;
    errors.resize_with(run.outputs.len() + run.gradients.len(), Errors::default);
    let (of_outputs, of_gradients) = errors.split_at_mut(run.outputs.len());
    for (i, ((y, twin), e)) in run.outputs.iter().zip(&twin.outputs).zip(of_outputs).enumerate() {
        if case.compare == Compare::Bits && y.bytes()? != twin.bytes()? {
            return Err(Error::new(format!("output {i} is a copy and has other bits than the CPU's")));
        }
        (e.name, e.dtype) = (format!("output {i}"), Some(y.dtype()));
        e.record(&value(y)?.data, &value(twin)?.data, &truth[i].data);
    }
    for (i, ((gradient, twins), e)) in run.gradients.iter().zip(&twin.gradients).zip(of_gradients).enumerate()
    {
        let (Some(gradient), Some(twins)) = (gradient, twins) else {
            match gradient.is_some() == twins.is_some() {
                true => continue,
                false => return Err(Error::new(format!("input {i} got a gradient on one device alone"))),
            }
        };
        (e.name, e.dtype) = (format!("gradient of input {i}"), Some(gradient.dtype()));
        let (got, twins) = (value(gradient)?.data, value(twins)?.data);
        match &exact {
            Some(exact) => {
                e.of_truth = 8.0 * allowed(DType::F32, case.terms);
                e.record(&got, &twins, &exact.gradient(i)?);
            }
            // Few differences, of a long reference, would only tell how much errors vary.
            None if FiniteDifferences::coordinates(case) < FEW / 2 => {}
            None => {
                let truth = FiniteDifferences::new(case, &twin, i, seed);
                e.record(&truth.at(&got), &truth.at(&twins), &truth.slopes);
            }
        }
        // The reference's gradient is known at a few places; the twin's everywhere.
        let limit = 2.0 * gradient_limit(case, dtype, gradient.dtype());
        e.elsewhere = e.elsewhere.worse(Measured { error: relative_error(&got, &twins), limit });
    }
    Ok(())
}

/// Runs `f` with or without redzones. The software GPU uses the early schedule with them, the late one without.
fn with_redzones<T>(device: &Device, redzones: bool, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let Device::Cuda(cuda) = device else { return f() };
    #[cfg(feature = "emulator")]
    if let Some(emulator) = cuda.emulator() {
        use codelsi_emulator::Schedule;
        emulator.set_schedule(if redzones { Schedule::Early } else { Schedule::Late });
    }
    cuda.set_redzones(redzones);
    let result = f();
    cuda.set_redzones(false);
    result.and_then(|result| cuda.check_redzones().map(|()| result))
}

/// Runs `f`, on the software GPU with one multiprocessor or with all of them.
fn on_multiprocessors<T>(device: &Device, single: bool, f: impl FnOnce() -> T) -> T {
    let emulator = match device {
        Device::Cuda(cuda) => cuda.emulator(),
        _ => None,
    };
    let Some(emulator) = emulator else { return f() };
    emulator.set_single_multiprocessor(single);
    let result = f();
    emulator.set_single_multiprocessor(false);
    result
}

fn same_bits(a: &Execution, b: &Execution) -> Result<()> {
    let all = |run: &Execution| -> Result<Vec<Vec<u8>>> {
        let tensors = run.outputs.iter().chain(run.gradients.iter().flatten());
        tensors.map(|t: &Tensor| Ok(t.bytes()?.to_vec())).collect()
    };
    let (a, b) = (all(a)?, all(b)?);
    match a.iter().zip(&b).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(i) => {
            Err(Error::new(format!("tensor {i} (outputs, then gradients) has other bits in a second run")))
        }
    }
}
