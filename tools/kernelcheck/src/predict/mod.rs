//! `predict`: the time of a kernel on a chip, from its counters on the software GPU, its resources and the chip's rates.
//!
//! The pipelines of a multiprocessor (tensor cores, schedulers, lanes, shared memory) work side by side for different
//! warps, while each warp goes through them one after another. So the blocks of a multiprocessor take the time of the
//! busiest pipeline, and beside it what the warps of a scheduler cannot hide of the rest: one stream's own way through the
//! other pipelines, which is the work of all streams divided by their number (the pessimistic bound of balanced queueing
//! networks; Zahorjan et al., 1982). Memory works ahead of the warps, by asynchronous copies and many of them, so a launch
//! takes the longest of the multiprocessors, the L2 cache and device memory, plus the time to start it.
//! Multiprocessors share the blocks of a grid evenly: a last wave that fills few of them lengthens what they do themselves
//! and draw from the L2 cache; device memory serves all.
//!
//! Counters are of PTX: instructions that the assembler adds or removes are not seen.

mod adapter;
mod chip;
mod constants;
mod measured;
mod op;
mod passes;
mod targets;

pub use adapter::{adapter_cost, adapter_object, adapter_rows, adapter_table};
pub use chip::Chip;
pub use measured::{beside, measured_rows, measured_table};
pub use op::{object, predict_op, rows, table};
pub use passes::{DECODING, TRAINING, predict_step};
pub use targets::{MetTarget, meet, target_rows, targets_object, targets_table};

use codelsi_emulator::occupancy;
use codelsi_engine::cuda::LaunchRecord;
use codelsi_engine::{Device, Error, Result};
use constants::{LAUNCH, STREAM, STREAMS_OF_A_WARP};

/// Flops of one m16n8k16 product of a warp.
const MMA_FLOPS: f64 = 2.0 * 16.0 * 8.0 * 16.0;
/// Bytes of a sector of global memory, and of a wavefront of shared memory.
const SECTOR: f64 = 32.0;
const WAVEFRONT: f64 = 128.0;

/// The slowest resource of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Tensor,
    Issue,
    Float,
    Integer,
    Special,
    Shared,
    L2,
    Dram,
}

impl Bound {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Tensor => "tensor cores",
            Bound::Issue => "issue",
            Bound::Float => "f32",
            Bound::Integer => "integers",
            Bound::Special => "special functions",
            Bound::Shared => "shared memory",
            Bound::L2 => "L2",
            Bound::Dram => "device memory",
        }
    }
}

/// A resource and the seconds for which a launch keeps it busy.
type Term = (Bound, f64);

/// Modelled time of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Prediction {
    /// Seconds, the start included.
    pub seconds: f64,
    pub bound: Bound,
    /// Seconds at the nearer roof: its products at the tensor cores' full rate, its bytes at device memory's.
    pub roof: f64,
}

/// Predicts the time of a launch on `chip`.
///
/// # Errors
/// When no multiprocessor of the chip can hold a block.
pub fn predict(chip: &Chip, launch: &LaunchRecord) -> Result<Prediction> {
    let warps = warps_of_a_scheduler(chip, launch)?;
    let pipelines = pipelines(chip, launch);
    let (pipeline, busy) = slowest(pipelines);
    let rest = pipelines.iter().map(|term| term.1).sum::<f64>() - busy;
    let [l2, dram] = memory(chip, launch);
    let on_chip = busy + rest / (warps * STREAMS_OF_A_WARP);
    let (bound, seconds) = slowest([(pipeline, on_chip), l2, dram]);
    let products = launch.counters.mma.warps as f64 * MMA_FLOPS / chip.mma_flops;
    Ok(Prediction { seconds: seconds + LAUNCH, bound, roof: products.max(dram.1 * STREAM) })
}

fn slowest<const N: usize>(terms: [Term; N]) -> Term {
    terms.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are terms")
}

/// Returns the resident warps that share a scheduler.
fn warps_of_a_scheduler(chip: &Chip, launch: &LaunchRecord) -> Result<f64> {
    let fit = occupancy(&chip.arch, launch.threads, launch.registers, launch.shared);
    let fit = f64::from(fit.map_err(|e| Error::new(e.to_string()))?.blocks);
    if fit == 0.0 {
        return Err(Error::new(format!(
            "{}: no multiprocessor of {} holds a block",
            launch.kernel, chip.name
        )));
    }
    let blocks = fit.min((launch.blocks as f64 / chip.multiprocessors).ceil());
    Ok((blocks * f64::from(launch.threads.div_ceil(32)) / chip.schedulers).max(1.0))
}

/// Returns the work of the multiprocessor that has most blocks, over its share of an even division.
fn tail(chip: &Chip, launch: &LaunchRecord) -> f64 {
    let blocks = launch.blocks as f64;
    (blocks / chip.multiprocessors).ceil() * chip.multiprocessors / blocks
}

/// Returns the time of each pipeline of the multiprocessors.
fn pipelines(chip: &Chip, launch: &LaunchRecord) -> [Term; 6] {
    let c = &launch.counters;
    let clocks = chip.clock * chip.multiprocessors / tail(chip, launch);
    let time = |count: u64, per_clock: f64| count as f64 / (per_clock * clocks);
    let lanes = |count: u64, lanes: f64| time(count, lanes / 32.0);
    let products = chip.mma_flops / MMA_FLOPS / (chip.clock * chip.multiprocessors);
    let wavefronts: u64 =
        [c.shared_loads, c.shared_stores, c.shared_atomics].iter().map(|t| t.transactions).sum();
    [
        (Bound::Tensor, time(c.mma.warps, products)),
        (Bound::Issue, time(c.warp_instructions, chip.schedulers)),
        (Bound::Float, lanes(c.float.warps, chip.fp32_lanes)),
        (Bound::Integer, lanes(c.integer.warps, chip.int32_lanes)),
        (Bound::Special, lanes(c.special.warps, chip.special_lanes)),
        (Bound::Shared, time(wavefronts, chip.shared_bytes / WAVEFRONT)),
    ]
}

/// Returns the time of the L2 cache and of device memory.
fn memory(chip: &Chip, launch: &LaunchRecord) -> [Term; 2] {
    let c = &launch.counters;
    let sectors: u64 =
        [c.global_loads, c.global_stores, c.global_atomics].iter().map(|t| t.transactions).sum();
    let bytes = sectors as f64 * SECTOR;
    [
        (Bound::L2, bytes * tail(chip, launch) / (chip.l2_bytes * STREAM)),
        (Bound::Dram, bytes.min(launch.footprint as f64) / (chip.dram_bytes * STREAM)),
    ]
}

/// Counts the launches of `run` on the software GPU `device`, `blocks` blocks of each grid executed.
///
/// # Errors
/// When the device is not the software GPU, or `run` fails.
pub fn sampled_launches(
    device: &Device,
    blocks: u64,
    run: impl FnOnce() -> Result<()>,
) -> Result<Vec<LaunchRecord>> {
    let emulator = match device {
        Device::Cuda(cuda) => cuda.emulator(),
        _ => None,
    };
    let emulator =
        emulator.ok_or_else(|| Error::new("only the software GPU counts: use --device emulated"))?;
    emulator.set_sampled_blocks(Some(blocks));
    emulator.count_launches();
    let done = run();
    let launches = emulator.take_launches();
    emulator.set_sampled_blocks(None);
    done.map(|()| launches)
}
