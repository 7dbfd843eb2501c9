//! The model on CUDA, on the software GPU: what the CPU gives, without the host between.

use codelsi_engine::{DType, Device};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::LinearName;
use codelsi_tests::{software_gpu, write_tiny_model};
use codelsi_train::TrainOptions;
use codelsi_train::pack::{Document, PackedSequence};
use codelsi_train::train_step::TrainStep;

/// Copies so far from the host to the device and back.
fn copies(device: &Device) -> (usize, usize) {
    let Device::Cuda(cuda) = device else { unreachable!("a software GPU") };
    cuda.emulator().unwrap().copy_counts()
}

fn document(tokens: usize) -> Document {
    let tokens: Vec<u32> = (0..tokens as u32).map(|i| 3 + i * 37 % 500).collect();
    let targets =
        (1..tokens.len()).map(|i| if i < 4 { -100 } else { tokens[i] as i32 }).chain([-100]).collect();
    Document { tokens, targets }
}

#[test]
fn a_training_step_sends_its_batch_and_reads_its_scalars_once() {
    let Some(device) = software_gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    write_tiny_model(folder.path());
    let base = Checkpoint::open(folder.path()).unwrap();
    let adapter = Adapter::init_lora(base.config(), 4, 8.0, 0.1, &LinearName::ALL, 1).unwrap();
    let options = TrainOptions { dropout: 0.1, compute: DType::BF16, ..TrainOptions::default() };
    let mut learner = TrainStep::new(&device, &options, &base, Some(&adapter)).unwrap();
    let micro_batches =
        [PackedSequence::concat([&document(12), &document(9)]), PackedSequence::concat([&document(20)])];
    for _ in 0..2 {
        let before = copies(&device);
        learner.run(&micro_batches, 1e-3).unwrap();
        let after = copies(&device);
        // Ids, positions, dropout keys, documents and targets of each; hyperparameters, and where the tensors are for
        // the norm and for the step.
        assert_eq!((after.0 - before.0, after.1 - before.1), (5 * micro_batches.len() + 3, 1));
    }
}
