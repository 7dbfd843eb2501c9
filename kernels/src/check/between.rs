//! An op on two devices: a card against the software GPU, which execute the same PTX independently.

use super::execution::{Execution, value};
use super::{CheckReport, Measured, allowed, cases, gradient_limit, relative_error};
use crate::spec::{Case, Compare, Spec};
use codelsi_engine::{DType, Device, Error, Result, Tensor};

/// Compares every case of `spec` on `device` with `other`, within one op's error.
///
/// # Errors
/// When an op fails on either, or results differ by more.
pub fn between(spec: &Spec, device: &Device, other: &Device, seed: u64) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    for dtype in [DType::F32, DType::BF16] {
        for case in cases(spec, dtype)? {
            let place = format!("{dtype:?} {}", case.name);
            report.begin(&case, dtype);
            compare(&case, [device, other], dtype, seed, &mut report)
                .map_err(|e| e.at(place).at(spec.name))?;
        }
    }
    report.verdict(spec)
}

fn compare(
    case: &Case,
    devices: [&Device; 2],
    dtype: DType,
    seed: u64,
    report: &mut CheckReport,
) -> Result<()> {
    let [run, other] = devices.map(|device| Execution::new(device, case, dtype, seed));
    let (run, other) = (run?, other?);
    let mut compare_tensor = |what: String, x: &Tensor, y: &Tensor, limit: f64| -> Result<()> {
        if case.compare == Compare::Bits && x.bytes()? != y.bytes()? {
            return Err(Error::new(format!("{what} is a copy and has other bits on {}", devices[1].name())));
        }
        let error = relative_error(&value(x)?.data, &value(y)?.data);
        report.record(Measured { error, limit }, &what);
        Ok(())
    };
    for (i, (x, y)) in run.outputs.iter().zip(&other.outputs).enumerate() {
        compare_tensor(format!("output {i}"), x, y, allowed(x.dtype(), case.terms))?;
    }
    for (i, pair) in run.gradients.iter().zip(&other.gradients).enumerate() {
        match pair {
            (Some(x), Some(y)) => compare_tensor(
                format!("gradient of input {i}"),
                x,
                y,
                gradient_limit(case, dtype, x.dtype()),
            )?,
            (None, None) => {}
            _ => return Err(Error::new(format!("input {i} got a gradient on one device alone"))),
        }
    }
    Ok(())
}
