//! Devices: the CPU, a CUDA device, or the planning device, which accounts for memory and computes nothing.

use crate::cuda::{Cuda, DeviceProperties, Memory};
use crate::memory::{DeviceMemory, Label, Ledger};
use crate::tensor::{Buffer, DType, Tensor};
use crate::{Error, Result, Shape};
use std::sync::Arc;

/// A device that holds tensors, with the ledger of its memory. Ops `match` on it.
///
/// ```
/// use codelsi_engine::{DType, Device, Label};
///
/// // The same code computes on the CPU and plans its memory without computing.
/// for device in [Device::cpu(), Device::plan()] {
///     let _x = device.zeros(Label::Weights, [256, 1024], DType::BF16);
///     assert_eq!(device.ledger().usage().total(), 256 * 1024 * 2);
/// }
/// ```
#[derive(Clone)]
pub enum Device {
    /// Host memory; ops run on the calling thread's [`team`](crate::team).
    Cpu(Arc<Ledger>),
    /// An NVIDIA card, the software GPU, or a card that is only planned.
    Cuda(Arc<Cuda>),
    /// Shapes only: the same model code runs on it, and its ledger is then the memory plan.
    Plan(Arc<Ledger>),
}

impl Device {
    /// Returns the CPU with a new ledger.
    pub fn cpu() -> Self {
        Device::Cpu(Arc::default())
    }

    /// Opens the CUDA card with the index `ordinal`.
    ///
    /// # Errors
    /// When the driver, the card or the compiler (NVRTC) is missing or too old.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        Ok(Device::Cuda(Arc::new(Cuda::card(ordinal)?)))
    }

    /// Returns a GPU emulated in software, of architecture `sm_80` or `sm_90a`.
    ///
    /// # Errors
    /// When the architecture is unknown, no compiler (NVRTC) is found, or this build lacks the feature `emulator`.
    pub fn emulated(arch: &str) -> Result<Self> {
        Ok(Device::Cuda(Arc::new(Cuda::emulated(arch)?)))
    }

    /// Returns the planning device for the CPU.
    pub fn plan() -> Self {
        Device::Plan(Arc::default())
    }

    /// Returns the planning device for a card with these properties.
    pub fn plan_card(properties: DeviceProperties) -> Self {
        Device::Cuda(Arc::new(Cuda::planned(properties)))
    }

    /// Returns the planning device for this device.
    pub fn planning(&self) -> Self {
        match self {
            Device::Cpu(_) | Device::Plan(_) => Device::plan(),
            Device::Cuda(cuda) => Device::plan_card(cuda.properties().clone()),
        }
    }

    /// The name, e.g. `cpu`, `plan`, `cuda:0`, `emulated:sm_80`.
    pub fn name(&self) -> &str {
        match self {
            Device::Cpu(_) => "cpu",
            Device::Cuda(cuda) => cuda.name(),
            Device::Plan(_) => "plan",
        }
    }

    /// True when ops allocate but do not compute.
    pub fn is_plan(&self) -> bool {
        match self {
            Device::Cpu(_) => false,
            Device::Cuda(cuda) => cuda.is_plan(),
            Device::Plan(_) => true,
        }
    }

    /// The ledger of the device's memory.
    pub fn ledger(&self) -> &Arc<Ledger> {
        match self {
            Device::Cpu(ledger) | Device::Plan(ledger) => ledger,
            Device::Cuda(cuda) => cuda.ledger(),
        }
    }

    /// Allocates a tensor with arbitrary content, which the caller must write before it is read. When the device has no
    /// memory left, the first use of the tensor reports the error.
    pub fn empty(&self, label: Label, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        let bytes = shape.elements() * dtype.size();
        let buf = match self {
            Device::Cpu(ledger) => Buffer::Host(ledger.alloc(label, bytes)),
            Device::Cuda(cuda) => cuda
                .alloc(label, bytes)
                .map_or_else(Buffer::Failed, |memory| Buffer::Device(Box::new(memory))),
            Device::Plan(ledger) => Buffer::Planned(ledger.charge(label, bytes)),
        };
        Tensor::new(buf, shape, dtype)
    }

    /// Returns a planned tensor of zero cost: a stand-in for one whose memory is charged elsewhere.
    pub fn placeholder(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::new(Buffer::Planned(self.ledger().charge(Label::Weights, 0)), shape.into(), dtype)
    }

    /// Allocates a tensor of zeros. Its first use reports the error if that fails.
    pub fn zeros(&self, label: Label, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let mut t = self.empty(label, shape, dtype);
        let zeroed = t.zero();
        t.or_fail(zeroed)
    }

    /// Allocates a tensor and copies host data into it.
    ///
    /// # Errors
    /// When the number of values differs from the shape, or the device fails.
    pub fn tensor<T: crate::Elem>(
        &self,
        label: Label,
        shape: impl Into<Shape>,
        data: &[T],
    ) -> Result<Tensor> {
        let shape = shape.into();
        if shape.elements() != data.len() {
            return Err(Error::new(format!("{} values do not fill the shape {shape}", data.len())));
        }
        let mut t = self.empty(label, shape, T::DTYPE);
        if !self.is_plan() {
            t.write(data)?;
        }
        Ok(t)
    }
}

/// Copies between devices.
impl Tensor {
    /// Copies the tensor to `device`, under `label`; the copy wants no gradient.
    ///
    /// # Errors
    /// When the tensor is only planned and `device` is not, or a device fails.
    pub fn to(&self, device: &Device, label: Label) -> Result<Tensor> {
        let mut copy = device.empty(label, *self.shape(), self.dtype());
        copy.copy_from(self)?;
        Ok(copy)
    }

    /// Reads several f32 scalars, each of shape (1) and all on one device, in a single copy to the host.
    ///
    /// # Errors
    /// When one is not an f32 scalar or is only planned, or the device fails.
    pub fn read_scalars(scalars: &[&Tensor]) -> Result<Vec<f32>> {
        let size = DType::F32.size();
        for scalar in scalars {
            scalar.expect(DType::F32)?;
            if scalar.byte_len() != size {
                return Err(Error::new(format!("{scalar:?} is not a scalar")));
            }
        }
        let first = scalars.first().map_or(Ok(None), |scalar| Memory::of(scalar))?;
        let Some(cuda) = first.map(Memory::device) else {
            return Ok(scalars.iter().map(|t| t.to_vec()).collect::<Result<Vec<_>>>()?.concat());
        };
        let mut values = vec![0f32; scalars.len()];
        let packed = cuda.alloc(Label::Scratch, size * scalars.len())?;
        for (i, scalar) in scalars.iter().enumerate() {
            if let Some(memory) = Memory::of(scalar)? {
                packed.copy_at(i * size, memory)?;
            }
        }
        packed.download(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}
