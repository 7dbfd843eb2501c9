//! Where tensors live: the CPU, a CUDA device, or the planning device, which keeps books and computes nothing.

use crate::cuda::{Cuda, Memory, Properties};
use crate::memory::{DeviceMemory, Label, Ledger};
use crate::tensor::{Buf, DType, Tensor};
use crate::{Error, Result, Shape};
use std::sync::Arc;

/// A place for tensors and the books of its memory. Ops match on it and are read in place.
#[derive(Clone)]
pub enum Device {
    /// Host memory; ops run on rayon's current thread pool.
    Cpu(Arc<Ledger>),
    /// A card, or the software GPU.
    Cuda(Arc<Cuda>),
    /// Shapes only: the same model code runs on it and leaves the memory plan behind.
    Plan(Arc<Ledger>),
}

impl Device {
    /// The CPU, with books of its own.
    pub fn cpu() -> Self {
        Device::Cpu(Arc::default())
    }

    /// The CUDA card `ordinal`.
    ///
    /// # Errors
    /// When driver, card or compiler are missing or too old.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        Ok(Device::Cuda(Arc::new(Cuda::card(ordinal)?)))
    }

    /// A GPU in software, of architecture `sm_80` or `sm_90a`.
    ///
    /// # Errors
    /// When the architecture is unknown, or there is no compiler.
    pub fn emulated(arch: &str) -> Result<Self> {
        Ok(Device::Cuda(Arc::new(Cuda::emulated(arch)?)))
    }

    /// The planning device, for the CPU.
    pub fn plan() -> Self {
        Device::Plan(Arc::default())
    }

    /// The planning device for a card of these properties: what the same code allocates there.
    pub fn plan_card(properties: Properties) -> Self {
        Device::Cuda(Arc::new(Cuda::planned(properties)))
    }

    /// The planning device for `self`.
    pub fn planning(&self) -> Self {
        match self {
            Device::Cpu(_) | Device::Plan(_) => Device::plan(),
            Device::Cuda(cuda) => Device::plan_card(cuda.properties().clone()),
        }
    }

    /// `cpu`, `plan`, `cuda:0`, `emulated:sm_80`.
    pub fn name(&self) -> &str {
        match self {
            Device::Cpu(_) => "cpu",
            Device::Cuda(cuda) => cuda.name(),
            Device::Plan(_) => "plan",
        }
    }

    /// True where no op computes.
    pub fn is_plan(&self) -> bool {
        match self {
            Device::Cpu(_) => false,
            Device::Cuda(cuda) => cuda.is_plan(),
            Device::Plan(_) => true,
        }
    }

    /// The device's books.
    pub fn ledger(&self) -> &Arc<Ledger> {
        match self {
            Device::Cpu(ledger) | Device::Plan(ledger) => ledger,
            Device::Cuda(cuda) => cuda.ledger(),
        }
    }

    /// A tensor with arbitrary content: whoever asks for it writes all of it. When a device has no memory left,
    /// the first use of the tensor is the error.
    pub fn empty(&self, label: Label, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        let bytes = shape.elements() * dtype.size();
        let buf = match self {
            Device::Cpu(ledger) => Buf::Host(ledger.block(label, bytes)),
            Device::Cuda(cuda) => {
                cuda.alloc(label, bytes).map_or_else(Buf::Denied, |memory| Buf::Device(Box::new(memory)))
            }
            Device::Plan(ledger) => Buf::Planned(ledger.charge(label, bytes)),
        };
        Tensor::new(buf, shape, dtype)
    }

    /// A tensor that this device plans for and that costs it nothing: somebody else holds its content.
    pub fn borrowed(&self, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::new(Buf::Planned(self.ledger().charge(Label::Weights, 0)), shape.into(), dtype)
    }

    /// A tensor of zeros.
    pub fn zeros(&self, label: Label, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let mut t = self.empty(label, shape, dtype);
        let zeroed = t.zero();
        t.unless(zeroed)
    }

    /// A copy of host data.
    ///
    /// # Errors
    /// When the shape does not hold exactly `data`.
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

/// Copies that need to know the devices.
impl Tensor {
    /// A copy on `device`, under `label`; wants no gradient.
    ///
    /// # Errors
    /// When the tensor is only planned and `device` is not, or a device fails.
    pub fn to(&self, device: &Device, label: Label) -> Result<Tensor> {
        let mut copy = device.empty(label, *self.shape(), self.dtype());
        copy.copy_from(self)?;
        Ok(copy)
    }

    /// The values of several scalars (1) f32 of one device, in one copy to the host.
    ///
    /// # Errors
    /// When one is no scalar or only planned, or the device fails.
    pub fn read_scalars(scalars: &[&Tensor]) -> Result<Vec<f32>> {
        let size = DType::F32.size();
        for scalar in scalars {
            scalar.expect(DType::F32)?;
            if scalar.byte_len() != size {
                return Err(Error::new(format!("{scalar:?} is no scalar")));
            }
        }
        let first = scalars.first().map_or(Ok(None), |scalar| Memory::of(scalar))?;
        let Some(cuda) = first.map(Memory::device) else {
            return Ok(scalars.iter().map(|t| t.to_vec()).collect::<Result<Vec<_>>>()?.concat());
        };
        let mut values = vec![0f32; scalars.len()];
        let side_by_side = cuda.alloc(Label::Scratch, size * scalars.len())?;
        for (i, scalar) in scalars.iter().enumerate() {
            if let Some(memory) = Memory::of(scalar)? {
                side_by_side.copy_to(i * size, memory)?;
            }
        }
        side_by_side.download(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}
