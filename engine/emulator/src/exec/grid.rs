//! A launch: what all blocks share, and running them in parallel.

use super::block::Block;
use super::races;
use super::registers::Constants;
use crate::counters::Counters;
use crate::decode::Program;
use crate::error::{Error, Result};
use crate::gpu::{Launch, Rules, Schedule};
use crate::memory::Snapshot;
use crate::module::Kernel;
use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The most threads of a block, and the most shared memory, of the architectures known.
const MAX_THREADS: u64 = 1024;
const MAX_SHARED: u32 = 227 * 1024;

/// What all blocks of a launch share.
pub struct Grid<'g> {
    pub kernel: &'g Kernel,
    pub program: &'g Program,
    pub constants: Constants,
    /// Their taint: none.
    pub clean: Constants,
    pub config: Launch,
    /// The parameter bytes as words.
    pub params: Vec<u32>,
    pub snapshot: Snapshot,
    pub rules: Rules,
    /// Static and dynamic shared memory in bytes.
    pub shared_bytes: u32,
    pub blocks: u64,
    /// Held during 64-bit atomics, whose cells are two words.
    pub wide_atomics: Mutex<()>,
}

impl Grid<'_> {
    /// `ctaid` of the n-th block.
    pub fn ctaid(&self, n: u64) -> [u32; 3] {
        let [x, y, _] = self.config.grid.map(u64::from);
        [(n % x) as u32, (n / x % y) as u32, (n / x / y) as u32]
    }

    /// The CUDA source position of an instruction.
    pub fn cuda(&self, pc: u32) -> Option<(String, u32)> {
        let origin = self.program.origin(pc);
        let file = self.kernel.files.iter().find(|f| f.0 == origin.file)?;
        Some((file.1.clone(), origin.cuda_line))
    }

    /// An instruction's lines, for a message.
    pub fn place(&self, pc: u32) -> String {
        let line = format!("PTX line {}", self.program.origin(pc).ptx_line);
        match self.cuda(pc) {
            Some((file, cuda)) => format!("{line}, {file}:{cuda}"),
            None => line,
        }
    }
}

fn check(kernel: &Kernel, config: Launch, args: &[u8]) -> Result<()> {
    let refuse = |what: String| Err(Error::call(format!("{}: {what}", kernel.name())));
    let threads = config.block.iter().map(|&n| n as u64).product::<u64>();
    if threads == 0 || config.grid.contains(&0) {
        return refuse(format!("grid {:?} and block {:?} must not be empty", config.grid, config.block));
    }
    let most = kernel.max_threads().map_or(MAX_THREADS, u64::from);
    if threads > most.min(MAX_THREADS) || config.block[2] > 64 {
        return refuse(format!("{threads} threads in a block, {most} allowed"));
    }
    if config.grid[0] > i32::MAX as u32 || config.grid[1] > 65535 || config.grid[2] > 65535 {
        return refuse(format!("the grid {:?} is too large", config.grid));
    }
    let shared = kernel.static_shared() as u64 + config.shared as u64;
    if shared > MAX_SHARED as u64 {
        return refuse(format!("{shared} bytes of shared memory, {MAX_SHARED} allowed"));
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

/// Runs all blocks. Of several faults the one in the first block is reported.
pub fn launch(
    kernel: &Kernel,
    config: Launch,
    args: &[u8],
    snapshot: Snapshot,
    rules: Rules,
) -> Result<Counters> {
    check(kernel, config, args)?;
    let blocks = config.grid.iter().map(|&n| n as u64).product::<u64>();
    let params = args.chunks(4).map(|c| {
        let mut word = [0; 4];
        word[..c.len()].copy_from_slice(c);
        u32::from_le_bytes(word)
    });
    let grid = Grid {
        kernel,
        program: &kernel.program,
        constants: Constants::new(&kernel.program),
        clean: Constants::clean(&kernel.program),
        config,
        params: params.collect(),
        snapshot,
        rules,
        shared_bytes: kernel.static_shared() + config.shared,
        blocks,
        wide_atomics: Mutex::new(()),
    };
    let result = run_blocks(&grid);
    // What the launch wrote may have completed an allocation.
    grid.snapshot.live.iter().for_each(|a| a.settle());
    result
}

/// Runs all blocks in parallel, then compares what they touched.
fn run_blocks(grid: &Grid<'_>) -> Result<Counters> {
    // Blocks behind a failed one need not run; those before it may hold the fault to report.
    let failed = AtomicU64::new(u64::MAX);
    let run = |at: u64| {
        let n = if grid.rules.schedule == Schedule::Late { grid.blocks - 1 - at } else { at };
        if n > failed.load(Relaxed) {
            return None;
        }
        let done = Block::new(grid, n).run();
        if done.is_err() {
            failed.fetch_min(n, Relaxed);
        }
        Some((n, done))
    };
    let mut done: Vec<_> = (0..grid.blocks).into_par_iter().filter_map(run).collect();
    done.sort_unstable_by_key(|d| d.0);
    let mut total = Counters::default();
    let mut logs = Vec::new();
    for (n, result) in done {
        let (counters, log) = result?;
        total.add(&counters);
        logs.push((n, log));
    }
    match races::find(grid, logs).filter(|_| grid.rules.ordering) {
        Some(race) => Err(race.into()),
        None => Ok(total),
    }
}
