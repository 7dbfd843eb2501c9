//! Contiguous tensors over shared buffers.

use crate::memory::{Charge, DeviceMemory, HostMemory, Label};
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

/// Identifies a tensor that wants a gradient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TensorId(u64);

impl TensorId {
    /// Returns an id that was never used before in this process.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        TensorId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A source that can produce a tensor's content again, so that nothing keeps it from forward to backward.
pub trait Refetch: Send + Sync {
    /// Returns the tensor with its content, for backward.
    ///
    /// # Errors
    /// When it cannot be produced, for example because a rank that holds a shard is gone.
    fn restore(&self) -> Result<Tensor>;
}

pub(crate) enum Buffer {
    Host(HostMemory),
    Device(Box<dyn DeviceMemory>),
    /// The allocation or its first write failed, for example because the device had no memory left.
    Failed(Error),
    Mapped {
        map: Arc<Mmap>,
        offset: usize,
    },
    Planned(Charge),
}

/// A contiguous, row-major tensor. Cloning shares the buffer.
///
/// A tensor that wants a gradient has an id; frozen weights have none.
///
/// ```
/// use codelsi_engine::{DType, Device, Label};
///
/// let x = Device::cpu().tensor(Label::Activations, [2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!((x.dtype(), &x.shape()[..]), (DType::F32, &[2, 3][..]));
/// assert_eq!(x.reshape([3, 2]).slice::<f32>()?[5], 6.0);
/// # Ok::<(), codelsi_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    buf: Arc<Buffer>,
    shape: Shape,
    dtype: DType,
    id: Option<TensorId>,
    refetch: Option<Arc<dyn Refetch>>,
    packed: Option<Arc<Tensor>>,
}

impl Tensor {
    pub(crate) fn new(buf: Buffer, shape: Shape, dtype: DType) -> Self {
        Tensor { buf: Arc::new(buf), shape, dtype, id: None, refetch: None, packed: None }
    }

    /// Returns a tensor that reads a memory-mapped file in place.
    ///
    /// # Errors
    /// When the range exceeds the file, or its start is not aligned for `dtype`.
    pub fn mapped(map: &Arc<Mmap>, offset: usize, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        let bytes = shape.elements() * dtype.size();
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= map.len());
        if !inside || !(map.as_ptr() as usize + offset).is_multiple_of(dtype.size()) {
            return Err(Error::new(format!(
                "bytes {offset}..+{bytes} of the mapped file hold no {dtype:?} {shape}"
            )));
        }
        Ok(Tensor::new(Buffer::Mapped { map: map.clone(), offset }, shape, dtype))
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

    /// The id under which backward reports the gradient; `None` when no gradient is wanted.
    pub fn id(&self) -> Option<TensorId> {
        self.id
    }

    /// Returns the same tensor as a leaf that wants a gradient, with a fresh id.
    pub fn with_grad(self) -> Self {
        self.with_id(Some(TensorId::fresh()))
    }

    /// Returns the same tensor without a gradient.
    pub fn detach(&self) -> Self {
        self.clone().with_id(None)
    }

    /// Returns the same tensor, which ops do not save for backward: backward fetches it again from `refetch`.
    pub fn with_refetch(self, refetch: Arc<dyn Refetch>) -> Self {
        Tensor { refetch: Some(refetch), ..self }
    }

    pub(crate) fn refetch(&self) -> Option<&Arc<dyn Refetch>> {
        self.refetch.as_ref()
    }

    /// Returns the same tensor beside a copy in the order in which an op reads it.
    pub fn with_packed(self, packed: Tensor) -> Self {
        Tensor { packed: Some(Arc::new(packed)), ..self }
    }

    /// The copy that [`Tensor::with_packed`] put beside it. A tensor that is written, or seen in another shape, has none.
    pub fn packed(&self) -> Option<&Tensor> {
        self.packed.as_deref()
    }

    pub(crate) fn with_id(mut self, id: Option<TensorId>) -> Self {
        self.id = id;
        self
    }

    /// Moves the bytes from label `from` to label `to` in the ledger; without effect when they have another label.
    pub fn relabel(&self, from: Label, to: Label) {
        let charge = match &*self.buf {
            Buffer::Host(memory) => memory.charge(),
            Buffer::Device(memory) => memory.charge(),
            Buffer::Planned(charge) => charge,
            Buffer::Failed(_) | Buffer::Mapped { .. } => return,
        };
        charge.relabel(from, to);
    }

    /// Returns the same elements in another shape; the buffer is shared.
    ///
    /// # Panics
    /// When the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.elements(), self.shape.elements(), "reshape {} to {shape}", self.shape);
        Tensor { shape, packed: None, ..self.clone() }
    }

    /// Returns the first elements in the given shape; the longer buffer is shared.
    ///
    /// # Panics
    /// When the tensor has fewer elements.
    pub fn prefix(&self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert!(shape.elements() <= self.shape.elements(), "the first {shape} of {}", self.shape);
        Tensor { shape, packed: None, ..self.clone() }
    }

    /// Borrows the elements in host memory.
    ///
    /// # Errors
    /// When `T` is not the storage type, the tensor lives on a CUDA device, or it is only planned.
    pub fn slice<T: Elem>(&self) -> Result<&[T]> {
        self.expect(T::DTYPE)?;
        Ok(bytemuck::cast_slice(self.bytes()?))
    }

    /// Borrows the elements in host memory to write them; the buffer must have no other owner.
    ///
    /// # Errors
    /// As [`Tensor::slice`], or when the buffer is shared or mapped.
    pub fn slice_mut<T: Elem>(&mut self) -> Result<&mut [T]> {
        self.expect(T::DTYPE)?;
        Ok(bytemuck::cast_slice_mut(self.bytes_mut()?))
    }

    /// Borrows the raw bytes in host memory.
    ///
    /// # Errors
    /// When the tensor is only planned, or lives on a CUDA device.
    pub fn bytes(&self) -> Result<&[u8]> {
        match &*self.buf {
            Buffer::Host(memory) => Ok(&memory.bytes()[..self.byte_len()]),
            Buffer::Mapped { map, offset } => Ok(&map[*offset..offset + self.byte_len()]),
            Buffer::Device(memory) => {
                let device = memory.device_name();
                Err(Error::new(format!("{self:?} lives on {device} and is not read by the host in place")))
            }
            Buffer::Failed(error) => Err(error.clone()),
            Buffer::Planned(_) => Err(Error::new(format!("{self:?} is planned and has no content"))),
        }
    }

    /// Borrows the raw bytes in host memory to write them.
    ///
    /// # Errors
    /// When the buffer is shared, mapped, planned, or on a CUDA device.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        let (shape, dtype, bytes) = (self.shape, self.dtype, self.byte_len());
        match self.exclusive() {
            Some(Buffer::Host(memory)) => Ok(&mut memory.bytes_mut()[..bytes]),
            Some(Buffer::Failed(error)) => Err(error.clone()),
            _ => Err(Error::new(format!(
                "{dtype:?} {shape} cannot be written in place: it is shared, mapped, planned or on a CUDA device"
            ))),
        }
    }

    /// Copies the elements to host memory, from any device.
    ///
    /// # Errors
    /// When `T` is not the storage type, or the tensor is only planned.
    pub fn to_vec<T: Elem>(&self) -> Result<Vec<T>> {
        self.expect(T::DTYPE)?;
        let mut data = vec![T::zeroed(); self.shape.elements()];
        self.read_bytes(bytemuck::cast_slice_mut(&mut data))?;
        Ok(data)
    }

    /// Copies the raw bytes to host memory, from any device.
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
            Buffer::Device(memory) => memory.download(to),
            _ => self.bytes().map(|bytes| to.copy_from_slice(bytes)),
        }
    }

    /// Writes all elements from host memory, on any device; the buffer must have no other owner.
    ///
    /// # Errors
    /// When `T` is not the storage type, `data` does not fill the shape, or the buffer is shared, mapped or planned.
    pub fn write<T: Elem>(&mut self, data: &[T]) -> Result<()> {
        self.expect(T::DTYPE)?;
        self.write_bytes(bytemuck::cast_slice(data))
    }

    /// Writes all elements as raw bytes, like [`Tensor::write`].
    ///
    /// # Errors
    /// When `data` does not fill the shape, or the buffer is shared, mapped or planned.
    pub fn write_bytes(&mut self, data: &[u8]) -> Result<()> {
        if data.len() != self.byte_len() {
            return Err(Error::new(format!("{} bytes do not fill {self:?}", data.len())));
        }
        match self.exclusive() {
            Some(Buffer::Device(memory)) => memory.upload(data),
            _ => self.bytes_mut().map(|bytes| bytes.copy_from_slice(data)),
        }
    }

    /// Copies the content of `from`, which has as many bytes, from any device to any device. A planned tensor ignores
    /// it.
    ///
    /// # Errors
    /// When the sizes differ, this buffer is shared or mapped, `from` is only planned, or a device fails.
    pub fn copy_from(&mut self, from: &Tensor) -> Result<()> {
        if from.byte_len() != self.byte_len() {
            return Err(Error::new(format!("{from:?} does not fill {self:?}")));
        }
        match (&*from.buf, self.exclusive()) {
            (_, Some(Buffer::Planned(_))) => Ok(()),
            (Buffer::Planned(_), Some(Buffer::Device(to))) if to.is_planned() => Ok(()),
            (Buffer::Device(from), Some(Buffer::Host(to))) => from.download(to.bytes_mut()),
            (Buffer::Device(from), Some(Buffer::Device(to))) => to.copy_from(&**from),
            (_, Some(Buffer::Device(to))) => to.upload(from.bytes()?),
            _ => self.bytes_mut().and_then(|to| from.read_bytes(to)),
        }
    }

    /// Fills all elements from `block`, of the same type and on the same device, read cyclically from element `start` on.
    /// A planned tensor ignores it.
    ///
    /// # Errors
    /// When `start` is not inside of `block`, the types or devices differ, this buffer is shared or mapped, or the device
    /// fails.
    pub fn fill_cyclic(&mut self, block: &Tensor, start: usize) -> Result<()> {
        let (start, len) = (start * block.dtype.size(), block.byte_len());
        if start >= len || block.dtype != self.dtype {
            return Err(Error::new(format!("{block:?} from byte {start} on does not fill {self:?}")));
        }
        match (&*block.buf, self.exclusive()) {
            (_, Some(Buffer::Planned(_))) => Ok(()),
            (Buffer::Device(block), Some(Buffer::Device(to))) => to.copy_cyclic(&**block, start),
            _ => {
                let block = block.bytes()?;
                let (mut to, mut from) = (self.bytes_mut()?, &block[start..]);
                while !to.is_empty() {
                    let (run, rest) = to.split_at_mut(from.len().min(to.len()));
                    run.copy_from_slice(&from[..run.len()]);
                    (to, from) = (rest, block);
                }
                Ok(())
            }
        }
    }

    /// Sets all elements to zero, on any device. A planned tensor ignores it.
    ///
    /// # Errors
    /// When the buffer is shared or mapped, or a device fails.
    pub fn zero(&mut self) -> Result<()> {
        match self.exclusive() {
            Some(Buffer::Planned(_)) => Ok(()),
            Some(Buffer::Device(memory)) => memory.fill(0),
            _ => self.bytes_mut().map(|bytes| bytes.fill(0)),
        }
    }

    /// Returns the tensor, or one whose first use reports the error of `result`.
    pub(crate) fn or_fail(self, result: Result<()>) -> Self {
        match result {
            Ok(()) => self,
            Err(error) => Tensor { buf: Arc::new(Buffer::Failed(error)), ..self },
        }
    }

    /// The device memory that holds the elements; `None` when they are in host memory or only planned.
    pub(crate) fn device_memory(&self) -> Result<Option<&dyn DeviceMemory>> {
        match &*self.buf {
            Buffer::Device(memory) => Ok(Some(&**memory)),
            Buffer::Failed(error) => Err(error.clone()),
            _ => Ok(None),
        }
    }

    /// True when the tensor has a shape but no content.
    pub(crate) fn is_planned(&self) -> bool {
        matches!(&*self.buf, Buffer::Planned(_))
    }

    /// Borrows the buffer to write it, if it has no other owner; the packed copy is then out of date and dropped.
    fn exclusive(&mut self) -> Option<&mut Buffer> {
        self.packed = None;
        Arc::get_mut(&mut self.buf)
    }

    /// Checks that the buffer has no other owner, so that a kernel may write it.
    pub(crate) fn ensure_unique(&mut self) -> Result<()> {
        match self.exclusive() {
            Some(_) => Ok(()),
            None => Err(Error::new(format!("{self:?} cannot be written: it is shared"))),
        }
    }

    /// Copies the buffer when it has other owners.
    pub(crate) fn unshare(&mut self) -> Result<()> {
        if Arc::strong_count(&self.buf) == 1 {
            return Ok(());
        }
        self.buf = match &*self.buf {
            Buffer::Host(memory) => Arc::new(Buffer::Host(memory.duplicate())),
            Buffer::Device(memory) => Arc::new(Buffer::Device(memory.duplicate()?)),
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
