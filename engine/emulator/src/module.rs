//! A loaded module and its kernels.

/// A parsed module.
#[derive(Debug)]
pub struct Module {
    kernels: Vec<Kernel>,
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
    name: String,
    params: Vec<Param>,
    static_shared: u32,
    max_threads: Option<u32>,
}

impl Kernel {
    /// The entry's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parameters in order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Bytes of the argument buffer.
    pub fn params_size(&self) -> usize {
        self.params.last().map_or(0, |p| p.offset + p.size)
    }

    /// Bytes of statically declared shared memory.
    pub fn static_shared(&self) -> u32 {
        self.static_shared
    }

    /// The launch bound `.maxntid`, threads per block, where the kernel states one.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }
}
