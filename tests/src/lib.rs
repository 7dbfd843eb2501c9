//! Helpers that integration tests share: the project's own reference cases, and small models.

use codelsi_engine::{DType, Device};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::llama::Llama;
use codelsi_model::synthetic;
use codelsi_model::trainable::Trainable;
use codelsi_testing::or_skip;
use std::path::{Path, PathBuf};

/// A software GPU, if there is an NVRTC.
pub fn software_gpu() -> Option<Device> {
    or_skip(Device::emulated("sm_80"))
}

/// A reference case that comes with the project: `tiny`, `six` for its heads, `llama3` for its biases and positions, `qwen2`,
/// `mistral`, or `dora`, `mixture`, `bottleneck` for what is adapted how.
pub fn golden_case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

/// A model for inference.
pub fn load_model(folder: &Path, device: &Device, compute: DType) -> Llama {
    let checkpoint = Checkpoint::open(folder).unwrap();
    Llama::load(device, &checkpoint, compute, Trainable::Nothing).unwrap()
}

/// A reference case's model with its adapter on.
pub fn load_adapted(case: &str, device: &Device, compute: DType) -> Llama {
    let mut model = load_model(&golden_case(case).join("model"), device, compute);
    let adapter = Adapter::load(golden_case(case).join("adapter"), model.config()).unwrap();
    model.attach(&adapter, Trainable::Nothing).unwrap();
    model
}

/// Writes the `tiny` shape with random weights and its tokenizer to `folder`.
pub fn write_tiny_model(folder: &Path) {
    synthetic::write_random_model(folder, &synthetic::config("tiny").unwrap(), 7, &mut |_, _| {}).unwrap();
}
