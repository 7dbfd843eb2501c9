//! A loaded module and its kernels.

use crate::decode::KernelCode;
use crate::memory::GlobalMemory;
use std::sync::Arc;

/// A loaded module. Its variables live in device memory as long as it does.
#[derive(Debug)]
pub struct Module {
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) variables: Vec<u64>,
    pub(crate) memory: Arc<GlobalMemory>,
}

impl Drop for Module {
    fn drop(&mut self) {
        for &address in &self.variables {
            // The caller may have freed it already.
            let _ = self.memory.free(address);
        }
    }
}

impl Module {
    /// Returns the kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }

    /// Returns all kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter()
    }
}

/// Type of a kernel parameter in PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// `.u8 .s8 .b8` and wider integers.
    Int {
        /// Width in bits.
        bits: u32,
        /// True for `.s` types.
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

/// A kernel parameter, and its place in the bytes of the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Type in PTX.
    pub kind: ParamKind,
}

/// A kernel, decoded and ready to launch.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) max_threads: Option<u32>,
    pub(crate) min_blocks: Option<u32>,
    pub(crate) code: KernelCode,
    /// Number and path of the module's source files.
    pub(crate) files: Arc<Vec<(u32, String)>>,
    /// Memory of the GPU that loaded it, which holds its variables.
    pub(crate) memory: Arc<GlobalMemory>,
}

impl Kernel {
    /// Returns the name of the entry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.code.params
    }

    /// Returns the bytes of the arguments.
    pub fn params_size(&self) -> usize {
        self.code.param_bytes
    }

    /// Returns the bytes of static shared memory.
    pub fn static_shared(&self) -> u32 {
        self.code.shared_bytes
    }

    /// Returns the bytes of local memory per thread: arrays that are indexed at run time, and spills.
    pub fn local_bytes(&self) -> u32 {
        self.code.local_bytes
    }

    /// Returns the launch bound `.maxntid` in threads per block, if the kernel has one.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    /// Returns the launch bound `.minnctapersm` in blocks per multiprocessor, if the kernel has one.
    pub fn min_blocks(&self) -> Option<u32> {
        self.min_blocks
    }
}
