//! Writes a tiny model with random weights, loads it with a new LoRA adapter and scores a text.

use codelsi_engine::{Ctx, DType, Device, Result};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::LinearName;
use codelsi_model::llama::{ForwardOptions, Llama, PackedBatch};
use codelsi_model::synthetic;
use codelsi_model::trainable::Trainable;

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = synthetic::config("tiny")?;
    synthetic::write_random_model(folder.path(), &config, 1, &mut |_, _| {})?;

    let device = Device::cpu();
    let mut model = Llama::load(&device, &Checkpoint::open(folder.path())?, DType::F32, Trainable::Nothing)?;
    model.attach(&Adapter::init_lora(&config, 8, 16.0, 0.0, &LinearName::ALL, 1)?, Trainable::Adapter)?;

    let cx = Ctx::inference(&device);
    let batch = PackedBatch::new(&device, &[&[1, 40, 7], &[1, 90]])?;
    let h = model.forward(&cx, &batch, ForwardOptions::default())?;
    let logits = model.logits(&cx, &model.final_norm(&cx, &h)?)?;
    assert_eq!(logits.shape()[..], [5, config.vocab]);
    Ok(())
}
