//! The flags of the methods, from training to a merge or its refusal, as a user meets them.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/assets/base");

fn codelsi(words: &str, paths: &[(&str, &Path)]) -> Output {
    let paths = paths.iter().flat_map(|(flag, path)| [flag.as_ref(), path.as_os_str()]);
    let command = &mut Command::new(env!("CARGO_BIN_EXE_codelsi"));
    command.args(words.split_whitespace()).args(paths).output().unwrap()
}

/// The last line of a command that must succeed, which is JSON.
fn json_result(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// The one line of error of a command that must fail; notes may precede it.
fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = errors.lines().filter(|line| !line.starts_with("text ends at")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("codelsi: "), "{errors}");
    lines[0].to_string()
}

#[test]
fn each_is_trained_told_answers_and_is_merged_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (data, base) = (folder.path().join("data.jsonl"), Path::new(BASE));
    let row = |i: usize| json!({"instruction": format!("give {i}"), "output": format!("return {};", i * 7)});
    let rows: Vec<String> = (0..12).map(|i| row(i).to_string()).collect();
    std::fs::write(&data, rows.join("\n")).unwrap();
    for (flags, method, merges) in [
        ("--rslora", "rsLoRA", true),
        ("--dora", "DoRA", true),
        ("--dora --rslora", "rank-stabilized DoRA", true),
        ("--experts 2 --rank 4", "a mixture of 2 LoRA experts", false),
        ("--bottleneck 6", "bottleneck adapters", false),
    ] {
        let [adapter, merged] =
            ["adapter", "merged"].map(|name| folder.path().join(format!("{name} {method}")));
        let train =
            format!("train {flags} --max-steps 3 --batch 2 --seq 64 --validation 2 --device cpu --json");
        let report =
            json_result(&codelsi(&train, &[("--model", base), ("--data", &data), ("--out", &adapter)]));
        let sizes = codelsi(&format!("inspect {BASE} --json"), &[("--adapter", &adapter)]);
        let sizes = json_result(&sizes);
        assert_eq!((&sizes["method"], &sizes["trainable"]), (&json!(method), &report["trainable"]));
        let ask = "generate --prompt hello --max-tokens 4 --device cpu --json";
        json_result(&codelsi(ask, &[("--model", base), ("--adapter", &adapter)]));

        let paths = [("--model", base), ("--adapter", &*adapter), ("--out", &*merged)];
        let merge = codelsi("merge --device cpu --json", &paths);
        if merges {
            assert!(json_result(&merge)["logits_rel_l2"].as_f64().unwrap() < 5e-2, "{method}");
        } else {
            let line = refusal(&merge);
            assert!(line.contains(&format!("{method} cannot be merged")) && !merged.exists(), "{line}");
        }
        let ranks = "generate --prompt hello --max-tokens 2 --device cpu --ranks 2 --layout tensor --json";
        let on_ranks = codelsi(ranks, &[("--model", base), ("--adapter", &adapter)]);
        match method {
            "rsLoRA" | "bottleneck adapters" => drop(json_result(&on_ranks)),
            _ => assert!(refusal(&on_ranks).contains(&format!("--layout tensor does not know {method}"))),
        }
    }
}
