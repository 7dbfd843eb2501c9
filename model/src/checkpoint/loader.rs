//! Loads a model's weights to a device: each rank's slices, each once, all of a GPU's in one go.

use super::model_folder::Checkpoint;
use super::slice::TensorSlice;
use super::transfer::{Transfer, upload};
use crate::random_weights::is_norm;
use codelsi_engine::{At, DType, Device, Label, Result, Shape, Tensor};
use half::bf16;
use safetensors::Dtype;
use std::cell::RefCell;

/// Loads weights of a checkpoint to a device. On a GPU they have no content before [`WeightLoader::finish`].
pub struct WeightLoader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    queue: RefCell<Vec<Transfer<'a>>>,
    /// The block that random weights are read from, in each type that they are wanted in.
    random_blocks: RefCell<Vec<Tensor>>,
}

impl<'a> WeightLoader<'a> {
    /// Prepares to load weights of `checkpoint` to `device`.
    pub fn new(checkpoint: &'a Checkpoint, device: &'a Device) -> Self {
        WeightLoader { checkpoint, device, queue: RefCell::default(), random_blocks: RefCell::default() }
    }

    /// Returns a slice of a weight, ready for ops that compute in `compute`.
    ///
    /// BF16 stays BF16 under either compute type, F32 stays F32 under F32; anything else is converted to `compute`.
    /// The CPU reads in place what is contiguous in the file and needs no conversion. The planning device gets the
    /// shape only.
    ///
    /// # Errors
    /// When the model has no tensor of that name, or the tensor no such slice.
    pub fn tensor(&self, name: &str, slice: &TensorSlice, compute: DType) -> Result<Tensor> {
        let entry = self.checkpoint.entry(name)?;
        let dtype = if entry.dtype == Dtype::BF16 { DType::BF16 } else { compute };
        match self.device {
            _ if self.is_random() => self.random(name, slice, dtype),
            Device::Cpu(_) => {
                self.checkpoint.file(name)?.tensor(self.device, Label::Weights, name, slice, dtype)
            }
            Device::Plan(_)
                if self.checkpoint.plans_in_place() && entry.mappable_start(slice, dtype).is_some() =>
            {
                Ok(self.device.placeholder(slice.shape(&entry.shape).at(name)?, dtype))
            }
            _ => self.enqueue(name, slice, dtype),
        }
    }

    /// Returns a copy of a slice of a weight in F32, to be trained or changed.
    ///
    /// # Errors
    /// See [`WeightLoader::tensor`].
    pub fn copy_f32(&self, name: &str, slice: &TensorSlice) -> Result<Tensor> {
        match self.device {
            _ if self.is_random() => self.random(name, slice, DType::F32),
            Device::Cpu(_) => {
                self.checkpoint.file(name)?.copy(self.device, Label::Weights, name, slice, DType::F32)
            }
            _ => self.enqueue(name, slice, DType::F32),
        }
    }

    /// Returns the full shape of a weight.
    ///
    /// # Errors
    /// When the model has no tensor of that name.
    pub fn shape(&self, name: &str) -> Result<Shape> {
        TensorSlice::Full.shape(&self.checkpoint.entry(name)?.shape).at(name)
    }

    /// True if the weights are made on the device; a planned one holds nothing.
    fn is_random(&self) -> bool {
        self.checkpoint.is_random() && !self.device.is_plan()
    }

    /// Makes a slice's weights on the device: ones for a norm, else random ones.
    fn random(&self, name: &str, slice: &TensorSlice, dtype: DType) -> Result<Tensor> {
        let shape = slice.shape(&self.checkpoint.entry(name)?.shape).at(name)?;
        let mut to = self.device.empty(Label::Weights, shape, dtype);
        let (weights, start) = match is_norm(name) {
            true => (&[bf16::ONE][..], 0),
            false => self.checkpoint.random_weights(name)?,
        };
        to.fill_cyclic(&self.random_block(weights, dtype)?, start)?;
        Ok(to)
    }

    /// Returns `weights` on the device.
    fn random_block(&self, weights: &[bf16], dtype: DType) -> Result<Tensor> {
        let mut blocks = self.random_blocks.borrow_mut();
        let there = blocks.iter().find(|block| block.dtype() == dtype && block.shape()[0] == weights.len());
        if let Some(block) = there {
            return Ok(block.clone());
        }
        let block = match dtype {
            DType::F32 => {
                let wide: Vec<f32> = weights.iter().map(|w| w.to_f32()).collect();
                self.device.tensor(Label::Scratch, [weights.len()], &wide)?
            }
            _ => self.device.tensor(Label::Scratch, [weights.len()], weights)?,
        };
        blocks.push(block.clone());
        Ok(block)
    }

    /// Allocates a slice's tensor on the device and queues its transfer.
    fn enqueue(&self, name: &str, slice: &TensorSlice, dtype: DType) -> Result<Tensor> {
        let entry = self.checkpoint.entry(name)?;
        let to = self.device.empty(Label::Weights, slice.shape(&entry.shape).at(name)?, dtype);
        if !self.device.is_plan() {
            let file = self.checkpoint.file(name)?;
            self.queue.borrow_mut().push(Transfer { file, entry, slice: slice.clone(), to: to.clone() });
        }
        Ok(to)
    }

    /// Transfers what is queued; returns when every weight has its content.
    ///
    /// # Errors
    /// When a file cannot be read, or the device fails or has too little memory.
    pub fn finish(self) -> Result<()> {
        match self.device {
            Device::Cuda(cuda) => upload(cuda, &self.queue.into_inner(), self.checkpoint.progress()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::synthetic;
    use codelsi_testing::shared;

    fn reference(case: &str) -> Option<Checkpoint> {
        shared(format!("reference/{case}/model")).map(|folder| Checkpoint::open(folder).unwrap())
    }

    #[test]
    fn loads_one_file_shards_tied_heads_and_both_config_styles() {
        for (case, dtype) in [
            ("mha_f32", DType::F32),
            ("gqa_bf16_sharded", DType::BF16),
            ("tied_f32", DType::F32),
            ("hd128_bf16", DType::BF16),
        ] {
            let Some(checkpoint) = reference(case) else { return };
            assert_eq!((checkpoint.dtype(), checkpoint.first_non_finite()), (dtype, None), "{case}");
            for (name, shape) in checkpoint.config().tensor_shapes() {
                for (compute, expected) in [(DType::F32, dtype), (DType::BF16, DType::BF16)] {
                    let device = Device::cpu();
                    let weight = WeightLoader::new(&checkpoint, &device)
                        .tensor(&name, &TensorSlice::Full, compute)
                        .unwrap();
                    assert_eq!(
                        (&weight.shape()[..], weight.dtype()),
                        (&shape[..], expected),
                        "{case} {name}"
                    );
                    let copied = device.ledger().usage().total();
                    assert_eq!(
                        copied,
                        if dtype == expected { 0 } else { weight.byte_len() },
                        "mapped in place"
                    );
                }
            }
        }
    }

    /// Weights made on a device are those of the folder that the same seed writes.
    #[test]
    fn random_weights_are_those_of_the_written_model() {
        let folder = tempfile::tempdir().unwrap();
        let (out, config) = (
            folder.path().join("tiny"),
            ModelConfig { attention_bias: true, ..synthetic::config("tiny").unwrap() },
        );
        synthetic::write_random_model(&out, &config, 3, &mut |_, _| {}).unwrap();
        let written = Checkpoint::open(&out).unwrap();
        let made = Checkpoint::random(config, 3);
        assert_eq!((made.byte_len(), made.dtype()), (2 * made.config().parameters(), DType::BF16));
        let device = Device::cpu();
        for (name, _) in made.config().tensor_shapes() {
            let [made, written] = [&made, &written].map(|checkpoint| {
                let loader = WeightLoader::new(checkpoint, &device);
                let same = loader.tensor(&name, &TensorSlice::Full, DType::F32).unwrap();
                let wide = loader.copy_f32(&name, &TensorSlice::Full).unwrap();
                (same.to_bytes().unwrap(), wide.to_vec::<f32>().unwrap())
            });
            assert!(made == written, "{name}");
        }
    }

    #[test]
    fn conversion_rounds_to_nearest() {
        let Some(checkpoint) = reference("mha_f32") else { return };
        let device = Device::cpu();
        let exact = WeightLoader::new(&checkpoint, &device)
            .tensor("lm_head.weight", &TensorSlice::Full, DType::F32)
            .unwrap();
        let rounded = WeightLoader::new(&checkpoint, &device)
            .tensor("lm_head.weight", &TensorSlice::Full, DType::BF16)
            .unwrap();
        let expected = exact.slice::<f32>().unwrap().iter().map(|&x| bf16::from_f32(x));
        assert!(expected.eq(rounded.slice::<bf16>().unwrap().iter().copied()));
    }
}
