//! Where tensors live: the CPU, or the planning device, which keeps books and computes nothing.

use crate::memory::{Label, Ledger};
use crate::tensor::{Buf, DType, Tensor};
use crate::{Error, Result, Shape};
use std::sync::Arc;

/// A place for tensors and the books of its memory. Ops match on it and are read in place.
#[derive(Clone)]
pub enum Device {
    /// Host memory; ops run on rayon's current thread pool.
    Cpu(Arc<Ledger>),
    /// Shapes only: the same model code runs on it and leaves the memory plan behind.
    Plan(Arc<Ledger>),
}

impl Device {
    /// The CPU, with books of its own.
    pub fn cpu() -> Self {
        Device::Cpu(Arc::default())
    }

    /// The planning device.
    pub fn plan() -> Self {
        Device::Plan(Arc::default())
    }

    /// True where no op computes.
    pub fn is_plan(&self) -> bool {
        matches!(self, Device::Plan(_))
    }

    /// The device's books.
    pub fn ledger(&self) -> &Arc<Ledger> {
        match self {
            Device::Cpu(ledger) | Device::Plan(ledger) => ledger,
        }
    }

    /// A tensor with arbitrary content: whoever asks for it writes all of it.
    pub fn empty(&self, label: Label, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let shape = shape.into();
        let bytes = shape.elements() * dtype.size();
        let buf = match self {
            Device::Cpu(ledger) => Buf::Host(ledger.block(label, bytes)),
            Device::Plan(ledger) => Buf::Planned(ledger.charge(label, bytes)),
        };
        Tensor::new(buf, shape, dtype)
    }

    /// A tensor of zeros.
    pub fn zeros(&self, label: Label, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        let mut t = self.empty(label, shape, dtype);
        if let Ok(bytes) = t.bytes_mut() {
            bytes.fill(0);
        }
        t
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
            t.slice_mut::<T>()?.copy_from_slice(data);
        }
        Ok(t)
    }
}
