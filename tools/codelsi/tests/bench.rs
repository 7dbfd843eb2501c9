//! The figures of `codelsi bench`: as text, as JSON and as comma-separated values.

use serde_json::Value;
use std::process::Command;

fn bench(args: &[&str]) -> String {
    let sizes =
        ["bench", "--shape", "tiny", "--prefill", "32", "--decode", "4", "--train", "32", "--repeat", "2"];
    let output =
        Command::new(env!("CARGO_BIN_EXE_codelsi")).args(sizes).args(args).args(["--device", "cpu"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn figures_have_a_spread_and_a_machine() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("figures.csv");
    let stdout = bench(&["--json", "--threads", "2", "--csv", csv.to_str().unwrap()]);
    let result: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    for work in ["prefill", "decode", "train"] {
        let of = |key: &str| &result[format!("{work}_{key}")];
        let [low, high] = [0, 1].map(|i| of("tokens_per_s_slowest_fastest")[i].as_f64().unwrap());
        let median = of("tokens_per_s").as_f64().unwrap();
        assert!(0.0 < low && low <= median && median <= high, "{work}: {low} {median} {high}");
        assert_eq!((of("runs"), of("profile")), (&Value::from(2), &Value::Null));
    }
    assert_eq!(result["environment"]["threads"], "2");
    let text = std::fs::read_to_string(csv).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "a line of names and one for each workload:\n{text}");
    for name in ["workload", "tokens_per_s", "slowest", "processor", "commit", "threads"] {
        assert!(lines[0].split(',').any(|field| field == name), "{}", lines[0]);
    }
}

#[test]
fn a_profile_names_the_ops_and_what_is_outside_of_them() {
    let stdout = bench(&["--profile"]);
    let train = stdout.split("\ntrain").nth(1).unwrap();
    for (op, pass) in [("lora", "forward"), ("lora", "backward"), ("flash", "backward"), ("adamw", "forward")]
    {
        let line = train.lines().find(|line| line.contains(op) && line.contains(pass));
        let share = line.and_then(|line| line.trim_end_matches(" %").rsplit(' ').next()?.parse::<f64>().ok());
        assert!(share.is_some_and(|share| (0.0..=100.0).contains(&share)), "{op} {pass}:\n{train}");
    }
    assert!(train.contains("outside of ops"), "{train}");
}
