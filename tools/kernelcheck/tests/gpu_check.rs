//! `tools/gpu_check.sh` tried on the software GPU, with the real binaries, two ops and a tiny model.

use codelsi_engine::Device;
use codelsi_testing::or_skip;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn the_script_runs_on_the_software_gpu() {
    let binaries = Path::new(env!("CARGO_BIN_EXE_kernelcheck")).parent().unwrap();
    // `cargo test --workspace` builds it before any test runs.
    let codelsi = binaries.join("codelsi");
    let built = codelsi
        .exists()
        .then_some(())
        .ok_or("codelsi is not built beside kernelcheck: test the whole workspace");
    if or_skip(Device::emulated("sm_80")).is_none() || or_skip(built).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Programs that other targets left in that folder have no part in this.
    for program in ["kernelcheck", "codelsi"] {
        std::os::unix::fs::symlink(binaries.join(program), folder.path().join(program)).unwrap();
    }
    let out = folder.path().join("out");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu_check.sh");
    let mut command = Command::new("bash");
    command.arg(script).arg(&out).arg("--bin").arg(folder.path());
    command.args(["--device", "emulated:sm_80", "--ops", "rmsnorm,swiglu", "--shape", "tiny"]);
    let run = command.output().unwrap();
    assert!(run.status.success(), "{run:?}");
    let text = std::fs::read_to_string(out.join("gpu_check.json")).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&result["ok"], &result["left"]), (&true.into(), &Value::Array(Vec::new())), "{text}");
    let step = |name: &str| &result["steps"][name]["result"];
    assert_eq!(step("agree_swiglu")["ok"], true, "{text}");
    assert_eq!(step("check_rmsnorm")["ok"], true, "{text}");
    for name in ["layers_few", "layers_all", "without_graphs"] {
        assert!(step(name)["decode_tokens_per_s"].as_f64().unwrap() > 0.0, "{name}: {text}");
    }
    assert!(step("layers_all")["train_tokens_per_s"].as_f64().unwrap() > 0.0, "{text}");
    assert!(step("roofline").is_null(), "time has no meaning on the software GPU");
}
