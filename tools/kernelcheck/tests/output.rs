//! `--json` and `--csv`: what a result's numbers are of.

use codelsi_engine::Device;
use codelsi_testing::or_skip;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// Runs kernelcheck and returns its object and the lines of its CSV.
fn run(name: &str, arguments: &[&str]) -> (Value, Vec<String>) {
    let csv: PathBuf = std::env::temp_dir().join(format!("codelsi-{}-{name}.csv", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_kernelcheck"));
    let output = command.args(arguments).arg("--json").arg("--csv").arg(&csv).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let object = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let lines = std::fs::read_to_string(&csv).unwrap();
    std::fs::remove_file(csv).unwrap();
    (object, lines.lines().map(str::to_owned).collect())
}

fn begins(line: &str, names: &str) {
    assert!(line.starts_with(names), "{line} does not begin with {names}");
}

#[test]
fn counters_name_shape_type_and_architecture() {
    if or_skip(Device::emulated("sm_80")).is_none() {
        return;
    }
    let arguments =
        ["counters", "rmsnorm", "--shape", "3,40", "--dtype", "f32", "--device", "emulated:sm_90a"];
    let (object, lines) = run("counters", &arguments);
    let named = ["op", "shape", "dtype", "arch"].map(|key| object[key].as_str().unwrap().to_owned());
    assert_eq!(named, ["rmsnorm", "add T=3 C=40", "F32", "sm_90a"]);
    begins(&lines[0], "op,shape,dtype,arch,kernel,launches,warp_instructions");
    assert_eq!(lines.len(), 1 + object["kernels"].as_array().unwrap().len());
    begins(&lines[1], "rmsnorm,add T=3 C=40,F32,sm_90a,add_rmsnorm,1,");
}

#[test]
fn a_check_names_each_case_with_its_error_and_limit() {
    if or_skip(Device::emulated("sm_80")).is_none() {
        return;
    }
    let (object, lines) = run("check", &["check", "swiglu", "--shape", "3,40"]);
    let op = &object["ops"][0];
    assert_eq!(
        (op["name"].as_str(), op["ok"].as_bool(), op["cases"].as_u64()),
        (Some("swiglu"), Some(true), Some(2))
    );
    let results = op["results"].as_array().unwrap();
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    for (result, dtype) in results.iter().zip(["F32", "BF16"]) {
        let named = ["shape", "dtype", "arch"].map(|key| result[key].as_str().unwrap());
        assert_eq!(named, ["T=3 F=40", dtype, "sm_80"]);
        let (error, limit) = (number(result, "error"), number(result, "limit"));
        assert!(0.0 < error && error <= limit && !result["tensor"].as_str().unwrap().is_empty(), "{result}");
        assert!((number(result, "ratio") - error / limit).abs() < 1e-12);
    }
    let worst = results.iter().map(|result| number(result, "ratio")).fold(0.0, f64::max);
    assert_eq!(number(op, "worst_ratio"), worst);
    begins(&lines[0], "op,shape,dtype,arch,tensor,error,limit,ratio");
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_prediction_names_its_bound_and_its_share_of_the_roof() {
    if or_skip(Device::emulated("sm_80")).is_none() {
        return;
    }
    let (object, lines) = run("predict", &["predict", "swiglu", "--chip", "a100", "--shape", "4096,13824"]);
    let forward = &object["kernels"][0];
    assert_eq!(
        (forward["kernel"].as_str(), forward["bound"].as_str()),
        (Some("swiglu"), Some("device memory"))
    );
    // Three tensors of 113 MB at nine tenths of 2,039 GB/s, and the start.
    let (seconds, share) = (forward["seconds"].as_f64().unwrap(), forward["share_of_roof"].as_f64().unwrap());
    let expected = 3.0 * 2.0 * 4096.0 * 13824.0 / (0.9 * 2039e9) + 1.5e-6;
    assert!((seconds / expected - 1.0).abs() < 0.01, "{seconds} {expected}");
    assert!((share - 0.9).abs() < 0.02, "{share}");
    begins(&lines[0], "op,shape,dtype,chip,arch,kernel,launches,seconds,bound,mma_flops,share_of_roof");
}

#[test]
fn a_step_is_the_sum_of_its_calls() {
    if or_skip(Device::emulated("sm_80")).is_none() {
        return;
    }
    let (object, lines) = run("decode", &["predict", "decode", "--chip", "a100"]);
    let kernels = object["kernels"].as_array().unwrap();
    let sum = |key: &str, times: Option<u64>| -> f64 {
        let counted = kernels.iter().filter(|k| times.is_none_or(|times| k["times"].as_u64() == Some(times)));
        counted
            .map(|k| {
                k[key].as_f64().unwrap() * if times.is_none() { k["times"].as_f64().unwrap() } else { 1.0 }
            })
            .sum()
    };
    assert_eq!(object["launches_per_layer"].as_f64().unwrap(), sum("launches", Some(40)));
    assert_eq!(object["launches"].as_f64().unwrap(), sum("launches", None));
    let (seconds, all) = (object["seconds"].as_f64().unwrap(), sum("seconds", None));
    assert!((seconds / all - 1.0).abs() < 1e-9, "{seconds} {all}");
    // A token reads 26 GB of weights, which take 12.8 ms at the memory's full rate.
    assert!((0.0128..0.03).contains(&seconds), "{seconds}");
    begins(
        &lines[0],
        "step,sequences,chip,arch,dtype,call,times,kernel,launches,seconds,bound,share_of_roof",
    );
}
