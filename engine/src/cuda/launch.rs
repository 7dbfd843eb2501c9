//! Launches with typed arguments, held to the kernel's own signature.

use super::Cuda;
use super::driver::{Grid, Module, Stream};
use crate::memory::DeviceMemory;
use crate::tensor::{Buf, DType, Tensor};
use crate::{At, Error, Label, Result};
use std::sync::Arc;

/// One argument. Tensors are passed as the address of their first element.
pub enum Arg<'a> {
    /// Read.
    In(&'a Tensor),
    /// Read if it is there; a null pointer else.
    Maybe(Option<&'a Tensor>),
    /// Written, all of it.
    Out(&'a mut Tensor),
    /// Written, all of it, if it is there; a null pointer else.
    MaybeOut(Option<&'a mut Tensor>),
    /// Read and written, or written in part.
    InOut(&'a mut Tensor),
    /// Read and written, or written in part, if it is there; a null pointer else.
    MaybeInOut(Option<&'a mut Tensor>),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F32(f32),
}

/// A kernel's parameter, as far as its signature tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Float32,
    Int32,
    /// An integer or an address.
    Word64,
}

/// A kernel, compiled and loaded.
pub struct Kernel<'a> {
    pub(super) cuda: &'a Cuda,
    pub(super) entry: Arc<Entry>,
}

/// A kernel of a loaded module, and what it takes.
pub(super) struct Entry {
    pub(super) module: Arc<dyn Module>,
    pub(super) name: String,
    pub(super) parameters: Vec<Kind>,
}

impl Kernel<'_> {
    /// Starts the kernel in the device's compute stream; an empty grid is nothing to do, and nor is a rehearsal.
    ///
    /// # Errors
    /// When an argument is not the signature's, a tensor lives elsewhere or is shared though it is written, or
    /// the driver refuses.
    ///
    /// # Safety
    /// With these arguments and this grid, the kernel accesses nothing but the elements of its tensors.
    pub unsafe fn launch(&self, grid: Grid, args: &mut [Arg<'_>]) -> Result<()> {
        if self.cuda.is_plan() {
            return args.iter_mut().try_for_each(|arg| self.cuda.value(arg).map(drop)).at(&self.entry.name);
        }
        let bytes = self.pack(args).at(&self.entry.name)?;
        if grid.blocks.contains(&0) || self.cuda.rehearses() {
            return Ok(());
        }
        let Entry { module, name, .. } = &*self.entry;
        // SAFETY: the caller's word; tensors written are held alone.
        unsafe { self.cuda.driver().launch(Stream::COMPUTE, &**module, name, grid, &bytes) }.at(name)
    }

    /// The argument buffer: each argument at a multiple of its own size.
    fn pack(&self, args: &mut [Arg<'_>]) -> Result<Vec<u8>> {
        let parameters = &self.entry.parameters;
        if args.len() != parameters.len() {
            let (given, wanted) = (args.len(), parameters.len());
            return Err(Error::new(format!("{given} arguments given, the kernel takes {wanted}")));
        }
        let mut bytes = Vec::with_capacity(8 * args.len());
        for (i, (arg, &kind)) in args.iter_mut().zip(parameters).enumerate() {
            let (given, value) = self.cuda.value(arg).at(format!("argument {i}"))?;
            if given != kind {
                return Err(Error::new(format!("argument {i} is {given:?}, the kernel takes {kind:?}")));
            }
            let size = if kind == Kind::Word64 { 8 } else { 4 };
            bytes.resize(bytes.len().next_multiple_of(size), 0);
            bytes.extend(&value.to_le_bytes()[..size]);
        }
        Ok(bytes)
    }
}

impl Cuda {
    /// An array in device memory whose rows are addresses and 64-bit integers, for kernels that walk many tensors.
    /// Launches that are given it trust it: the tensors must live until they are done.
    ///
    /// # Errors
    /// When an argument is no address or 64-bit integer, or a tensor is another device's.
    pub fn table<const N: usize>(self: &Arc<Self>, rows: &mut [[Arg<'_>; N]]) -> Result<Tensor> {
        let mut words = Vec::with_capacity(rows.len() * N);
        for arg in rows.iter_mut().flatten() {
            match self.value(arg)? {
                (Kind::Word64, word) => words.extend([word as i32, (word >> 32) as i32]),
                (kind, _) => return Err(Error::new(format!("a table holds 64-bit words, not {kind:?}"))),
            }
        }
        let memory = self.alloc(Label::Scratch, size_of_val(&words[..]))?;
        memory.upload(bytemuck::cast_slice(&words))?;
        Ok(Tensor::new(Buf::Device(Box::new(memory)), [rows.len(), 2 * N].into(), DType::I32))
    }

    fn value(&self, arg: &mut Arg<'_>) -> Result<(Kind, u64)> {
        let address = |at| (Kind::Word64, at);
        Ok(match arg {
            Arg::In(t) | Arg::Maybe(Some(t)) => address(self.address(t)?),
            Arg::Out(t) | Arg::InOut(t) | Arg::MaybeOut(Some(t)) | Arg::MaybeInOut(Some(t)) => {
                address(self.address_mut(t)?)
            }
            Arg::Maybe(None) | Arg::MaybeOut(None) | Arg::MaybeInOut(None) => address(0),
            Arg::I32(x) => (Kind::Int32, *x as u32 as u64),
            Arg::U32(x) => (Kind::Int32, *x as u64),
            Arg::I64(x) => (Kind::Word64, *x as u64),
            Arg::U64(x) => (Kind::Word64, *x),
            Arg::F32(x) => (Kind::Float32, x.to_bits() as u64),
        })
    }
}
