//! The device: memory, modules, launches.

use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::exec;
use crate::load;
use crate::memory::Memory;
use crate::module::{Kernel, Module};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

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

/// A GPU in software. Calls may come from any thread; a launch returns when the kernel has ended.
#[derive(Debug)]
pub struct Gpu {
    memory: Arc<Memory>,
    late: AtomicBool,
    /// See [`Gpu::set_ordering_checks`].
    lax: AtomicBool,
    limit: AtomicU64,
}

/// What a launch is run by, beside its own configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub schedule: Schedule,
    /// Whether races and copies not waited for are faults.
    pub ordering: bool,
    /// Instructions the warps of a block may execute together before the kernel counts as endless.
    pub limit: u64,
}

/// The default of [`Gpu::set_instruction_limit`]: hundreds of times what a block of a real kernel executes.
const LIMIT: u64 = 1 << 28;

impl Gpu {
    /// A GPU of an architecture: `sm_80` or `sm_90a`.
    pub fn new(arch: &str) -> Result<Gpu> {
        match arch {
            "sm_80" | "sm_90a" => Ok(Gpu {
                memory: Arc::new(Memory::new()),
                late: AtomicBool::new(false),
                lax: AtomicBool::new(false),
                limit: AtomicU64::new(LIMIT),
            }),
            _ => Err(Error::call(format!("no such architecture: {arch}; sm_80 and sm_90a are known"))),
        }
    }

    /// Allocates device memory: 256-byte aligned, uninitialised, with a guard gap behind it.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        self.memory.alloc(bytes)
    }

    /// Frees an allocation.
    pub fn free(&self, address: u64) -> Result<()> {
        self.memory.free(address)
    }

    /// Copies host bytes to the device.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write(address, bytes)
    }

    /// Copies device bytes to the host. Uninitialised bytes are an error that names the first.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.memory.read(address, bytes)
    }

    /// Copies within the device; bytes not yet initialised stay so.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.memory.copy(to, from, bytes)
    }

    /// Sets bytes to a value.
    pub fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<()> {
        self.memory.fill(address, value, bytes)
    }

    /// Parses a module, places its variables in memory and decodes its kernels.
    pub fn load(&self, ptx: &str) -> Result<Arc<Module>> {
        load::module(ptx, &self.memory).map(Arc::new)
    }

    /// Runs a kernel to its end. `args` are the parameter bytes, laid out as [`Kernel::params`] says.
    pub fn launch(&self, kernel: &Kernel, config: Launch, args: &[u8]) -> Result<Counters> {
        if !Arc::ptr_eq(&kernel.memory, &self.memory) {
            return Err(Error::call(format!("{} was loaded by another GPU", kernel.name())));
        }
        let rules = Rules {
            schedule: self.schedule(),
            ordering: !self.lax.load(Relaxed),
            limit: self.limit.load(Relaxed),
        };
        exec::launch(kernel, config, args, self.memory.snapshot(), rules)
    }

    /// Chooses the schedule of the launches that follow.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.late.store(schedule == Schedule::Late, Relaxed);
    }

    /// The schedule of the next launch.
    pub fn schedule(&self) -> Schedule {
        if self.late.load(Relaxed) { Schedule::Late } else { Schedule::Early }
    }

    /// Whether races and asynchronous copies that nobody waited for are faults, as they are at first. A card lets
    /// them pass: without these checks one sees what the numbers alone would have shown.
    pub fn set_ordering_checks(&self, on: bool) {
        self.lax.store(!on, Relaxed);
    }

    /// Sets how many instructions the warps of one block may execute together before the launch fails as
    /// endless.
    pub fn set_instruction_limit(&self, warp_instructions: u64) {
        self.limit.store(warp_instructions, Relaxed);
    }

    /// Bytes allocated now.
    pub fn bytes_in_use(&self) -> usize {
        self.memory.usage().0
    }

    /// The most bytes ever allocated at once.
    pub fn peak_bytes(&self) -> usize {
        self.memory.usage().1
    }
}
