//! Memory of the process during a run on the CPU, compared with its plan.

use serde_json::Value;
use std::process::Command;

fn codelsi(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_codelsi")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_training_run_takes_what_was_planned_and_no_copy_of_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, data, out) = (path("model"), path("data.jsonl"), path("out"));
    codelsi(&["mkmodel", "--shape", "110m", "--out", &model]);
    let row = r#"{"instruction": "add", "output": "let a = b + c; let d = e + f; return a * d;"}"#;
    std::fs::write(&data, [row; 4].join("\n")).unwrap();
    let files = ["train", "--model", &model, "--data", &data, "--out", &out];
    let rest =
        ["--seq", "256", "--batch", "1", "--validation", "0", "--max-steps", "2", "--checkpointing", "none"];
    let place = ["--device", "cpu", "--json"];
    let stdout = codelsi(&[&files[..], &rest[..], &place[..]].concat());
    let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let bytes = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(bytes("peak_bytes"), bytes("planned_bytes"));
    // Of a process the plan knows the tensors: not the program, its stacks and what the allocator keeps.
    let limit = bytes("planned_bytes") * 11 / 10 + (64 << 20);
    assert!(bytes("anonymous_bytes") <= limit, "{} of {limit}", bytes("anonymous_bytes"));
    let weights = std::fs::metadata(folder.path().join("model/model.safetensors")).unwrap().len();
    assert!(weights > limit, "a copy of the weights would be seen");
}
