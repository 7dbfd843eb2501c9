//! `check`: every case of an op, on any device.

use crate::specs::{sizes, specs};
use codelsi_engine::cuda::Cuda;
use codelsi_engine::{DType, Device, Error, Result};
use codelsi_kernels::check::{
    CaseResult, CheckReport, against_reference, between, case_on_device, not_run, on_device,
};
use codelsi_kernels::spec::Spec;
use codelsi_launch::title;
use serde_json::{Value, json};
use std::time::Instant;

/// Seeds of all inputs.
const SEED: u64 = 20260914;

/// The ops to check, on which devices and sizes.
pub struct CheckRequest<'a> {
    pub device: &'a Device,
    /// Second device that runs the same kernels, for a comparison.
    pub against: Option<&'a Device>,
    pub ops: &'a [String],
    /// Sizes instead of the op's cases.
    pub shape: Option<&'a str>,
}

/// The result of one op.
pub struct OpCheck {
    pub op: &'static str,
    pub report: Result<CheckReport>,
    pub seconds: f64,
}

/// Checks the named ops, or all when there are none, and calls `seen` with each result.
///
/// # Errors
/// When a name is no op's, or the shape does not fit it. A failed check is in its op's result.
pub fn run(request: &CheckRequest, mut seen: impl FnMut(&OpCheck)) -> Result<Vec<OpCheck>> {
    let mut all = Vec::new();
    for spec in specs(request.ops)? {
        let shape = request.shape.map(|text| sizes(spec, text)).transpose()?;
        let start = Instant::now();
        let report = one(spec, request, shape.as_deref());
        let checked = OpCheck { op: spec.name, report, seconds: start.elapsed().as_secs_f64() };
        seen(&checked);
        all.push(checked);
    }
    if let (Device::Cuda(cuda), None, None) = (request.device, request.against, request.shape)
        && cuda.emulator().is_some()
        && request.ops.is_empty()
    {
        let start = Instant::now();
        let report = everything_ran(cuda);
        let checked = OpCheck { op: "variants", report, seconds: start.elapsed().as_secs_f64() };
        seen(&checked);
        all.push(checked);
    }
    Ok(all)
}

/// Checks that the cases of all ops ran every variant of the kernels and every branch of their launches.
fn everything_ran(cuda: &Cuda) -> Result<CheckReport> {
    let missing = not_run(&specs(&[])?, cuda)?;
    match missing.is_empty() {
        true => Ok(CheckReport::default()),
        false => Err(Error::new(format!("no case runs: {}", missing.join("; ")))),
    }
}

fn one(spec: &Spec, request: &CheckRequest, shape: Option<&[usize]>) -> Result<CheckReport> {
    match (request.device, request.against, shape) {
        (device, Some(other), _) => between(spec, device, other, SEED),
        (device @ Device::Cuda(_), None, Some(sizes)) => {
            let mut report = CheckReport::default();
            for dtype in [DType::F32, DType::BF16] {
                case_on_device(&(spec.shapes.case)(dtype, sizes), device, dtype, SEED, &mut report)?;
            }
            report.verdict(spec)
        }
        (device @ Device::Cuda(_), None, None) => on_device(spec, device, SEED),
        (_, None, _) => against_reference(spec, SEED),
    }
}

/// Returns a result as a line of text.
pub fn line(checked: &OpCheck) -> String {
    let OpCheck { op, report, seconds } = checked;
    match report {
        Ok(r) => format!(
            "{op:<12} ok     {:>3} cases, worst {:.2} of the limit, {seconds:.1} s",
            r.cases, r.worst_ratio
        ),
        Err(e) => format!("{op:<12} FAILED {e}"),
    }
}

/// Returns the results as JSON.
pub fn object(device: &Device, all: &[OpCheck]) -> Value {
    let ops = all.iter().map(|c| match &c.report {
        Ok(r) => json!({
            "name": c.op, "ok": true, "cases": r.cases, "worst_ratio": r.worst_ratio, "seconds": c.seconds,
            "arch": arch(device), "results": r.results.iter().map(|case| row(device, c, case)).collect::<Vec<_>>(),
        }),
        Err(e) => json!({ "name": c.op, "ok": false, "error": e.to_string(), "seconds": c.seconds }),
    });
    json!({ "ok": all.iter().all(|c| c.report.is_ok()), "device": title(device), "ops": ops.collect::<Vec<_>>() })
}

/// Returns an object of each case of the ops that passed.
pub fn rows(device: &Device, all: &[OpCheck]) -> Vec<Value> {
    let passed = all.iter().filter_map(|c| Some((c, c.report.as_ref().ok()?)));
    passed.flat_map(|(c, report)| report.results.iter().map(move |case| row(device, c, case))).collect()
}

fn row(device: &Device, checked: &OpCheck, case: &CaseResult) -> Value {
    let CaseResult { shape, dtype, tensor, error } = case;
    json!({
        "op": checked.op, "shape": shape, "dtype": format!("{dtype:?}"), "arch": arch(device), "tensor": tensor,
        "error": error.error, "limit": error.limit, "ratio": error.ratio(),
    })
}

/// The architecture that the device's kernels are compiled for; `cpu` for the CPU.
pub fn arch(device: &Device) -> &str {
    match device {
        Device::Cuda(cuda) => &cuda.properties().arch,
        _ => "cpu",
    }
}
