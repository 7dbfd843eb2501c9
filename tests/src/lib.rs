//! What integration tests share: data beside the project, and small models of the project's own making.

use codelsi_engine::{DType, Device};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::Llama;
use codelsi_model::synthetic;
use codelsi_model::trainable::Trainable;
use std::path::{Path, PathBuf};

/// A path in the folder that `CODELSI_SHARED` names (default: `shared`, beside the project). None, with a line that
/// says so, when it is absent; with `CODELSI_REQUIRE=all` that is a failure.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let found = PathBuf::from(std::env::var("CODELSI_SHARED").unwrap_or(beside.into())).join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{} is absent", found.display());
    println!("skipped: {} is absent", found.display());
    None
}

/// A software GPU; None, with a line that says so, where there is no compiler. With `CODELSI_REQUIRE=all` that is a
/// failure.
pub fn emulated() -> Option<Device> {
    let device = Device::emulated("sm_80");
    if let Err(e) = &device {
        assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
        println!("skipped: {e}");
    }
    device.ok()
}

/// A reference case that comes with the project: `tiny`, `six` for its heads, or `dora`, `mixture`, `bottleneck` for what is
/// adapted how.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

/// A model for inference.
pub fn load(folder: &Path, device: &Device, compute: DType) -> Llama {
    let checkpoint = Checkpoint::open(folder).unwrap();
    Llama::load(device, &checkpoint, compute, Trainable::Nothing).unwrap()
}

/// A reference case's model with its adapter on.
pub fn adapted(case: &str, device: &Device, compute: DType) -> Llama {
    let mut model = load(&golden(case).join("model"), device, compute);
    let adapter = Adapter::load(golden(case).join("adapter"), model.config()).unwrap();
    model.attach(&adapter, Trainable::Nothing).unwrap();
    model
}

/// Writes the `tiny` shape with random weights and its tokenizer to `folder`.
pub fn tiny(folder: &Path) {
    synthetic::write_random_model(folder, &synthetic::config("tiny").unwrap(), 7, &mut |_, _| {}).unwrap();
}
