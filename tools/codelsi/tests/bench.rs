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
fn a_load_of_requests_is_served() {
    let run = |args: &[&str]| {
        let load = ["bench", "--shape", "tiny", "--device", "cpu", "--serve", "--requests", "12"];
        let sizes =
            ["--prompt-tokens", "20", "--answer-tokens", "8", "--shared-tokens", "40", "--sequences", "4"];
        let output =
            Command::new(env!("CARGO_BIN_EXE_codelsi")).args(load).args(sizes).args(args).output().unwrap();
        (output.status.success(), [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()))
    };
    let json = |args: &[&str]| {
        let (ok, [stdout, stderr]) = run(args);
        assert!(ok, "{stderr}");
        serde_json::from_str::<Value>(stdout.lines().last().unwrap()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("serve.csv");
    let load = json(&["--json", "--rate", "0", "--csv", csv.to_str().unwrap()]);
    let number = |load: &Value, name: &str| load[name].as_f64().unwrap_or_else(|| panic!("{name} in {load}"));
    assert_eq!((number(&load, "requests"), number(&load, "refused")), (12.0, 0.0));
    for name in ["first_token_s", "output_token_s"] {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| number(&load, &format!("{name}_p{percent}")));
        assert!(0.0 < p50 && p50 <= p95 && p95 <= p99, "{name}: {load}");
    }
    assert!(number(&load, "tokens_per_s") > 0.0 && number(&load, "peak_running") <= 4.0, "{load}");
    assert!(
        number(&load, "peak_pages") <= number(&load, "pages") && load["environment"].is_object(),
        "{load}"
    );
    // Three models share nothing; the requests of one share 40 tokens, which are two full pages.
    let hits = number(&load, "prefix_hit_tokens");
    assert!(hits > 0.0 && hits <= 11.0 * 48.0, "{load}");
    assert_eq!(number(&json(&["--json", "--rate", "0", "--no-prefix-cache"]), "prefix_hit_tokens"), 0.0);
    // The load depends on its seed alone.
    let same = json(&["--json", "--seed", "42", "--rate", "500"]);
    for name in ["prompt_tokens", "generated_tokens"] {
        assert_eq!(number(&same, name), number(&load, name), "{name}");
    }
    assert_ne!(json(&["--json", "--rate", "0", "--seed", "43"])["prompt_tokens"], load["prompt_tokens"]);
    // Few pages: some sequences give theirs up, and all are answered.
    let tight = json(&["--json", "--rate", "0", "--pages", "8", "--no-prefix-cache"]);
    assert_eq!((number(&tight, "requests"), number(&tight, "pages")), (12.0, 8.0));
    assert_eq!(number(&tight, "generated_tokens"), number(&load, "generated_tokens"));
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 2);
    let (_, [stdout, _]) = run(&["--rate", "0"]);
    for part in ["tokens/s generated", "time to first token", "time per output token", "p99", "preemptions"] {
        assert!(stdout.contains(part), "{part}:\n{stdout}");
    }
}

#[test]
fn a_load_that_cannot_be_served_is_refused_in_one_line() {
    let error = |args: &[&str]| {
        let fixed = ["bench", "--shape", "tiny", "--device", "cpu", "--serve"];
        let output = Command::new(env!("CARGO_BIN_EXE_codelsi")).args(fixed).args(args).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&["--prompt-tokens", "400"]).contains("the model 512 positions"));
    assert!(error(&["--ranks", "2"]).contains("use --ranks 1"));
    assert!(error(&["--prefill", "8"]).contains("cannot be used with"));
    assert!(error(&["--rate=-1"]).contains("not from 0 to"));
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
