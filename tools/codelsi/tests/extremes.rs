//! Numbers at their extremes, on the command line and in files: a command ends with one line or does its work.

#[path = "common/binary.rs"]
mod binary;

use binary::{codelsi, make_model};
use serde_json::Value;
use std::fs;
use std::process::Output;

const NUMBERS: [&str; 11] = [
    "0",
    "1",
    "-1",
    "1000000000000",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "nan",
    "inf",
    "",
];

/// Asserts that a command did its work or ended with a line of its own: no panic, no abort, no signal.
fn ended_well(output: &Output, what: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(matches!(code, Some(0..=2)), "{what}: {:?}\n{errors}", output.status);
    assert!(!errors.contains("panicked"), "{what}\n{errors}");
    if code == Some(1) {
        assert!(errors.lines().last().is_some_and(|line| line.starts_with("codelsi: ")), "{what}\n{errors}");
    }
}

#[test]
fn extreme_numbers_end_no_command_with_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let model = make_model(folder.path());
    let data = folder.path().join("data.jsonl");
    let row = |i: usize| format!("{{\"instruction\": \"write f{i}\", \"output\": \"return {i};\"}}\n");
    fs::write(&data, (0..12).map(row).collect::<String>()).unwrap();
    let (model, data) = (model.to_str().unwrap(), data.to_str().unwrap());
    let train = [
        "--seq",
        "--batch",
        "--micro-batch",
        "--epochs",
        "--max-steps",
        "--warmup",
        "--rank",
        "--validation",
        "--validate-every",
        "--save-every",
        "--seed",
        "--timeout",
        "--ranks",
        "--experts",
        "--bottleneck",
        "--checkpointing",
    ];
    let generate = [
        "-n",
        "--max-tokens",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repetition-penalty",
        "--frequency-penalty",
        "--presence-penalty",
        "--seed",
        "--page-size",
        "--prompt-ids",
        "--timeout",
    ];
    let plan =
        ["--seq", "--batch", "--micro-batch", "--rank", "--memory", "--ranks", "--experts", "--bottleneck"];
    let plan_generation = ["--sequences", "--context-length", "--page-size"];
    let run = |fixed: &[&str], flag: &str, number: &str| {
        let last = format!("{flag}={number}");
        let last = if flag == "-n" { vec!["-n".to_owned(), number.to_owned()] } else { vec![last] };
        let output = codelsi().args(fixed).args(&last).output().unwrap();
        ended_well(&output, &format!("{} {}", fixed[0], last.join(" ")));
    };
    for number in NUMBERS {
        for flag in train {
            let out = folder.path().join(format!("{flag}{number}").replace(['-', '/'], "_"));
            let fixed = [
                "train",
                "--model",
                model,
                "--data",
                data,
                "--device",
                "cpu",
                "--out",
                out.to_str().unwrap(),
            ];
            let short = ["--seq=64", "--batch=2", "--max-steps=1", "--validation=2", "--rank=2"];
            let short = short.into_iter().filter(|s| !s.starts_with(&format!("{flag}=")));
            // The adapter's width is --bottleneck's.
            let short = short.filter(|s| flag != "--bottleneck" || !s.starts_with("--rank"));
            run(&fixed.into_iter().chain(short).collect::<Vec<_>>(), flag, number);
        }
        for flag in generate {
            let prompt = if flag == "--prompt-ids" { "--seed=1" } else { "--prompt=hi" };
            let short = if flag == "--max-tokens" { "--seed=2" } else { "--max-tokens=2" };
            run(&["generate", "--model", model, "--device", "cpu", prompt, short], flag, number);
        }
        for flag in plan {
            run(&["plan", "--shape", "tiny", "--device", "cpu"], flag, number);
        }
        for flag in plan_generation {
            run(&["plan", "--shape", "tiny", "--device", "cpu", "--generate"], flag, number);
        }
    }
}

/// Every number in a JSON value, by the steps to it.
fn numbers_in(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(path.to_owned()),
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(i, v)| numbers_in(v, &format!("{path}/{i}"), found))
        }
        Value::Object(all) => all.iter().for_each(|(k, v)| numbers_in(v, &format!("{path}/{k}"), found)),
        _ => {}
    }
}

#[test]
fn extreme_numbers_in_files_end_no_command_with_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let model = make_model(folder.path());
    let adapter = folder.path().join("adapter");
    let data = folder.path().join("data.jsonl");
    fs::write(&data, "{\"instruction\": \"a\", \"output\": \"b\"}\n".repeat(4)).unwrap();
    let trained = codelsi()
        .args([
            "train",
            "--seq=64",
            "--max-steps=1",
            "--validation=0",
            "--rank=2",
            "--device=cpu",
            "--template=plain",
        ])
        .arg("--model")
        .arg(&model)
        .arg("--data")
        .arg(&data)
        .arg("--out")
        .arg(&adapter)
        .output()
        .unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    let extremes = [
        "-1",
        "0",
        "0.5",
        "4294967296",
        "9223372036854775807",
        "18446744073709551615",
        "1e300",
        "1e400",
        "null",
    ];
    for (file, owner) in [("config.json", &model), ("adapter_config.json", &adapter)] {
        let path = owner.join(file);
        let text = fs::read_to_string(&path).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        let mut places = Vec::new();
        numbers_in(&whole, "", &mut places);
        assert!(!places.is_empty());
        for place in places {
            for extreme in extremes {
                let mut changed = whole.clone();
                *changed.pointer_mut(&place).unwrap() = Value::String("HERE".into());
                fs::write(&path, changed.to_string().replace("\"HERE\"", extreme)).unwrap();
                let output = codelsi()
                    .args(["generate", "--prompt=hi", "--max-tokens=2", "--device=cpu", "--model"])
                    .arg(&model)
                    .arg("--adapter")
                    .arg(&adapter)
                    .output()
                    .unwrap();
                ended_well(&output, &format!("{file} {place} = {extreme}"));
                let output = codelsi()
                    .args(["plan", "--device=cpu", "--seq=64", "--model"])
                    .arg(&model)
                    .output()
                    .unwrap();
                ended_well(&output, &format!("plan, {file} {place} = {extreme}"));
            }
        }
        fs::write(&path, text).unwrap();
    }
}
