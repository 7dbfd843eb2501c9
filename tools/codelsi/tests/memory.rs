//! Memory of the process during a run on the CPU, compared with its plan.

use serde_json::Value;
use std::process::Command;

fn codelsi(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_codelsi")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_training_run_takes_what_was_planned_and_no_copy_of_the_weights_unless_it_packs_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, data) = (path("model"), path("data.jsonl"));
    codelsi(&["mkmodel", "--shape", "110m", "--out", &model]);
    let row = r#"{"instruction": "add", "output": "let a = b + c; let d = e + f; return a * d;"}"#;
    std::fs::write(&data, [row; 4].join("\n")).unwrap();
    let weights = std::fs::metadata(folder.path().join("model/model.safetensors")).unwrap().len();
    let run = |packing: &str| {
        let out = path(packing);
        let files = ["train", "--model", &model, "--data", &data, "--out", &out, "--pack-weights", packing];
        let rest = [
            "--seq",
            "256",
            "--batch",
            "1",
            "--validation",
            "0",
            "--max-steps",
            "2",
            "--checkpointing",
            "none",
        ];
        let place = ["--device", "cpu", "--json"];
        let stdout = codelsi(&[&files[..], &rest[..], &place[..]].concat());
        let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        let bytes = |key: &str| report[key].as_u64().unwrap();
        assert_eq!(bytes("peak_bytes"), bytes("planned_bytes"), "{packing}");
        // Of a process the plan knows the tensors: not the program, its stacks and what the allocator keeps.
        let limit = bytes("planned_bytes") * 11 / 10 + (64 << 20);
        assert!(bytes("anonymous_bytes") <= limit, "{packing}: {} of {limit}", bytes("anonymous_bytes"));
        let adapter = std::fs::read(folder.path().join(packing).join("adapter_model.safetensors")).unwrap();
        (limit, bytes("planned_bytes"), adapter)
    };
    let ((limit, in_place, adapter), (_, packed, same)) = (run("off"), run("on"));
    assert!(weights > limit, "a copy of the weights would be seen");
    // All matrices but the embedding, a ninth of this model.
    assert!((packed - in_place) * 10 > weights * 7 && packed - in_place < weights, "{packed} {in_place}");
    assert!(adapter == same, "packed weights change no bit");
}
