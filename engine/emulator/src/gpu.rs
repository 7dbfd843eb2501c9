//! The device: memory, modules, launches.

use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::exec;
use crate::load;
use crate::memory::GlobalMemory;
use crate::module::{Kernel, Module};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Order in which the GPU executes what the program leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Blocks are begun and warps run in order, asynchronous copies complete at once.
    #[default]
    Early,
    /// Blocks are begun and warps run in reverse order, asynchronous copies complete as late as the program allows.
    Late,
}

/// Configuration of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Number of blocks in x, y, z.
    pub grid: [u32; 3],
    /// Number of threads per block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

/// A GPU in software. Calls may come from any thread; a launch returns when the kernel has ended.
#[derive(Debug)]
pub struct Gpu {
    memory: Arc<GlobalMemory>,
    late: AtomicBool,
    /// See [`Gpu::set_ordering_checks`].
    racecheck_off: AtomicBool,
    instruction_limit: AtomicU64,
    /// See [`Gpu::set_sampled_blocks`]; [`u64::MAX`] executes all.
    sampled_blocks: AtomicU64,
}

/// Settings of the GPU that apply to a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaunchOptions {
    pub schedule: Schedule,
    /// True if races and copies not waited for are faults.
    pub racecheck: bool,
    /// Maximum number of instructions of a block, summed over its warps.
    pub instruction_limit: u64,
    /// Maximum number of blocks to execute.
    pub sampled_blocks: u64,
}

/// Default of [`Gpu::set_instruction_limit`]: hundreds of times what a block of a real kernel executes.
const DEFAULT_INSTRUCTION_LIMIT: u64 = 1 << 28;

impl Gpu {
    /// Returns a GPU of architecture `sm_80` or `sm_90a`.
    ///
    /// # Errors
    ///
    /// Any other architecture.
    pub fn new(arch: &str) -> Result<Gpu> {
        match arch {
            "sm_80" | "sm_90a" => Ok(Gpu {
                memory: Arc::new(GlobalMemory::new()),
                late: AtomicBool::new(false),
                racecheck_off: AtomicBool::new(false),
                instruction_limit: AtomicU64::new(DEFAULT_INSTRUCTION_LIMIT),
                sampled_blocks: AtomicU64::new(u64::MAX),
            }),
            _ => Err(Error::call(format!(
                "unknown architecture '{arch}': the software GPU has sm_80 and sm_90a"
            ))),
        }
    }

    /// Allocates uninitialised device memory, aligned to 256 bytes and followed by a guard gap. Returns its address.
    ///
    /// # Errors
    ///
    /// More than 1 TiB.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        self.memory.alloc(bytes)
    }

    /// Frees an allocation.
    ///
    /// # Errors
    ///
    /// An address that [`Gpu::alloc`] did not return, or that was freed before.
    pub fn free(&self, address: u64) -> Result<()> {
        self.memory.free(address)
    }

    /// Copies bytes from the host to the device.
    ///
    /// # Errors
    ///
    /// A range that does not lie in one allocation.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write(address, bytes)
    }

    /// Copies bytes from the device to the host.
    ///
    /// # Errors
    ///
    /// A range that does not lie in one allocation, or that has uninitialised bytes: the error names the first.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.memory.read(address, bytes)
    }

    /// Copies bytes within the device; uninitialised bytes stay uninitialised.
    ///
    /// # Errors
    ///
    /// A range that does not lie in one allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.memory.copy(to, from, bytes)
    }

    /// Sets bytes to a value.
    ///
    /// # Errors
    ///
    /// A range that does not lie in one allocation.
    pub fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<()> {
        self.memory.fill(address, value, bytes)
    }

    /// Parses a module, allocates its variables and decodes its kernels.
    ///
    /// # Errors
    ///
    /// [`Error::Ptx`] with the line of the text that is malformed or not supported.
    pub fn load(&self, ptx: &str) -> Result<Arc<Module>> {
        load::module(ptx, &self.memory).map(Arc::new)
    }

    /// Executes a kernel to its end. `args` are the bytes of the arguments, laid out as in [`Kernel::params`].
    ///
    /// # Errors
    ///
    /// [`Error::Call`] for a configuration or arguments that the kernel does not allow, [`Error::Fault`] for a failed
    /// check.
    pub fn launch(&self, kernel: &Kernel, config: LaunchConfig, args: &[u8]) -> Result<Counters> {
        if !Arc::ptr_eq(&kernel.memory, &self.memory) {
            return Err(Error::call(format!(
                "kernel {} was loaded by another GPU: load its module on this one",
                kernel.name()
            )));
        }
        let options = LaunchOptions {
            schedule: self.schedule(),
            racecheck: !self.racecheck_off.load(Relaxed),
            instruction_limit: self.instruction_limit.load(Relaxed),
            sampled_blocks: self.sampled_blocks.load(Relaxed),
        };
        exec::launch(kernel, config, args, self.memory.snapshot(), options)
    }

    /// Sets the schedule of the launches that follow.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.late.store(schedule == Schedule::Late, Relaxed);
    }

    /// Returns the schedule of the launches that follow.
    pub fn schedule(&self) -> Schedule {
        if self.late.load(Relaxed) { Schedule::Late } else { Schedule::Early }
    }

    /// Turns racecheck on (the default) or off. When on, races and asynchronous copies that no thread waits for are
    /// faults; when off, they only show in the results, as on real hardware.
    pub fn set_ordering_checks(&self, on: bool) {
        self.racecheck_off.store(!on, Relaxed);
    }

    /// Sets the maximum number of instructions of a block, summed over its warps, beyond which the launch fails with
    /// [`FaultKind::Endless`](crate::FaultKind::Endless).
    pub fn set_instruction_limit(&self, warp_instructions: u64) {
        self.instruction_limit.store(warp_instructions, Relaxed);
    }

    /// Makes the launches that follow execute `blocks` of their blocks at most, spread evenly, and scale their counters
    /// to all of them; `None` executes all. It counts a large launch in little time; the results of the other blocks are
    /// missing, races are not searched, and a block that waits for another, by a loop that loads a word and sleeps, loads
    /// all ones the second time.
    pub fn set_sampled_blocks(&self, blocks: Option<u64>) {
        self.sampled_blocks.store(blocks.map_or(u64::MAX, |n| n.max(1)), Relaxed);
    }

    /// Returns the bytes allocated now.
    pub fn bytes_in_use(&self) -> usize {
        self.memory.usage().0
    }

    /// Returns the most bytes that were allocated at once.
    pub fn peak_bytes(&self) -> usize {
        self.memory.usage().1
    }
}
