//! Tests `benches/compare.sh` with scripts in place of bench binaries: how they take turns, and what the table says.

use serde_json::{Value, from_str};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Writes a bench binary whose time of `gemm` drifts from run to run, noisily, and is `factor` times that of others.
fn binary(folder: &Path, name: &str, factor: f64) -> String {
    let path = folder.join(name);
    let script = format!(
        r#"#!/bin/bash
n=$(cat {0}/count 2>/dev/null || echo 0)
echo $((n + 1)) > {0}/count
echo "{name} $*" >> {0}/calls
awk -v n="$n" -v f={factor} 'BEGIN {{ t = f * (1 + n / 20) * (1 + 0.01 * ((n * 7) % 5 - 2)); printf "{{\"results\":{{\"gemm/BF16 T=1 Forward\":{{\"median_s\":%.9f}}}}}}\n", t }}' \
  > "$CODELSI_BENCH_SAVE/run.json"
"#,
        folder.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn compare(folder: &Path, args: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare.sh");
    let mut command = Command::new("bash");
    command.arg(script).args(args).env("CODELSI_COMPARE", env!("CARGO_BIN_EXE_compare_runs"));
    command.env("CODELSI_COMPARE_RUNS", folder.join("runs")).output().unwrap()
}

fn last_line(run: &Output) -> Value {
    assert!(run.status.success(), "{run:?}");
    from_str(String::from_utf8_lossy(&run.stdout).lines().last().unwrap()).unwrap()
}

#[test]
fn one_binary_twice_does_not_differ_and_a_slower_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let (same, slower) = (binary(folder.path(), "same", 1.0), binary(folder.path(), "slower", 1.1));
    let twice = last_line(&compare(folder.path(), &[&same, &same, "gemm"]));
    assert_eq!(
        (&twice["differ"], &twice["benches"]["gemm/BF16 T=1 Forward"]["verdict"]),
        (&0.into(), &"no difference".into())
    );
    let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
    assert_eq!(calls.lines().count(), 20, "ten rounds");
    assert!(calls.lines().all(|call| call == "same --bench --noplot gemm"), "{calls}");

    let other = last_line(&compare(folder.path(), &[&same, &slower, "--rounds", "12"]));
    let row = &other["benches"]["gemm/BF16 T=1 Forward"];
    assert_eq!((&other["differ"], &row["verdict"]), (&1.into(), &"slower".into()), "{other}");
    assert!((row["ratio"].as_f64().unwrap() - 1.1).abs() < 0.03, "{other}");
    let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
    let turns: Vec<&str> = calls.lines().skip(20).take(4).map(|call| &call[..4]).collect();
    assert_eq!(turns, ["same", "slow", "slow", "same"], "the order changes from round to round");
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let same = binary(folder.path(), "same", 1.0);
    let fails = folder.path().join("fails");
    fs::write(&fails, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&fails, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = |args: &[&str], message: &str| {
        let run = compare(folder.path(), args);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        let lines = said.lines().filter(|line| !line.starts_with("round "));
        assert_eq!((run.status.code(), lines.count()), (Some(2), 1), "{said}");
        assert!(said.contains(message), "{said}");
    };
    refused(&[&same], "usage: bash benches/compare.sh A B");
    refused(&[&same, &same, "--rounds", "2"], "at least 3");
    refused(&[&same, &same, "--speed"], "--speed is no option");
    refused(&[&same, "no-such-commit"], "no-such-commit is neither a commit nor a program");
    refused(&[&same, fails.to_str().unwrap()], "failed, see");
}
