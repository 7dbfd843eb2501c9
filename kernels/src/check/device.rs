//! An op on a CUDA device against the float64 reference, measured by what its CPU twin achieves.
//!
//! Errors, the largest and the root of the mean square, are at most twice the twin's plus half an ulp of the
//! storage type at the tensor's RMS. Copies are the twin's bits. Every case runs twice and must repeat its bits:
//! once between fences and over memory full of NaN, once without either, on the software GPU in its two schedules.

use super::run::{Run, value};
use super::{Report, Slopes, error_ratio, gradient_limit, rms};
use crate::spec::{Case, Spec};
use codelsi_emulator::Schedule;
use codelsi_engine::{DType, Device, Error, Result, Tensor};

/// Holds every case of `spec` on `device` to its reference and its CPU twin, in both storage types.
///
/// # Errors
/// When an op fails, an error exceeds what is allowed, a fence is broken or bits differ between runs.
pub fn on_device(spec: &Spec, device: &Device, seed: u64) -> Result<Report> {
    let mut report = Report::default();
    for dtype in [DType::F32, DType::BF16] {
        for case in (spec.cases)(dtype) {
            let place = format!("{dtype:?} {}", case.name);
            check(&case, device, dtype, seed, &place, &mut report).map_err(|e| e.at(place).at(spec.name))?;
            report.cases += 1;
        }
    }
    report.verdict(spec)
}

fn check(
    case: &Case,
    device: &Device,
    dtype: DType,
    seed: u64,
    place: &str,
    report: &mut Report,
) -> Result<()> {
    let run = fenced(device, true, || Run::new(device, case, dtype, seed))?;
    let again = fenced(device, false, || Run::new(device, case, dtype, seed))?;
    same_bits(&run, &again)?;
    let twin = Run::new(&Device::cpu(), case, dtype, seed)?;
    let truth = (case.reference)(&twin.inputs);
    for (i, (y, twin)) in run.outputs.iter().zip(&twin.outputs).enumerate() {
        if case.cost.flops == 0.0 && y.bytes()? != twin.bytes()? {
            return Err(Error::new(format!("output {i} is a copy and has other bits than the CPU's")));
        }
        let ratio = excess(&value(y)?.data, &value(twin)?.data, &truth[i].data, y.dtype());
        report.see(ratio, || format!("output {i} of {place}"));
    }
    for (i, (gradient, twins)) in run.gradients.iter().zip(&twin.gradients).enumerate() {
        let (Some(gradient), Some(twins)) = (gradient, twins) else {
            match gradient.is_some() == twins.is_some() {
                true => continue,
                false => return Err(Error::new(format!("input {i} got a gradient on one device alone"))),
            }
        };
        let (got, twins) = (value(gradient)?.data, value(twins)?.data);
        let truth = Slopes::new(case, &twin, i, seed);
        let sampled = excess(&truth.at(&got), &truth.at(&twins), &truth.slopes, gradient.dtype());
        // The reference's gradient is known at a few places; the twin's everywhere.
        let everywhere = error_ratio(&got, &twins, 2.0 * gradient_limit(case, dtype, gradient.dtype()));
        report.see(sampled.max(everywhere), || format!("gradient of input {i} of {place}"));
    }
    Ok(())
}

/// Runs `f` with or without fences; the software GPU takes the early schedule with them, the late one without.
fn fenced<T>(device: &Device, fences: bool, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let Device::Cuda(cuda) = device else { return f() };
    if let Some(emulator) = cuda.emulator() {
        emulator.set_schedule(if fences { Schedule::Early } else { Schedule::Late });
    }
    cuda.set_fences(fences);
    let result = f();
    cuda.set_fences(false);
    result.and_then(|result| cuda.check_fences().map(|()| result))
}

fn same_bits(a: &Run, b: &Run) -> Result<()> {
    let all = |run: &Run| -> Result<Vec<Vec<u8>>> {
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

/// The device's error as a share of what it may be.
fn excess(got: &[f64], twin: &[f64], truth: &[f64], dtype: DType) -> f64 {
    let rms_of = |y: &[f64]| rms(y.iter().zip(truth).map(|(y, t)| y - t));
    let largest = |y: &[f64]| {
        let errors = y.iter().zip(truth).map(|(y, t)| (y - t).abs());
        errors.fold(0.0f64, |m, e| if e.is_nan() { f64::INFINITY } else { m.max(e) })
    };
    let floor = half_ulp(rms(truth.iter().copied()), dtype);
    let share = |got: f64, twin: f64| if got == 0.0 { 0.0 } else { got / (2.0 * twin + floor) };
    share(rms_of(got), rms_of(twin)).max(share(largest(got), largest(twin)))
}

/// Half the distance of two neighbours at `x`.
fn half_ulp(x: f64, dtype: DType) -> f64 {
    let digits = if dtype == DType::BF16 { 8 } else { 24 };
    match x {
        0.0 => 0.0,
        _ => 2f64.powi(x.log2().floor() as i32 - digits),
    }
}
