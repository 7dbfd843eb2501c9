//! NaN and infinities: a device passes on what its CPU twin passes on.

use super::execution::{Execution, inputs, value};
use crate::spec::{Case, InputContent, Spec};
use codelsi_engine::rng::RngKey;
use codelsi_engine::{DType, Device, Error, Label, Result, Tensor};

/// Cases with more numbers are left out.
const SMALL: usize = 20_000;
/// Cases of an op and a storage type, evenly over its list.
const CASES: usize = 4;
/// Values that replace one number of an input.
const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Puts NaN, +∞ and −∞ into a place of every input of a few cases of `spec`. Outputs must be finite on `device` where the CPU
/// twin's are, and nowhere else. A gradient must not be finite everywhere unless the twin's is: where a tile multiplies what
/// is masked by 0, the two may differ in the places; so may outputs where rows select parts of the input. Where the twin
/// refuses to compute, the device must, too. Returns the number of runs.
///
/// # Errors
/// When they differ.
pub fn non_finite(spec: &Spec, device: &Device, seed: u64) -> Result<usize> {
    let mut runs = 0;
    for dtype in [DType::F32, DType::BF16] {
        let elements = |case: &Case| case.inputs.iter().map(|input| input.shape.elements()).sum::<usize>();
        let all: Vec<Case> = (spec.cases)(dtype).into_iter().filter(|case| elements(case) <= SMALL).collect();
        for case in all.iter().step_by(all.len().div_ceil(CASES).max(1)) {
            let numbers = |i: &usize| {
                let input = &case.inputs[*i];
                !matches!(input.content, InputContent::Int(_)) && input.shape.elements() > 0
            };
            for i in (0..case.inputs.len()).filter(numbers) {
                for (round, bad) in (0..).zip(BAD) {
                    let key = RngKey { seed, step: round, site: i as u32 };
                    let at = (key.uniform(0, 0) as f64 * case.inputs[i].shape.elements() as f64) as usize;
                    compare(case, device, dtype, seed, (i, at, bad)).map_err(|e| {
                        e.at(format!("{dtype:?} {} with {bad} in input {i} at {at}", case.name)).at(spec.name)
                    })?;
                    runs += 1;
                }
            }
        }
    }
    Ok(runs)
}

fn compare(case: &Case, device: &Device, dtype: DType, seed: u64, bad: (usize, usize, f32)) -> Result<()> {
    let run = |device: &Device| Execution::of(device, case, seed, poisoned(device, case, dtype, seed, bad)?);
    let (got, twin) = match (run(device), run(&Device::cpu())) {
        (Ok(got), Ok(twin)) => (got, twin),
        (Err(_), Err(_)) => return Ok(()),
        (Err(e), Ok(_)) => return Err(e.at("fails where the CPU does not")),
        (Ok(_), Err(e)) => return Err(e.at("computes where the CPU fails")),
    };
    let all = |run: &Execution| -> Result<Vec<Vec<bool>>> {
        let tensors = run.outputs.iter().chain(run.gradients.iter().flatten());
        tensors.map(|t: &Tensor| Ok(value(t)?.data.iter().map(|x| x.is_finite()).collect())).collect()
    };
    for (t, (finite, twins)) in all(&got)?.iter().zip(&all(&twin)?).enumerate() {
        let is_output = t < got.outputs.len();
        let lost = || finite.iter().all(|&finite| finite);
        let left_out = |finite: bool| finite && case.inputs[bad.0].selected;
        let differs = |(&finite, &twins): (&bool, &bool)| {
            finite != twins && !left_out(finite) && (is_output || finite && lost())
        };
        if let Some(at) = finite.iter().zip(twins).position(differs) {
            let kind = |finite: bool| if finite { "finite" } else { "not finite" };
            let message = format!(
                "element {at} of tensor {t} (outputs, then gradients) is {}, the CPU's {}",
                kind(finite[at]),
                kind(twins[at])
            );
            return Err(Error::new(message));
        }
    }
    Ok(())
}

/// Makes the case's inputs, with `bad` in one place of one of them.
fn poisoned(
    device: &Device,
    case: &Case,
    dtype: DType,
    seed: u64,
    (i, at, bad): (usize, usize, f32),
) -> Result<Vec<Tensor>> {
    let mut all = inputs(device, case, dtype, seed)?;
    let mut t = all[i].to(&Device::cpu(), Label::Activations)?;
    let size = t.dtype().size();
    let bits = bad.to_bits().to_le_bytes();
    t.bytes_mut()?[at * size..][..size].copy_from_slice(&bits[4 - size..]);
    let t = t.to(device, Label::Activations)?;
    all[i] = if case.inputs[i].grad { t.with_grad() } else { t };
    Ok(all)
}
