//! The checks that every op must pass: the reference's values and gradients, the same bits every time and in every
//! batch; on a device, at most twice the CPU twin's error; and seeded bugs, which these checks must detect.

mod between;
#[cfg(feature = "emulator")]
pub mod bugs;
mod coverage;
mod device;
mod execution;
#[cfg(feature = "emulator")]
pub mod mutants;
mod non_finite;
mod report;
mod rows;

pub use between::between;
pub use coverage::not_run;
pub use device::{case_on_device, numbers_on_device, on_device};
pub use execution::{inputs, random, value};
pub use non_finite::non_finite;
pub use report::{CaseResult, CheckReport, Measured};
pub use rows::{BATCH, batch_invariance};

use crate::ALL;
use crate::simd;
use crate::spec::{Case, Compare, Draw, F64Tensor, Spec};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{DType, Device, Error, Result};
use execution::Execution;

/// Returns the ops that `CODELSI_OPS` names (`gemm,lora`), or all when it is not set.
///
/// # Errors
/// When a name is no op's.
pub fn selected() -> Result<Vec<&'static Spec>> {
    match std::env::var("CODELSI_OPS") {
        Ok(names) => named(&names).map_err(|e| e.at("CODELSI_OPS")),
        Err(_) => Ok(ALL.to_vec()),
    }
}

fn named(names: &str) -> Result<Vec<&'static Spec>> {
    names.split(',').map(|name| find(name.trim())).collect()
}

/// Returns the op called `name`.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Spec> {
    let found = ALL.iter().copied().find(|spec| spec.name == name);
    found.ok_or_else(|| {
        let known = ALL.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
        Error::new(format!("there is no op {name}: there are {known}"))
    })
}

/// Returns the cases of `spec`, and random ones: 2, or as many as `CODELSI_CASES` says, from the seed `CODELSI_SEED`.
///
/// # Errors
/// When a variable is no number.
pub fn cases(spec: &Spec, dtype: DType) -> Result<Vec<Case>> {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| Error::new(format!("{name} is `{text}`, which is no number"))),
        Err(_) => Ok(default),
    };
    let (seed, count) = (number("CODELSI_SEED", 1)?, number("CODELSI_CASES", 2)?);
    let random = (0..count as usize).map(|i| {
        let case = (spec.random)(dtype, &mut Draw::new(seed, spec.name, i));
        let compare = if case.compare == Compare::Error { Compare::Loose } else { case.compare };
        Case { name: format!("{} (random {i} of CODELSI_SEED={seed})", case.name), compare, ..case }
    });
    Ok((spec.cases)(dtype).into_iter().chain(random).collect())
}

/// Returns [`cases`], but not the long ones on an instruction set below the machine's own, unless `CODELSI_FULL` is 1.
fn cases_on_cpu(spec: &Spec, dtype: DType) -> Result<Vec<Case>> {
    const LONG: f64 = 5e6;
    let all = simd::level() == simd::detected() || std::env::var("CODELSI_FULL").as_deref() == Ok("1");
    Ok(cases(spec, dtype)?.into_iter().filter(|case| all || case.cost.flops < LONG).collect())
}

/// Compares every case of `spec` with its reference, in both storage types, values and gradients.
///
/// # Errors
/// When an op fails, or an error exceeds what is allowed.
pub fn against_reference(spec: &Spec, seed: u64) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    for dtype in [DType::F32, DType::BF16] {
        for case in cases_on_cpu(spec, dtype)? {
            let place = format!("{dtype:?} {}", case.name);
            report.begin(&case, dtype);
            check_case(&case, dtype, seed, &mut report).map_err(|e| e.at(place).at(spec.name))?;
        }
    }
    report.verdict(spec)
}

/// Returns every output and gradient of every case as bytes, to be compared between runs.
pub fn fingerprint(spec: &Spec, seed: u64) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        for case in cases_on_cpu(spec, dtype)? {
            let run = Execution::new(&Device::cpu(), &case, dtype, seed)?;
            for t in run.outputs.iter().chain(run.gradients.iter().flatten()) {
                all.push(t.bytes()?.to_vec());
            }
        }
    }
    Ok(all)
}

fn check_case(case: &Case, dtype: DType, seed: u64, report: &mut CheckReport) -> Result<()> {
    let run = Execution::new(&Device::cpu(), case, dtype, seed)?;
    let truth = (case.reference)(&run.inputs);
    if truth.len() != run.outputs.len() {
        return Err(Error::new(format!("{} outputs, the reference has {}", run.outputs.len(), truth.len())));
    }
    for (i, (y, truth)) in run.outputs.iter().zip(&truth).enumerate() {
        if *y.shape() != truth.shape {
            return Err(Error::new(format!("output {i} is {}, the reference {}", y.shape(), truth.shape)));
        }
        let error = relative_error(&value(y)?.data, &truth.data);
        let limit = case.compare.limit(allowed(y.dtype(), case.terms));
        report.record(Measured { error, limit }, &format!("output {i}"));
    }
    for (i, gradient) in run.gradients.iter().enumerate() {
        if !case.inputs[i].grad {
            continue;
        }
        let Some(gradient) = gradient else {
            return Err(Error::new(format!("input {i} got no gradient")));
        };
        let truth = FiniteDifferences::new(case, &run, i, seed);
        let error = relative_error(&truth.at(&value(gradient)?.data), &truth.slopes);
        let limit = case.compare.limit(gradient_limit(case, dtype, gradient.dtype()));
        report.record(Measured { error, limit }, &format!("gradient of input {i}"));
    }
    Ok(())
}

/// Returns the relative error that a correct op may have: one rounding to storage, and 2·√K·2⁻²⁴ of accumulation.
fn allowed(dtype: DType, terms: usize) -> f64 {
    let rounding = match dtype {
        DType::BF16 => 2f64.powi(-9),
        _ => 2f64.powi(-24),
    };
    rounding + 2.0 * (terms.max(4) as f64).sqrt() * 2f64.powi(-24)
}

/// Returns the larger of half the RMS error and an eighth of the largest, relative to the truth's RMS.
fn relative_error(y: &[f64], truth: &[f64]) -> f64 {
    let scale = rms(truth.iter().copied()).max(1e-30);
    let errors = || y.iter().zip(truth).map(|(y, t)| (y - t).abs());
    let worst = y.iter().zip(truth).map(|(y, t)| (y - t).abs() / (t.abs() + scale));
    let worst = worst.fold(0.0f64, |m, e| if e.is_nan() { f64::INFINITY } else { m.max(e) });
    (rms(errors()) / scale / 2.0).max(worst / 8.0)
}

fn rms(x: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = x.fold((0.0, 0usize), |(s, n), x| (s + x * x, n + 1));
    (sum / n.max(1) as f64).sqrt()
}

/// Returns the relative error that a correct gradient may have.
fn gradient_limit(case: &Case, dtype: DType, gradient: DType) -> f64 {
    // Backward rounds intermediate results to storage once more than forward, and differences carry ~1e-9.
    let storage = if dtype == DType::BF16 { 3.0 * allowed(DType::BF16, case.terms) } else { 0.0 };
    storage + 4.0 * allowed(gradient, case.terms) + 1e-8
}

/// Central differences of the reference along an input: at every coordinate if there are few, else at up to sixty-four of
/// them, fewer where the reference is long.
struct FiniteDifferences {
    coordinates: Vec<usize>,
    slopes: Vec<f64>,
}

impl FiniteDifferences {
    const MOST: usize = 64;

    fn new(case: &Case, run: &Execution, i: usize, seed: u64) -> Self {
        let loss = |inputs: &[F64Tensor]| -> f64 {
            let y = (case.reference)(inputs);
            let terms = y.iter().zip(&run.output_grads).flat_map(|(y, g)| y.data.iter().zip(&g.data));
            terms.map(|(y, g)| y * g).sum()
        };
        let mut inputs = run.inputs.clone();
        let most = FiniteDifferences::coordinates(case) as u32;
        let coordinates: Vec<usize> = match inputs[i].data.len() {
            n if n <= most as usize => (0..n).collect(),
            n => {
                let key = RngKey { seed, step: 2, site: i as u32 };
                (0..most).map(|c| (key.uniform(0, c) as f64 * n as f64) as usize).collect()
            }
        };
        let mut slopes = Vec::with_capacity(coordinates.len());
        for &c in &coordinates {
            let (x, h) = (inputs[i].data[c], 1e-4);
            let mut at = |x: f64| {
                inputs[i].data[c] = x;
                loss(&inputs)
            };
            // Fourth-order central difference.
            let slope = (8.0 * (at(x + h) - at(x - h)) - (at(x + 2.0 * h) - at(x - 2.0 * h))) / (12.0 * h);
            inputs[i].data[c] = x;
            slopes.push(slope);
        }
        FiniteDifferences { coordinates, slopes }
    }

    /// Returns how many coordinates of an input are worth their time.
    fn coordinates(case: &Case) -> usize {
        const OPERATIONS: f64 = 1e8;
        (OPERATIONS / case.cost.flops.max(1.0)).clamp(2.0, FiniteDifferences::MOST as f64) as usize
    }

    /// The values at the coordinates.
    fn at(&self, gradient: &[f64]) -> Vec<f64> {
        self.coordinates.iter().map(|&c| gradient[c]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_are_chosen_by_name_and_an_unknown_one_is_told_the_names() {
        let names: Vec<&str> = named("lora, gemm").unwrap().iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["lora", "gemm"]);
        let error = named("gemm,lara").err().unwrap().to_string();
        assert!(error.starts_with("there is no op lara: there are adamw, bias, concat, "), "{error}");
    }
}
