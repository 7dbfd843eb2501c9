//! Contiguous tensors over shared buffers.

use crate::memory::{Block, Charge, DeviceMemory, Label};
use crate::tape::Origin;
use crate::{Error, Result, Shape};
use bytemuck::Pod;
use half::bf16;
use memmap2::Mmap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Storage types. Arithmetic is f32 in every op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DType {
    F32,
    BF16,
    /// Token ids, positions, block tables.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 => 2,
        }
    }
}

/// A Rust type that a tensor can store.
pub trait Elem: Pod + Send + Sync + 'static {
    /// Its storage type.
    const DTYPE: DType;
}

impl Elem for f32 {
    const DTYPE: DType = DType::F32;
}
impl Elem for bf16 {
    const DTYPE: DType = DType::BF16;
}
impl Elem for i32 {
    const DTYPE: DType = DType::I32;
}

/// Names a tensor that wants a gradient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Id(u64);

impl Id {
    /// A name never given before in this process.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Id(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

pub(crate) enum Buf {
    Host(Block),
    Device(Box<dyn DeviceMemory>),
    /// The device had no memory left, or worse.
    Denied(Error),
    Mapped {
        map: Arc<Mmap>,
        offset: usize,
    },
    Planned(Charge),
}

/// A contiguous, row-major tensor. Cloning shares the buffer.
///
/// `id` is set on tensors that want a gradient; frozen weights have none.
#[derive(Clone)]
pub struct Tensor {
    buf: Arc<Buf>,
    shape: Shape,
    dtype: DType,
    id: Option<Id>,
    origin: Option<Arc<dyn Origin>>,
}

impl Tensor {
    pub(crate) fn new(buf: Buf, shape: Shape, dtype: DType) -> Self {
        Tensor { buf: Arc::new(buf), shape, dtype, id: None, origin: None }
    }

    /// A tensor that reads a mapped file in place.
    ///
    /// # Errors
    /// When the range leaves the file or its start is not aligned for `dtype`.
    pub fn mapped(map: &Arc<Mmap>, offset: usize, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        let bytes = shape.elements() * dtype.size();
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= map.len());
        if !inside || !(map.as_ptr() as usize + offset).is_multiple_of(dtype.size()) {
            return Err(Error::new(format!(
                "bytes {offset}..+{bytes} of the mapped file hold no {dtype:?} {shape}"
            )));
        }
        Ok(Tensor::new(Buf::Mapped { map: map.clone(), offset }, shape, dtype))
    }

    /// The dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of the content in bytes.
    pub fn byte_len(&self) -> usize {
        self.shape.elements() * self.dtype.size()
    }

    /// Set when a gradient is wanted.
    pub fn id(&self) -> Option<Id> {
        self.id
    }

    /// The same tensor, wanting a gradient under a fresh name.
    pub fn with_grad(self) -> Self {
        self.named(Some(Id::fresh()))
    }

    /// The same tensor, wanting no gradient.
    pub fn detach(&self) -> Self {
        self.clone().named(None)
    }

    /// The same tensor, which backward fetches again from `origin` rather than keeping it.
    pub fn with_origin(self, origin: Arc<dyn Origin>) -> Self {
        Tensor { origin: Some(origin), ..self }
    }

    pub(crate) fn origin(&self) -> Option<&Arc<dyn Origin>> {
        self.origin.as_ref()
    }

    pub(crate) fn named(mut self, id: Option<Id>) -> Self {
        self.id = id;
        self
    }

    /// Charges the bytes to `to` from now on, if they are charged to `from`: what a tensor is for can change.
    pub fn relabel(&self, from: Label, to: Label) {
        let charge = match &*self.buf {
            Buf::Host(block) => block.charge(),
            Buf::Device(memory) => memory.charge(),
            Buf::Planned(charge) => charge,
            Buf::Denied(_) | Buf::Mapped { .. } => return,
        };
        charge.relabel(from, to);
    }

    /// The same elements in another shape.
    ///
    /// # Panics
    /// When the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.elements(), self.shape.elements(), "reshape {} to {shape}", self.shape);
        Tensor { shape, ..self.clone() }
    }

    /// The first elements, in another shape; the buffer is shared, and longer.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn first(&self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert!(shape.elements() <= self.shape.elements(), "the first {shape} of {}", self.shape);
        Tensor { shape, ..self.clone() }
    }

    /// The elements, read in place.
    ///
    /// # Errors
    /// When `T` is not the storage type, or the tensor is only planned.
    pub fn slice<T: Elem>(&self) -> Result<&[T]> {
        self.expect(T::DTYPE)?;
        Ok(bytemuck::cast_slice(self.bytes()?))
    }

    /// The elements, to be written: only the sole owner of a host buffer may.
    ///
    /// # Errors
    /// As [`Tensor::slice`], or when the buffer is shared or mapped.
    pub fn slice_mut<T: Elem>(&mut self) -> Result<&mut [T]> {
        self.expect(T::DTYPE)?;
        Ok(bytemuck::cast_slice_mut(self.bytes_mut()?))
    }

    /// The raw bytes.
    ///
    /// # Errors
    /// When the tensor is only planned, or lives on a CUDA device.
    pub fn bytes(&self) -> Result<&[u8]> {
        match &*self.buf {
            Buf::Host(block) => Ok(&block.bytes()[..self.byte_len()]),
            Buf::Mapped { map, offset } => Ok(&map[*offset..offset + self.byte_len()]),
            Buf::Device(memory) => {
                let device = memory.device_name();
                Err(Error::new(format!("{self:?} lives on {device} and is not read by the host in place")))
            }
            Buf::Denied(error) => Err(error.clone()),
            Buf::Planned(_) => Err(Error::new(format!("{self:?} is planned and has no content"))),
        }
    }

    /// The raw bytes, to be written.
    ///
    /// # Errors
    /// When the buffer is shared, mapped, planned, or on a CUDA device.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        let (shape, dtype, bytes) = (self.shape, self.dtype, self.byte_len());
        match Arc::get_mut(&mut self.buf) {
            Some(Buf::Host(block)) => Ok(&mut block.bytes_mut()[..bytes]),
            Some(Buf::Denied(error)) => Err(error.clone()),
            _ => Err(Error::new(format!(
                "{dtype:?} {shape} cannot be written in place: it is shared, mapped, planned or on a CUDA device"
            ))),
        }
    }

    /// A copy of the elements in host memory, from wherever they are.
    ///
    /// # Errors
    /// When `T` is not the storage type, or the tensor is only planned.
    pub fn to_vec<T: Elem>(&self) -> Result<Vec<T>> {
        self.expect(T::DTYPE)?;
        let mut data = vec![T::zeroed(); self.shape.elements()];
        self.read_bytes(bytemuck::cast_slice_mut(&mut data))?;
        Ok(data)
    }

    /// A copy of the raw bytes, from wherever they are.
    ///
    /// # Errors
    /// When the tensor is only planned, or a device fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut data = vec![0; self.byte_len()];
        self.read_bytes(&mut data)?;
        Ok(data)
    }

    fn read_bytes(&self, to: &mut [u8]) -> Result<()> {
        match &*self.buf {
            Buf::Device(memory) => memory.download(to),
            _ => self.bytes().map(|bytes| to.copy_from_slice(bytes)),
        }
    }

    /// Writes all elements, wherever they are: only the sole owner of the buffer may.
    ///
    /// # Errors
    /// When `T` is not the storage type, `data` does not fill the shape, or the buffer is shared, mapped or planned.
    pub fn write<T: Elem>(&mut self, data: &[T]) -> Result<()> {
        self.expect(T::DTYPE)?;
        self.write_bytes(bytemuck::cast_slice(data))
    }

    /// [`Tensor::write`] of raw bytes.
    ///
    /// # Errors
    /// When `data` does not fill the shape, or the buffer is shared, mapped or planned.
    pub fn write_bytes(&mut self, data: &[u8]) -> Result<()> {
        if data.len() != self.byte_len() {
            return Err(Error::new(format!("{} bytes do not fill {self:?}", data.len())));
        }
        match Arc::get_mut(&mut self.buf) {
            Some(Buf::Device(memory)) => memory.upload(data),
            _ => self.bytes_mut().map(|bytes| bytes.copy_from_slice(data)),
        }
    }

    /// Takes the content of `from`, which is as large, from wherever it is; a planned tensor has none.
    ///
    /// # Errors
    /// When the sizes differ, this buffer is shared or mapped, `from` is only planned, or a device fails.
    pub fn copy_from(&mut self, from: &Tensor) -> Result<()> {
        if from.byte_len() != self.byte_len() {
            return Err(Error::new(format!("{from:?} does not fill {self:?}")));
        }
        match (&*from.buf, Arc::get_mut(&mut self.buf)) {
            (_, Some(Buf::Planned(_))) => Ok(()),
            (Buf::Planned(_), Some(Buf::Device(to))) if to.is_planned() => Ok(()),
            (Buf::Device(from), Some(Buf::Host(to))) => from.download(to.bytes_mut()),
            (Buf::Device(from), Some(Buf::Device(to))) => to.copy_from(&**from),
            (_, Some(Buf::Device(to))) => to.upload(from.bytes()?),
            _ => self.bytes_mut().and_then(|to| from.read_bytes(to)),
        }
    }

    /// Zeroes all elements, wherever they are; a planned tensor has none.
    ///
    /// # Errors
    /// When the buffer is shared or mapped, or a device fails.
    pub fn zero(&mut self) -> Result<()> {
        match Arc::get_mut(&mut self.buf) {
            Some(Buf::Planned(_)) => Ok(()),
            Some(Buf::Device(memory)) => memory.fill(0),
            _ => self.bytes_mut().map(|bytes| bytes.fill(0)),
        }
    }

    /// The same tensor, whose first use is the error if there is one.
    pub(crate) fn unless(self, result: Result<()>) -> Self {
        match result {
            Ok(()) => self,
            Err(error) => Tensor { buf: Arc::new(Buf::Denied(error)), ..self },
        }
    }

    /// The device memory that holds the elements; `None` when they are elsewhere.
    pub(crate) fn device_memory(&self) -> Result<Option<&dyn DeviceMemory>> {
        match &*self.buf {
            Buf::Device(memory) => Ok(Some(&**memory)),
            Buf::Denied(error) => Err(error.clone()),
            _ => Ok(None),
        }
    }

    /// Whether the tensor has a shape and no content.
    pub(crate) fn is_planned(&self) -> bool {
        matches!(&*self.buf, Buf::Planned(_))
    }

    /// Whether nobody else holds the buffer, so that a kernel may write it.
    pub(crate) fn sole(&mut self) -> Result<()> {
        match Arc::get_mut(&mut self.buf) {
            Some(_) => Ok(()),
            None => Err(Error::new(format!("{self:?} cannot be written: it is shared"))),
        }
    }

    /// Gives this tensor a buffer of its own when others hold the same one.
    pub(crate) fn unshare(&mut self) -> Result<()> {
        if Arc::strong_count(&self.buf) == 1 {
            return Ok(());
        }
        self.buf = match &*self.buf {
            Buf::Host(block) => Arc::new(Buf::Host(block.duplicate())),
            Buf::Device(memory) => Arc::new(Buf::Device(memory.duplicate()?)),
            _ => return Ok(()),
        };
        Ok(())
    }

    pub(crate) fn expect(&self, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(Error::new(format!("{self:?} was read as {dtype:?}")))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.dtype, self.shape)
    }
}
