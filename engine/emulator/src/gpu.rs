//! The device: memory, modules, launches.

use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::module::{Kernel, Module};
use std::sync::Arc;

/// In which order the GPU does what the program leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Warps run in order, asynchronous copies land at once.
    #[default]
    Early,
    /// Warps run in reverse order, asynchronous copies land as late as the program allows.
    Late,
}

/// A launch configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads per block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// A GPU in software. Calls may come from any thread.
#[derive(Debug)]
pub struct Gpu;

impl Gpu {
    /// A GPU of an architecture: `sm_80` or `sm_90a`.
    pub fn new(arch: &str) -> Result<Gpu> {
        match arch {
            "sm_80" | "sm_90a" => Ok(Gpu),
            _ => Err(Error::call(format!("no such architecture: {arch}; sm_80 and sm_90a are known"))),
        }
    }

    /// Allocates device memory: 256-byte aligned, uninitialised, with a guard gap behind it.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        Err(Error::call(format!("cannot allocate {bytes} bytes yet")))
    }

    /// Frees an allocation.
    pub fn free(&self, address: u64) -> Result<()> {
        Err(Error::call(format!("{address:#x} is not an allocation")))
    }

    /// Copies host bytes to the device.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        Err(Error::call(format!("cannot write {} bytes at {address:#x}", bytes.len())))
    }

    /// Copies device bytes to the host. Uninitialised bytes are an error that names the first.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        Err(Error::call(format!("cannot read {} bytes at {address:#x}", bytes.len())))
    }

    /// Copies within the device; bytes not yet initialised stay so.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        Err(Error::call(format!("cannot copy {bytes} bytes from {from:#x} to {to:#x}")))
    }

    /// Sets bytes to a value.
    pub fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<()> {
        Err(Error::call(format!("cannot fill {bytes} bytes at {address:#x} with {value}")))
    }

    /// Parses a module and decodes its kernels.
    pub fn load(&self, ptx: &str) -> Result<Arc<Module>> {
        Err(Error::ptx(1, format!("cannot parse {} bytes", ptx.len())))
    }

    /// Runs a kernel to its end.
    pub fn launch(&self, kernel: &Kernel, config: Launch, args: &[u8]) -> Result<Counters> {
        Err(Error::call(format!("cannot launch {} with {} on {config:?}", kernel.name(), args.len())))
    }

    /// Chooses the schedule of the launches that follow.
    pub fn set_schedule(&self, schedule: Schedule) {
        let _ = schedule;
    }

    /// Bytes allocated now.
    pub fn bytes_in_use(&self) -> usize {
        0
    }

    /// The most bytes ever allocated at once.
    pub fn peak_bytes(&self) -> usize {
        0
    }
}
