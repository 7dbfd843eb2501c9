//! `codelsi ablate`: one command, a table of variants; the same seed gives the same table; runs are compared in one report.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The last line of a command, which is JSON.
fn codelsi(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_codelsi")).args(args).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(told.lines().last().unwrap()).unwrap()
}

/// Two steps a variant, and two problems.
fn ablate(what: &str, out: &Path) -> Value {
    let small =
        ["--steps", "2", "--batch", "2", "--seq", "64", "--limit", "2", "-n", "1", "--max-tokens", "16"];
    let run = ["ablate", what, "--recipe", "demo", "--device", "cpu", "--out", out.to_str().unwrap()];
    codelsi(&[&run[..], &small].concat())
}

/// Names and Pass@1 of a set's models.
fn table(told: &Value) -> Vec<(String, f64)> {
    let models = told["sets"][0].as_array().unwrap().iter();
    models.map(|m| (m["name"].as_str().unwrap().to_owned(), m["pass_at_1"].as_f64().unwrap())).collect()
}

#[test]
fn variants_stand_in_one_table_that_its_seed_decides() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let first = ablate("methods", &path("first"));
    let names: Vec<String> = table(&first).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["base", "LoRA", "rsLoRA", "DoRA", "bottleneck", "mixture", "full"]);
    assert_eq!(table(&ablate("methods", &path("again"))), table(&first));
    let losses = |run: &str| -> Vec<Value> {
        let report = std::fs::read(path(run).join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        report["models"].as_array().unwrap().iter().map(|row| row["last_loss"].clone()).collect()
    };
    assert_eq!(losses("first"), losses("again"));
    // The methods are six.
    let told: std::collections::BTreeSet<String> = losses("first").iter().map(Value::to_string).collect();
    assert_eq!(told.len(), 7, "{told:?}");
    assert!(path("first/full/model.safetensors").exists() && path("first/LoRA/adapter_config.json").exists());

    let [first, again, both] = ["first", "again", "both"].map(path);
    codelsi(&["report", first.to_str().unwrap(), again.to_str().unwrap(), "--out", both.to_str().unwrap()]);
    let text = std::fs::read_to_string(both.join("report.md")).unwrap();
    assert!(text.contains("| first LoRA |") && text.contains("| again full − again mixture |"), "{text}");
}
