//! Tests `tools/gpu_check.sh` with scripts in place of the driver and the binaries: the commands it runs, the files it
//! leaves, the input it refuses.

use serde_json::{Value, from_str};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Folder of one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Writes a program whose body is the shell script `body`.
    fn program(&self, name: &str, body: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs `gpu_check.sh` on the programs of this folder, which also are the first in the path.
    fn check(&self, args: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/gpu_check.sh");
        let path = format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(script).arg(self.out()).arg("--bin").arg(&self.0).args(args);
        command.env("PATH", path).env("CODELSI_COMMIT", "c0ffee").output().unwrap()
    }

    fn out(&self) -> PathBuf {
        self.0.join("out")
    }

    fn result(&self) -> Value {
        from_str(&fs::read_to_string(self.out().join("gpu_check.json")).unwrap()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CARD: &str = "case \"$*\" in *driver_version*) echo 580.1 ;; *) echo 'NVIDIA \"T\" 1' ;; esac";
/// A kernelcheck of two ops that says how it was called.
const KERNELCHECK: &str =
    "[ \"$1\" != list ] || { echo gemm rope; exit; }; echo ran; echo \"{\\\"args\\\":\\\"$*\\\"}\"";
/// A program that says how it was called, and in which world.
const PROGRAM: &str = "echo \"{\\\"args\\\":\\\"$*\\\",\\\"world\\\":\\\"$WORLD_SIZE\\\"}\"";

/// Returns the arguments of a step's program.
fn args(result: &Value, step: &str) -> String {
    result["steps"][step]["result"]["args"].as_str().unwrap_or("").to_owned()
}

#[test]
fn everything_is_run_in_order_and_kept() {
    let folder = Folder::new("all");
    folder.program("nvidia-smi", CARD);
    folder.program("kernelcheck", KERNELCHECK);
    for name in ["parity", "codelsi", "peers", "ops"] {
        folder.program(name, PROGRAM);
    }
    fs::create_dir_all(folder.0.join("reference/one")).unwrap();
    let reference = folder.0.join("reference");
    let run = folder.check(&["--reference", reference.to_str().unwrap()]);
    assert!(run.status.success(), "{run:?}");
    let result = folder.result();
    assert_eq!((&result["card"], &result["driver"]), (&"NVIDIA T 1".into(), &"580.1".into()));
    assert_eq!((&result["commit"], &result["ok"]), (&"c0ffee".into(), &true.into()));
    assert_eq!(args(&result, "agree_rope"), "check --device cuda --against emulated --json rope");
    assert_eq!(args(&result, "check_gemm"), "check --device cuda --json gemm");
    assert!(args(&result, "parity_bf16").ends_with("reference/one --device cuda --compute bf16 --json"));
    let layers = "bench --shape code-llama-13b --device cuda --json --layers 4 --prefill 4096 --decode 256 --train 4096";
    assert_eq!(args(&result, "layers_few"), layers);
    assert_eq!(result["steps"]["layers_all"]["aim"]["decode_roof_share"], 0.85);
    assert_eq!(result["steps"]["nccl_one_rank"]["result"]["world"], "1");
    assert_eq!(result["steps"]["layers_all"]["result"]["world"], "");
    let steps: Vec<&str> = result["steps"].as_object().unwrap().keys().map(String::as_str).collect();
    let first =
        ["agree_gemm", "agree_rope", "check_gemm", "check_rope", "parity_f32", "parity_bf16", "peers"];
    assert_eq!(steps[..first.len()], first);
    assert!(steps.contains(&"roofline") && !steps.contains(&"two_ranks"), "{steps:?}");
    for step in steps {
        assert!(folder.out().join(format!("steps/{step}.json")).exists());
        assert!(folder.out().join(format!("steps/{step}.log")).exists());
    }
}

#[test]
fn the_ranks_are_run_on_the_gpus_there_are() {
    for cards in [1, 2] {
        let folder = Folder::new(&format!("ranks{cards}"));
        let names = "echo A100; ".repeat(cards);
        let smi = format!("case \"$*\" in *driver*) echo 580.1 ;; *--id=0*) echo A100 ;; *) {names} ;; esac");
        folder.program("nvidia-smi", &smi);
        folder.program("kernelcheck", KERNELCHECK);
        folder.program(
            "codelsi",
            &format!("[ $1 != mkmodel ] || {{ mkdir -p $5 && : > $5/config.json; }}; {PROGRAM}"),
        );
        let model = folder.0.join("model");
        let run = folder.check(&["--model", model.to_str().unwrap(), "--ops", "rope"]);
        assert!(run.status.success(), "{run:?}");
        let result = folder.result();
        assert_eq!(result["steps"]["layers_all"]["aim"]["train_tokens_per_s"], 3900);
        assert_eq!(args(&result, "two_ranks").ends_with("--ranks 2"), cards == 2, "{result}");
        assert!(args(&result, "mkmodel").starts_with("mkmodel --shape code-llama-13b --out "), "{result}");
        assert_eq!(result["steps"]["load"]["aim"]["load_gb_per_s"], 20);
        assert_eq!(args(&result, "agree_gemm"), "", "an op that was not asked for");
    }
}

/// A second call runs what is left and what has another program, and nothing else.
#[test]
fn a_second_call_goes_on_where_the_first_stopped() {
    let folder = Folder::new("goes_on");
    folder.program("nvidia-smi", CARD);
    let kernelcheck = format!("echo \"$*\" >> {}/calls; {KERNELCHECK}", folder.0.display());
    folder.program("kernelcheck", &kernelcheck);
    let calls = || fs::read_to_string(folder.0.join("calls")).unwrap().lines().count();
    assert!(folder.check(&[]).status.success());
    let first = calls();
    assert!(folder.check(&[]).status.success());
    assert_eq!(calls(), first + 1, "only the list of ops is asked for again");
    folder.program("kernelcheck", &format!("{kernelcheck} # another build"));
    assert!(folder.check(&[]).status.success());
    assert_eq!(calls(), 2 * first + 1);
}

/// Leaves what does not fit the budget for the next call, which is no failure; a step that hangs is one.
#[test]
fn the_budget_ends_a_call_and_a_part_of_it_a_step() {
    let folder = Folder::new("budget");
    folder.program("nvidia-smi", CARD);
    folder.program("kernelcheck", &format!("[ \"$1\" != check ] || sleep 0.9; {KERNELCHECK}"));
    let run = folder.check(&["--minutes", "0.05"]);
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    let result = folder.result();
    assert_eq!((&result["ok"], &result["steps"]["agree_gemm"]["exit"]), (&true.into(), &0.into()));
    assert!(result["left"].to_string().contains("roofline"), "{result}");
    folder.program("kernelcheck", &format!("[ \"$1\" != check ] || sleep 60; {KERNELCHECK}"));
    assert_eq!(folder.check(&["--minutes", "0.1"]).status.code(), Some(1));
    assert_eq!(folder.result()["steps"]["agree_gemm"]["exit"], 124);
}

#[test]
fn a_failed_step_is_kept_and_the_rest_still_runs() {
    let folder = Folder::new("failed");
    folder.program("nvidia-smi", CARD);
    let body = "case \"$*\" in list*) echo gemm ;; *--against*) echo '{\"ok\":false}'; exit 1 ;; *roof*) echo no result ;; *) echo '{}' ;; esac";
    folder.program("kernelcheck", body);
    let run = folder.check(&[]);
    assert_eq!(run.status.code(), Some(1));
    let result = folder.result();
    assert_eq!(
        (&result["ok"], result["failed"].to_string()),
        (&false.into(), "[\"agree_gemm\",\"roofline\"]".into())
    );
    let step = |name: &str| result["steps"][name].clone();
    assert_eq!(
        (&step("agree_gemm")["exit"], &step("agree_gemm")["result"]["ok"]),
        (&1.into(), &false.into())
    );
    assert_eq!(step("check_gemm")["exit"], 0);
    assert_eq!((&step("roofline")["exit"], &step("roofline")["result"]), (&1.into(), &Value::Null));
    // A step that failed is not forgotten by the next call.
    assert_eq!(folder.check(&[]).status.code(), Some(1));
}

/// One line on stderr, and nothing left behind.
#[test]
fn bad_input_and_a_machine_without_a_card_are_refused() {
    let folder = Folder::new("refused");
    let refused = |args: &[&str], code: i32, message: &str| {
        let run = folder.check(args);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!((run.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.contains(message), "{said}");
        assert!(!folder.out().join("gpu_check.json").exists());
    };
    folder.program("nvidia-smi", "exit 9");
    refused(&[], 2, "holds no program kernelcheck");
    folder.program("kernelcheck", KERNELCHECK);
    refused(&["second"], 2, "only one FOLDER");
    refused(&["--speed", "1"], 2, "--speed is no option");
    refused(&["--minutes"], 2, "--minutes needs a value");
    refused(&["--minutes", "0"], 2, "at least 0.05");
    refused(&["--minutes", "soon"], 2, "a number of minutes");
    refused(&["--reference", "/no/such"], 2, "is no folder of reference cases");
    refused(&[], 1, "no card here");
    folder.program("nvidia-smi", CARD);
    fs::write(folder.out(), "").unwrap();
    refused(&[], 2, "out cannot be made");
}
