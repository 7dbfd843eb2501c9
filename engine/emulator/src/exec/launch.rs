//! A launch: the context that all blocks share, and their parallel execution.

use super::grid_races;
use super::registers::ConstantRows;
use super::thread_block::Leftovers;
use super::wait::Blocks;
use crate::counters::Counters;
use crate::decode::KernelCode;
use crate::error::{Error, Result};
use crate::gpu::{LaunchConfig, LaunchOptions, Schedule};
use crate::memory::AllocationSnapshot;
use crate::module::Kernel;
use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Maximum threads and bytes of shared memory of a block, on all known architectures.
const MAX_THREADS: u64 = 1024;
const MAX_SHARED: u32 = 227 * 1024;

/// State that all blocks of a launch share, read-only but for the lock.
pub struct LaunchContext<'g> {
    pub kernel: &'g Kernel,
    pub code: &'g KernelCode,
    pub constants: ConstantRows,
    /// Taint of the constants: all zero.
    pub untainted: ConstantRows,
    pub config: LaunchConfig,
    /// The argument buffer as 32-bit words.
    pub params: Vec<u32>,
    pub snapshot: AllocationSnapshot,
    pub options: LaunchOptions,
    /// Static and dynamic shared memory in bytes.
    pub shared_bytes: u32,
    pub blocks: u64,
    /// Held during 64-bit atomics, since memory consists of 32-bit cells.
    pub wide_atomics: Mutex<()>,
    /// Number of changes of global memory that a block may wait for.
    pub version: AtomicU64,
    /// What ended blocks leave to those that begin.
    pub left: Mutex<Vec<Leftovers>>,
}

impl LaunchContext<'_> {
    /// Returns `ctaid` of the n-th block.
    pub fn ctaid(&self, n: u64) -> [u32; 3] {
        let [x, y, _] = self.config.grid.map(u64::from);
        [(n % x) as u32, (n / x % y) as u32, (n / x / y) as u32]
    }

    /// Returns true if only some of the blocks are executed.
    pub fn is_sampled(&self) -> bool {
        self.options.sampled_blocks < self.blocks
    }

    /// Notes a strong store or an atomic in global memory, for which another block may wait.
    pub fn note_change(&self) {
        if self.code.sleeps {
            self.version.fetch_add(1, Relaxed);
        }
    }

    /// Returns the CUDA file and line of an instruction.
    pub fn cuda(&self, pc: u32) -> Option<(String, u32)> {
        let location = self.code.location(pc);
        let file = self.kernel.files.iter().find(|f| f.0 == location.file)?;
        Some((file.1.clone(), location.cuda_line))
    }

    /// Describes the source lines of an instruction, for a message.
    pub fn describe(&self, pc: u32) -> String {
        let line = format!("PTX line {}", self.code.location(pc).ptx_line);
        match self.cuda(pc) {
            Some((file, cuda)) => format!("{line}, {file}:{cuda}"),
            None => line,
        }
    }
}

fn check_config(kernel: &Kernel, config: LaunchConfig, args: &[u8]) -> Result<()> {
    let refuse = |what: String| Err(Error::call(format!("{}: {what}", kernel.name())));
    let threads = config.block.iter().map(|&n| n as u64).product::<u64>();
    if threads == 0 || config.grid.contains(&0) {
        return refuse(format!(
            "grid {:?} and block {:?}: every dimension must be at least 1",
            config.grid, config.block
        ));
    }
    let max = kernel.max_threads().map_or(MAX_THREADS, u64::from).min(MAX_THREADS);
    if threads > max || config.block[2] > 64 {
        return refuse(format!("a block of {threads} threads, but at most {max} (and 64 in z) are allowed"));
    }
    if config.grid[0] > i32::MAX as u32 || config.grid[1] > 65535 || config.grid[2] > 65535 {
        return refuse(format!(
            "the grid {:?} is beyond the limit of 2147483647 x 65535 x 65535 blocks",
            config.grid
        ));
    }
    let shared = kernel.static_shared() as u64 + config.shared_bytes as u64;
    if shared > MAX_SHARED as u64 {
        return refuse(format!(
            "{shared} bytes of static and dynamic shared memory, but at most {MAX_SHARED} are allowed"
        ));
    }
    if args.len() != kernel.params_size() {
        return refuse(format!(
            "{} bytes of arguments where {} are needed",
            args.len(),
            kernel.params_size()
        ));
    }
    Ok(())
}

/// Executes all blocks. Of several faults the one in the first block is reported.
pub fn launch(
    kernel: &Kernel,
    config: LaunchConfig,
    args: &[u8],
    snapshot: AllocationSnapshot,
    options: LaunchOptions,
) -> Result<Counters> {
    check_config(kernel, config, args)?;
    let blocks = config.grid.iter().map(|&n| n as u64).product::<u64>();
    let params = args.chunks(4).map(|c| {
        let mut word = [0; 4];
        word[..c.len()].copy_from_slice(c);
        u32::from_le_bytes(word)
    });
    let context = LaunchContext {
        kernel,
        code: &kernel.code,
        constants: ConstantRows::new(&kernel.code),
        untainted: ConstantRows::untainted(&kernel.code),
        config,
        params: params.collect(),
        snapshot,
        options,
        shared_bytes: kernel.static_shared() + config.shared_bytes,
        blocks,
        wide_atomics: Mutex::new(()),
        version: AtomicU64::new(0),
        left: Mutex::new(Vec::new()),
    };
    let result = run_blocks(&context);
    // The launch may have written the last uninitialised bytes of an allocation.
    context.snapshot.live.iter().for_each(|a| a.refresh_taint_flag());
    result
}

/// Returns the numbers of the blocks to execute: all, or one of each of as many equal parts of the grid.
fn chosen_blocks(launch: &LaunchContext<'_>) -> Vec<u64> {
    chosen(launch.blocks, launch.options.sampled_blocks)
}

/// Returns a block of each of `n` equal parts of `all`, at places that multiples of the golden ratio spread evenly: blocks
/// of one place may be alike, as those of a row of the grid are when only their place in it decides their work.
fn chosen(all: u64, n: u64) -> Vec<u64> {
    if n >= all {
        return (0..all).collect();
    }
    let (golden, whole) = (0x9e37_79b9_u32, 1u128 << 32);
    let place = |i: u64| u128::from((i as u32).wrapping_mul(golden).wrapping_add(1 << 31));
    (0..n)
        .map(|i| ((u128::from(i) * whole + place(i)) * u128::from(all) / (u128::from(n) * whole)) as u64)
        .collect()
}

/// Executes the chosen blocks in parallel, then compares the addresses they touched.
fn run_blocks(launch: &LaunchContext<'_>) -> Result<Counters> {
    let mut chosen = chosen_blocks(launch);
    if launch.options.schedule == Schedule::Late {
        chosen.reverse();
    }
    // Blocks after a failed one need not run; those before it may hold the fault to report.
    let failed = AtomicU64::new(u64::MAX);
    let blocks = Blocks::new(launch, chosen.clone());
    let worker = |_| {
        let mut done = Vec::new();
        while let Some(mut next) = blocks.next() {
            if next.number < failed.load(Relaxed) && !next.deadlocked {
                match next.block.run() {
                    Ok(false) => {
                        blocks.set_aside(next);
                        continue;
                    }
                    Ok(true) => done.push((next.number, Ok(next.block.finish()))),
                    Err(fault) => {
                        failed.fetch_min(next.number, Relaxed);
                        done.push((next.number, Err(fault)));
                    }
                }
            } else if failed.load(Relaxed) == u64::MAX {
                done.push((next.number, Err(next.block.deadlock())));
            }
            blocks.ended();
        }
        done
    };
    let workers = rayon::current_num_threads().min(chosen.len());
    let mut done: Vec<_> = (0..workers).into_par_iter().with_max_len(1).flat_map_iter(worker).collect();
    done.sort_unstable_by_key(|d| d.0);
    let mut total = Counters::default();
    let mut logs = Vec::new();
    for (n, result) in done {
        let (counters, log) = result?;
        total.add(&counters);
        logs.push((n, log));
    }
    if launch.is_sampled() {
        total.scale(launch.blocks, chosen.len() as u64);
        return Ok(total);
    }
    match grid_races::find(launch, logs).filter(|_| launch.options.racecheck) {
        Some(race) => Err(race.into()),
        None => Ok(total),
    }
}
