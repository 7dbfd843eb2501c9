//! The model beside a measurement: times of `roofline` on a card, and what the model says of the same cases.

use super::op::{SAMPLED, blocks, launches};
use super::{Chip, predict};
use crate::counters::Passes;
use crate::roofline::timing_name;
use crate::specs::specs;
use codelsi_engine::cuda::LaunchRecord;
use codelsi_engine::{At, DType, Error, Result};
use codelsi_kernels::spec::Spec;
use codelsi_kernels::stopwatch::Pass;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A case that was timed on a card, and its modelled time; both in milliseconds.
pub struct MeasuredCase {
    name: String,
    measured: f64,
    modelled: f64,
}

/// Models the bf16 cases that `file` has times of: the JSON object of `roofline`, or a step's of `gpu_check.sh`.
///
/// # Errors
/// When the file cannot be read or has no such times, or there is no compiler.
pub fn beside(chip: &Chip, file: &Path) -> Result<Vec<MeasuredCase>> {
    let times = read_times(file).at(file.display().to_string())?;
    let mut cases = Vec::new();
    for spec in specs(&[])? {
        for sizes in spec.shapes.real {
            cases.extend(model_case(chip, spec, sizes, &times).at(spec.name)?);
        }
    }
    match cases.is_empty() {
        true => {
            Err(Error::new("holds no time of a bf16 case that this program knows")
                .at(file.display().to_string()))
        }
        false => Ok(cases),
    }
}

/// Reads milliseconds by name.
fn read_times(file: &Path) -> Result<BTreeMap<String, f64>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::new(e.to_string()))?;
    let object: Value = serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
    let ops = [&object["ops"], &object["result"]["ops"]].into_iter().find_map(Value::as_array);
    let rows =
        ops.ok_or_else(|| Error::new("holds no `ops`: give the JSON that `roofline --json` prints"))?;
    let time = |row: &Value| Some((row["name"].as_str()?.to_owned(), row["milliseconds"].as_f64()?));
    Ok(rows.iter().filter_map(time).collect())
}

fn model_case(
    chip: &Chip,
    spec: &Spec,
    sizes: &[usize],
    times: &BTreeMap<String, f64>,
) -> Result<Vec<MeasuredCase>> {
    let case = (spec.shapes.case)(DType::BF16, sizes);
    let time_of = |pass| {
        let name = timing_name(spec, DType::BF16, &case, pass);
        times.get(&name).map(|&measured| (name, measured))
    };
    let modelled = |passes| -> Result<f64> {
        let seconds = |launch: &LaunchRecord| predict(chip, launch).map(|p| p.seconds);
        launches(chip, &case, DType::BF16, passes, blocks(spec.name, SAMPLED))?.iter().map(seconds).sum()
    };
    let mut cases = Vec::new();
    let (forward, backward) = (time_of(Pass::Forward), time_of(Pass::Backward));
    if forward.is_none() && backward.is_none() {
        return Ok(cases);
    }
    let of_forward = modelled(Passes::Forward)?;
    if let Some((name, measured)) = forward {
        cases.push(MeasuredCase { name, measured, modelled: 1e3 * of_forward });
    }
    if let Some((name, measured)) = backward {
        let of_backward = modelled(Passes::Both)? - of_forward;
        cases.push(MeasuredCase { name, measured, modelled: 1e3 * of_backward });
    }
    Ok(cases)
}

/// Returns the table of both times, and of their ratios.
pub fn measured_table(chip: &Chip, cases: &[MeasuredCase]) -> String {
    let mut text = format!("{:<56}{:>12}{:>12}{:>8}\n", chip.name, "measured ms", "modelled ms", "ratio");
    for case in cases {
        let MeasuredCase { name, measured, modelled } = case;
        text += &format!("{name:<56}{measured:>12.3}{modelled:>12.3}{:>8.2}\n", case.ratio());
    }
    text
}

/// Returns an object of each case.
pub fn measured_rows(chip: &Chip, cases: &[MeasuredCase]) -> Vec<Value> {
    let row = |case: &MeasuredCase| {
        json!({
            "name": case.name, "chip": chip.name, "measured_ms": case.measured, "modelled_ms": case.modelled,
            "ratio": case.ratio(),
        })
    };
    cases.iter().map(row).collect()
}

impl MeasuredCase {
    /// The measured time over the modelled one: above 1 where the card is slower than the model.
    fn ratio(&self) -> f64 {
        self.measured / self.modelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_card_stand_beside_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roofline.json");
        let chip = Chip::find("a100").unwrap();
        let message = |text: &str| {
            std::fs::write(&file, text).unwrap();
            beside(&chip, &file).err().unwrap().to_string()
        };
        assert!(message("{}").contains("holds no `ops`"));
        assert!(message("[").contains("EOF"));
        assert!(message(r#"{"ops":[{"name":"gelu","milliseconds":1}]}"#).contains("no time of a bf16 case"));

        let spec = specs(&["swiglu".into()]).unwrap()[0];
        let case = (spec.shapes.case)(DType::BF16, spec.shapes.real[0]);
        let names = [Pass::Forward, Pass::Backward].map(|pass| timing_name(spec, DType::BF16, &case, pass));
        let ops = names.map(|name| json!({"name": name, "milliseconds": 3.0}));
        std::fs::write(&file, json!({"exit": 0, "result": {"ops": ops}}).to_string()).unwrap();
        if codelsi_testing::or_skip(codelsi_engine::Device::emulated("sm_80")).is_none() {
            return;
        }
        let cases = beside(&chip, &file).unwrap();
        assert_eq!(cases.len(), 2);
        // Both passes move the same three or five tensors of 4096 x 13824 at the rate of device memory.
        assert!(
            cases.iter().all(|case| (0.1..3.0).contains(&case.modelled)),
            "{}",
            measured_table(&chip, &cases)
        );
        assert!(cases[1].modelled > cases[0].modelled);
    }
}
