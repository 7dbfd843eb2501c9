//! Integers that many kernels read, sent to a device in one copy.

use crate::cuda::Memory;
use crate::memory::Label;
use crate::tensor::{Buf, DType, Tensor};
use crate::{Device, Error, Result, Shape};
use std::sync::Arc;

/// Every part begins at a multiple of as many integers: 16 bytes.
const ALIGNMENT: usize = 4;

/// Room on a device for the integers of one step after another: parts of the same shapes come to lie at the same
/// addresses, so that recorded work finds them.
pub struct Parcel {
    device: Device,
    label: Label,
    /// On a CUDA device; elsewhere every part is a tensor of its own.
    room: Option<Arc<Memory>>,
}

impl Parcel {
    /// Room for parts of [`Parcel::padded`] lengths that are `integers` together.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(device: &Device, label: Label, integers: usize) -> Result<Self> {
        let room = match device {
            Device::Cuda(cuda) => Some(Arc::new(cuda.alloc(label, integers * DType::I32.size())?)),
            Device::Cpu(_) | Device::Plan(_) => None,
        };
        Ok(Parcel { device: device.clone(), label, room })
    }

    /// What a part of `integers` integers takes.
    pub fn padded(integers: usize) -> usize {
        integers.next_multiple_of(ALIGNMENT)
    }

    /// Sends the parts, which become tensors in their order. Those of the last parcel must be gone. The last part may be
    /// shorter than its shape, what follows it being arbitrary.
    ///
    /// # Errors
    /// When a part does not fit its shape, there is no room for all, or a tensor of the last parcel is still held.
    pub fn send<const N: usize>(&mut self, parts: [(Shape, &[i32]); N]) -> Result<[Tensor; N]> {
        let mut tensors = Vec::with_capacity(N);
        let mut integers: Vec<i32> = Vec::new();
        for (i, (shape, part)) in parts.into_iter().enumerate() {
            let (start, wanted) = (integers.len(), shape.elements());
            if part.len() > wanted || (part.len() < wanted && i + 1 < N) {
                return Err(Error::new(format!("{} integers do not fill the shape {shape}", part.len())));
            }
            integers.extend_from_slice(part);
            let Some(room) = &self.room else {
                integers.resize(start + wanted, 0);
                tensors.push(self.device.tensor(self.label, shape, &integers[start..])?);
                continue;
            };
            integers.resize(Self::padded(integers.len()), 0);
            let [at, bytes, needed] =
                [start, wanted, Self::padded(start + wanted)].map(|n| n * DType::I32.size());
            if needed > room.len() {
                return Err(Error::new(format!("a parcel of {needed} bytes is larger than its room")));
            }
            tensors.push(Tensor::new(
                Buf::Device(Box::new(room.part(at, self.label, bytes))),
                shape,
                DType::I32,
            ));
        }
        if let Some(room) = &self.room {
            if Arc::strong_count(room) > 1 + N {
                return Err(Error::new("a parcel was sent while the last one is in use"));
            }
            room.upload_first(bytemuck::cast_slice(&integers))?;
        }
        Ok(tensors.try_into().unwrap_or_else(|_| unreachable!("a tensor a part")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::{cuda, nvrtc};

    #[test]
    fn parts_lie_where_they_lay_and_take_one_copy() {
        if !nvrtc() {
            return;
        }
        for device in [Device::cpu(), Device::emulated("sm_80").unwrap()] {
            let mut parcel = Parcel::new(&device, Label::Activations, 12).unwrap();
            for n in 0..2 {
                let [a, none, b] = [vec![n; 5], vec![], vec![7, n]];
                let parts = [([5].into(), &a[..]), ([0].into(), &none[..]), ([2, 1].into(), &b[..])];
                let sent = parcel.send(parts).unwrap();
                assert_eq!([0, 1, 2].map(|i| sent[i].to_vec::<i32>().unwrap()), [a, none, b]);
                if let Device::Cuda(_) = device {
                    assert_eq!(cuda(&device).emulator().unwrap().copies().0, n as usize + 1);
                    let again = parcel.send([([1].into(), &[1][..])]).unwrap_err().to_string();
                    assert_eq!(again, "a parcel was sent while the last one is in use");
                    assert_eq!(device.ledger().usage().total(), 48);
                }
            }
        }
        let mut parcel = Parcel::new(&Device::emulated("sm_80").unwrap(), Label::Activations, 4).unwrap();
        assert_eq!(parcel.send([([4].into(), &[1, 2][..])]).unwrap()[0].shape()[..], [4]);
        let error = parcel.send([([5].into(), &[0; 5][..])]).unwrap_err().to_string();
        assert_eq!(error, "a parcel of 32 bytes is larger than its room");
    }
}
