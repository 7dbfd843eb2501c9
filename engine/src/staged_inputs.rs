//! Integer inputs that many kernels read (token ids, positions, block tables), uploaded in one copy per step.

use crate::cuda::Memory;
use crate::memory::Label;
use crate::tensor::{Buffer, DType, Tensor};
use crate::{Device, Error, Result, Shape};
use std::sync::Arc;

/// Alignment of each input, in integers: 16 bytes.
const ALIGNMENT: usize = 4;

/// A device buffer for the integer inputs of one step after another. Inputs of the same shapes lie at the same
/// addresses in every step, as captured CUDA graphs require.
pub struct StagedInputs {
    device: Device,
    label: Label,
    /// Set on a CUDA device; elsewhere every input is a separate tensor.
    buffer: Option<Arc<Memory>>,
}

impl StagedInputs {
    /// Allocates a buffer for inputs whose [`StagedInputs::padded`] lengths add up to `integers`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(device: &Device, label: Label, integers: usize) -> Result<Self> {
        let buffer = match device {
            Device::Cuda(cuda) => Some(Arc::new(cuda.alloc(label, integers * DType::I32.size())?)),
            Device::Cpu(_) | Device::Plan(_) => None,
        };
        Ok(StagedInputs { device: device.clone(), label, buffer })
    }

    /// Length in the buffer of an input of `integers` integers.
    pub fn padded(integers: usize) -> usize {
        integers.next_multiple_of(ALIGNMENT)
    }

    /// Uploads the inputs and returns them as tensors, in order. The tensors of the previous step must be dropped. The
    /// last input may be shorter than its shape; the rest of it is then arbitrary.
    ///
    /// # Errors
    /// When an input does not fit its shape, the buffer is too small, or a tensor of the previous step is still held.
    pub fn upload<const N: usize>(&mut self, inputs: [(Shape, &[i32]); N]) -> Result<[Tensor; N]> {
        let mut tensors = Vec::with_capacity(N);
        let mut integers: Vec<i32> = Vec::new();
        for (i, (shape, input)) in inputs.into_iter().enumerate() {
            let (start, length) = (integers.len(), shape.elements());
            if input.len() > length || (input.len() < length && i + 1 < N) {
                return Err(Error::new(format!("{} integers do not fill the shape {shape}", input.len())));
            }
            integers.extend_from_slice(input);
            let Some(buffer) = &self.buffer else {
                integers.resize(start + length, 0);
                tensors.push(self.device.tensor(self.label, shape, &integers[start..])?);
                continue;
            };
            integers.resize(Self::padded(integers.len()), 0);
            let [offset, bytes, needed] =
                [start, length, Self::padded(start + length)].map(|n| n * DType::I32.size());
            if needed > buffer.len() {
                let size = buffer.len();
                return Err(Error::new(format!("inputs of {needed} bytes exceed their buffer of {size}")));
            }
            let memory = Box::new(buffer.view(offset, self.label, bytes));
            tensors.push(Tensor::new(Buffer::Device(memory), shape, DType::I32));
        }
        if let Some(buffer) = &self.buffer {
            if Arc::strong_count(buffer) > 1 + N {
                return Err(Error::new("inputs were uploaded while those of the last step are in use"));
            }
            buffer.upload_prefix(bytemuck::cast_slice(&integers))?;
        }
        Ok(tensors.try_into().unwrap_or_else(|_| unreachable!("one tensor per input")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::{cuda, software_gpu};

    #[test]
    fn inputs_keep_their_addresses_and_take_one_copy() {
        for device in [Some(Device::cpu()), software_gpu()].into_iter().flatten() {
            let mut staged = StagedInputs::new(&device, Label::Activations, 12).unwrap();
            for n in 0..2 {
                let [a, none, b] = [vec![n; 5], vec![], vec![7, n]];
                let inputs = [([5].into(), &a[..]), ([0].into(), &none[..]), ([2, 1].into(), &b[..])];
                let sent = staged.upload(inputs).unwrap();
                assert_eq!([0, 1, 2].map(|i| sent[i].to_vec::<i32>().unwrap()), [a, none, b]);
                if let Device::Cuda(_) = device {
                    assert_eq!(cuda(&device).emulator().unwrap().copy_counts().0, n as usize + 1);
                    let again = staged.upload([([1].into(), &[1][..])]).unwrap_err().to_string();
                    assert_eq!(again, "inputs were uploaded while those of the last step are in use");
                    assert_eq!(device.ledger().usage().total(), 48);
                }
            }
        }
        let mut staged =
            StagedInputs::new(&Device::emulated("sm_80").unwrap(), Label::Activations, 4).unwrap();
        assert_eq!(staged.upload([([4].into(), &[1, 2][..])]).unwrap()[0].shape()[..], [4]);
        let error = staged.upload([([5].into(), &[0; 5][..])]).unwrap_err().to_string();
        assert_eq!(error, "inputs of 32 bytes exceed their buffer of 16");
    }
}
