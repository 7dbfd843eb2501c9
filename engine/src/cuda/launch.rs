//! Kernel launches with typed arguments, checked against the kernel's signature.

use super::Cuda;
use super::driver::{DriverModule, Grid, Stream};
use super::source::Variant;
use crate::memory::DeviceMemory;
use crate::tensor::{Buffer, DType, Tensor};
use crate::{At, Error, Label, Result};
use std::sync::Arc;

/// One kernel argument. A tensor is passed as the address of its first element.
pub enum Arg<'a> {
    /// Read.
    In(&'a Tensor),
    /// Read, or a null pointer.
    Maybe(Option<&'a Tensor>),
    /// Written completely.
    Out(&'a mut Tensor),
    /// Written completely, or a null pointer.
    MaybeOut(Option<&'a mut Tensor>),
    /// Read and written, or written partly.
    InOut(&'a mut Tensor),
    /// Read and written, or written partly; or a null pointer.
    MaybeInOut(Option<&'a mut Tensor>),
    /// 1 or 0 of 32 bits: what a kernel does in addition, or not.
    Flag(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F32(f32),
}

impl Arg<'_> {
    /// Returns true if an optional argument or a flag is given; `None` for other arguments.
    pub(super) fn option(&self) -> Option<bool> {
        match self {
            Arg::Maybe(t) => Some(t.is_some()),
            Arg::MaybeOut(t) | Arg::MaybeInOut(t) => Some(t.is_some()),
            Arg::Flag(given) => Some(*given),
            _ => None,
        }
    }
}

/// The kind of a kernel's parameter, as its PTX signature distinguishes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ParameterKind {
    Float32,
    Int32,
    /// An integer or an address.
    Word64,
}

/// A compiled and loaded kernel of one device.
pub struct Kernel<'a> {
    pub(super) cuda: &'a Cuda,
    pub(super) entry: Arc<KernelEntry>,
}

/// A kernel of a loaded module, and the kinds of its parameters.
pub(super) struct KernelEntry {
    pub(super) module: Arc<dyn DriverModule>,
    pub(super) source: &'static str,
    pub(super) variant: Variant,
    pub(super) name: String,
    pub(super) parameters: Vec<ParameterKind>,
}

impl Kernel<'_> {
    /// Starts the kernel in the device's compute stream. An empty grid launches nothing, nor does a dry run.
    ///
    /// # Errors
    /// When an argument does not match the signature, a tensor lives on another device, a written tensor is shared, or
    /// the driver fails.
    ///
    /// # Safety
    /// With these arguments and this grid, the kernel accesses only elements of its tensors.
    pub unsafe fn launch(&self, grid: Grid, args: &mut [Arg<'_>]) -> Result<()> {
        if self.cuda.is_plan() {
            return args.iter_mut().try_for_each(|arg| self.cuda.value(arg).map(drop)).at(&self.entry.name);
        }
        let bytes = self.pack(args).at(&self.entry.name)?;
        if grid.blocks.contains(&0) || self.cuda.is_dry_run() {
            return Ok(());
        }
        let KernelEntry { module, source, variant, name, .. } = &*self.entry;
        if let Some(emulated) = self.cuda.emulator() {
            emulated.coverage().launched((source, *variant, name), &grid, args);
        }
        // SAFETY: the caller's precondition; written tensors have no other owner.
        unsafe { self.cuda.driver().launch(Stream::COMPUTE, &**module, name, grid, &bytes) }.at(name)
    }

    /// Packs the arguments, each at a multiple of its own size.
    fn pack(&self, args: &mut [Arg<'_>]) -> Result<Vec<u8>> {
        let parameters = &self.entry.parameters;
        if args.len() != parameters.len() {
            let (given, expected) = (args.len(), parameters.len());
            return Err(Error::new(format!("{given} arguments given, the kernel takes {expected}")));
        }
        let mut bytes = Vec::with_capacity(8 * args.len());
        for (i, (arg, &kind)) in args.iter_mut().zip(parameters).enumerate() {
            let (given, value) = self.cuda.value(arg).at(format!("argument {i}"))?;
            if given != kind {
                return Err(Error::new(format!("argument {i} is {given:?}, the kernel takes {kind:?}")));
            }
            let size = if kind == ParameterKind::Word64 { 8 } else { 4 };
            bytes.resize(bytes.len().next_multiple_of(size), 0);
            bytes.extend(&value.to_le_bytes()[..size]);
        }
        Ok(bytes)
    }
}

impl Cuda {
    /// Uploads a table of addresses and 64-bit integers for kernels that process many tensors: (rows, 2·N) i32. The
    /// tensors must outlive the launches that read the table.
    ///
    /// # Errors
    /// When an argument is neither an address nor a 64-bit integer, or a tensor lives on another device.
    pub fn pointer_table<const N: usize>(self: &Arc<Self>, rows: &mut [[Arg<'_>; N]]) -> Result<Tensor> {
        let mut words = Vec::with_capacity(rows.len() * N);
        for arg in rows.iter_mut().flatten() {
            match self.value(arg)? {
                (ParameterKind::Word64, word) => words.extend([word as i32, (word >> 32) as i32]),
                (kind, _) => return Err(Error::new(format!("a table holds 64-bit words, not {kind:?}"))),
            }
        }
        let memory = self.alloc(Label::Scratch, size_of_val(&words[..]))?;
        memory.upload(bytemuck::cast_slice(&words))?;
        Ok(Tensor::new(Buffer::Device(Box::new(memory)), [rows.len(), 2 * N].into(), DType::I32))
    }

    /// The kind and the bits of an argument.
    fn value(&self, arg: &mut Arg<'_>) -> Result<(ParameterKind, u64)> {
        let address = |at| (ParameterKind::Word64, at);
        Ok(match arg {
            Arg::In(t) | Arg::Maybe(Some(t)) => address(self.address(t)?),
            Arg::Out(t) | Arg::InOut(t) | Arg::MaybeOut(Some(t)) | Arg::MaybeInOut(Some(t)) => {
                address(self.address_mut(t)?)
            }
            Arg::Maybe(None) | Arg::MaybeOut(None) | Arg::MaybeInOut(None) => address(0),
            Arg::Flag(x) => (ParameterKind::Int32, *x as u64),
            Arg::I32(x) => (ParameterKind::Int32, *x as u32 as u64),
            Arg::U32(x) => (ParameterKind::Int32, *x as u64),
            Arg::I64(x) => (ParameterKind::Word64, *x as u64),
            Arg::U64(x) => (ParameterKind::Word64, *x),
            Arg::F32(x) => (ParameterKind::Float32, x.to_bits() as u64),
        })
    }
}
