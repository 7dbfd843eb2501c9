//! Contiguous tensors over shared buffers.

use crate::memory::{Block, Charge};
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
    Mapped { map: Arc<Mmap>, offset: usize },
    Planned(#[allow(dead_code, reason = "held for its drop")] Charge),
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
}

impl Tensor {
    pub(crate) fn new(buf: Buf, shape: Shape, dtype: DType) -> Self {
        Tensor { buf: Arc::new(buf), shape, dtype, id: None }
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

    pub(crate) fn named(mut self, id: Option<Id>) -> Self {
        self.id = id;
        self
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
    /// When the tensor is only planned.
    pub fn bytes(&self) -> Result<&[u8]> {
        match &*self.buf {
            Buf::Host(block) => Ok(block.bytes()),
            Buf::Mapped { map, offset } => Ok(&map[*offset..offset + self.byte_len()]),
            Buf::Planned(_) => Err(Error::new(format!("{self:?} is planned and has no content"))),
        }
    }

    /// The raw bytes, to be written.
    ///
    /// # Errors
    /// When the buffer is shared, mapped or planned.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        let (shape, dtype) = (self.shape, self.dtype);
        match Arc::get_mut(&mut self.buf) {
            Some(Buf::Host(block)) => Ok(block.bytes_mut()),
            _ => Err(Error::new(format!(
                "{dtype:?} {shape} cannot be written: it is shared, mapped or planned"
            ))),
        }
    }

    /// Gives this tensor a buffer of its own when others hold the same one.
    pub(crate) fn unshare(&mut self) {
        let copy = match &*self.buf {
            Buf::Host(block) if Arc::strong_count(&self.buf) > 1 => block.duplicate(),
            _ => return,
        };
        self.buf = Arc::new(Buf::Host(copy));
    }

    fn expect(&self, dtype: DType) -> Result<()> {
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
