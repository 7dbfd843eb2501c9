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

    /// Runs `gpu_check.sh` with the programs of this folder first in the path.
    fn check(&self, args: &[&Path]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/gpu_check.sh");
        let path = format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(script).args(args).env("PATH", path).env("CODELSI_COMMIT", "c0ffee").output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CARD: &str = "case \"$*\" in *driver_version*) echo 580.1 ;; *) echo 'NVIDIA \"T\" 1' ;; esac";

#[test]
fn everything_is_run_in_order_and_kept() {
    let folder = Folder::new("all");
    folder.program("nvidia-smi", CARD);
    let kernelcheck = folder.program("kernelcheck", "echo \"ran $*\"; echo \"{\\\"args\\\":\\\"$*\\\"}\"");
    let bench = folder.program("bench", "echo '{\"gemm\":{\"median_s\":1e-3}}'");
    let out = folder.0.join("out");
    let run = folder.check(&[&out, &kernelcheck, &bench]);
    assert!(run.status.success(), "{run:?}");
    let result: Value = from_str(&fs::read_to_string(out.join("gpu_check.json")).unwrap()).unwrap();
    assert_eq!((&result["card"], &result["driver"]), (&"NVIDIA T 1".into(), &"580.1".into()));
    assert_eq!((&result["commit"], &result["ok"]), (&"c0ffee".into(), &true.into()));
    let args = |step: &str| result[step]["result"]["args"].as_str().unwrap().to_owned();
    assert_eq!(args("against_emulated"), "check --device cuda --against emulated --json");
    assert_eq!(args("check"), "check --device cuda --json");
    assert_eq!(args("roofline"), "roofline --json");
    assert_eq!(result["bench"]["result"]["gemm"]["median_s"], 1e-3);
    let places = ["against_emulated", "check", "roofline", "bench"].map(|step| {
        assert!(out.join(format!("{step}.log")).exists());
        String::from_utf8_lossy(&run.stdout).find(&format!("== {step}\n")).unwrap()
    });
    assert!(places.is_sorted());
}

/// The model is made once; NCCL runs with one rank, and with two ranks where there are two GPUs.
#[test]
fn real_shapes_are_run_on_the_gpus_there_are() {
    for cards in [1, 2] {
        let folder = Folder::new(&format!("real{cards}"));
        let names = "echo A100; ".repeat(cards);
        folder.program(
            "nvidia-smi",
            &format!("case \"$*\" in *driver*) echo 580.1 ;; *--id=0*) echo A100 ;; *) {names} ;; esac"),
        );
        let kernelcheck = folder.program("kernelcheck", "echo '{}'");
        let made = "[ $1 != mkmodel ] || { mkdir -p $5 && : > $5/config.json; }";
        let said = "echo \"{\\\"args\\\":\\\"$*\\\",\\\"world\\\":\\\"$WORLD_SIZE\\\"}\"";
        let codelsi = folder.program("codelsi", &format!("{made}; {said}"));
        let out = folder.0.join("out");
        let run = || -> Value {
            let run = folder.check(&[&out, &kernelcheck, Path::new("-"), &codelsi]);
            assert!(run.status.success(), "{run:?}");
            from_str(&fs::read_to_string(out.join("gpu_check.json")).unwrap()).unwrap()
        };
        let result = run();
        let args = |step: &str| result[step]["result"]["args"].as_str().unwrap_or("").to_owned();
        assert!(args("mkmodel").starts_with("mkmodel --shape code-llama-13b --out "), "{result}");
        assert!(args("plan").starts_with("plan --model "));
        assert!(args("inference").ends_with("--device cuda --json --prefill 4096 --decode 256 --train 0"));
        assert_eq!(result["inference"]["aim"]["load_gb_per_s"], 20);
        assert!(args("training").ends_with("--prefill 0 --decode 0 --train 4096"));
        assert_eq!(result["training"]["aim"]["train_tokens_per_s"], 3900);
        assert_eq!(result["nccl_one_rank"]["result"]["world"], "1");
        assert_eq!(result["training"]["result"]["world"], "");
        let expected = if cards == 2 { "--ranks 2" } else { "" };
        assert!(args("two_ranks").ends_with(expected), "{result}");
        assert_eq!(result["two_ranks"].is_null(), cards == 1);
        assert!(run()["mkmodel"].is_null(), "the model is there already");
    }
}

#[test]
fn a_failed_step_is_kept_and_the_rest_still_runs() {
    let folder = Folder::new("failed");
    folder.program("nvidia-smi", CARD);
    let body = "case \"$*\" in *--against*) echo '{\"ok\":false}'; exit 1 ;; *roof*) echo no result ;; *) echo '{}' ;; esac";
    let kernelcheck = folder.program("kernelcheck", body);
    let out = folder.0.join("out");
    let run = folder.check(&[&out, &kernelcheck]);
    assert_eq!(run.status.code(), Some(1));
    let result: Value = from_str(&fs::read_to_string(out.join("gpu_check.json")).unwrap()).unwrap();
    assert_eq!(result["ok"], false);
    assert_eq!(result["against_emulated"]["exit"], 1);
    assert_eq!(result["against_emulated"]["result"]["ok"], false);
    assert_eq!(result["check"]["exit"], 0);
    assert_eq!((&result["roofline"]["exit"], &result["roofline"]["result"]), (&1.into(), &Value::Null));
    assert_eq!(result["bench"], Value::Null);
}

/// One line on stderr, and nothing left behind.
#[test]
fn bad_input_and_a_machine_without_a_card_are_refused() {
    let folder = Folder::new("refused");
    let kernelcheck = folder.program("kernelcheck", "echo '{}'");
    let out = folder.0.join("out");
    let refused = |args: &[&Path], code: i32, message: &str| {
        let run = folder.check(args);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!((run.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.contains(message), "{said}");
        assert!(!out.exists());
    };
    folder.program("nvidia-smi", "exit 9");
    refused(&[], 2, "usage: bash tools/gpu_check.sh FOLDER KERNELCHECK [BENCH|- [CODELSI]]");
    refused(&[&out, &folder.0.join("absent")], 2, "absent is no program");
    refused(&[&out, &kernelcheck, &folder.0], 2, "is no program");
    refused(&[&out, &kernelcheck], 1, "no card here");
    folder.program("nvidia-smi", CARD);
    let file = folder.0.join("file");
    fs::write(&file, "").unwrap();
    refused(&[&file, &kernelcheck], 2, "file cannot be made");
}
