//! A loaded module and its kernels.

use crate::decode::Program;
use crate::memory::Memory;
use std::sync::Arc;

/// A parsed module. Its variables live in device memory as long as it does.
#[derive(Debug)]
pub struct Module {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) variables: Vec<u64>,
    pub(crate) memory: Arc<Memory>,
}

impl Drop for Module {
    fn drop(&mut self) {
        for &address in &self.variables {
            // Freed by hand already, at worst.
            let _ = self.memory.free(address);
        }
    }
}

impl Module {
    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// All kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter()
    }
}

/// The type PTX gives a kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// `.u8 .s8 .b8` and wider integers: bits, signed.
    Int {
        /// Width in bits.
        bits: u32,
        /// `.s` types.
        signed: bool,
    },
    /// `.f16 .f32 .f64`.
    Float {
        /// Width in bits.
        bits: u32,
    },
    /// An array of bytes: a struct passed by value.
    Bytes,
}

/// A kernel parameter's place in the argument bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Its PTX type.
    pub kind: ParamKind,
}

/// A kernel, decoded and ready to launch.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) max_threads: Option<u32>,
    pub(crate) min_blocks: Option<u32>,
    pub(crate) program: Program,
    /// Paths of the module's source files by number.
    pub(crate) files: Arc<Vec<(u32, String)>>,
    /// The GPU that loaded it: its variables' addresses are that GPU's.
    pub(crate) memory: Arc<Memory>,
}

impl Kernel {
    /// The entry's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.program.params
    }

    /// Bytes of the argument buffer.
    pub fn params_size(&self) -> usize {
        self.program.param_bytes
    }

    /// Bytes of statically declared shared memory.
    pub fn static_shared(&self) -> u32 {
        self.program.shared_bytes
    }

    /// Bytes of local memory per thread: arrays that are indexed at run time, and spills.
    pub fn local_bytes(&self) -> u32 {
        self.program.local_bytes
    }

    /// The launch bound `.maxntid`, threads per block, where the kernel states one.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    /// The launch bound `.minnctapersm`, blocks per multiprocessor, where the kernel states one.
    pub fn min_blocks(&self) -> Option<u32> {
        self.min_blocks
    }
}
