//! `predict`: the time of a kernel on a chip, from its counters on the software GPU and the chip's rates.
//!
//! A launch takes the time of its slowest resource, each at the share of its rate that well-kept code reaches, plus the
//! time to start it. Multiprocessors share the blocks of a grid evenly, so a last wave that fills few of them lengthens
//! what they do themselves and draw from the L2 cache; device memory serves all.
//!
//! The constants below are the only ones beside the chips' rates, and the same for every op and chip. Counters are of
//! PTX: instructions that the assembler adds or removes are not seen.

mod adapter;
mod chip;
mod op;

pub use adapter::{adapter_cost, adapter_object, adapter_table};
pub use chip::Chip;
pub use op::{object, predict_op, table};

use codelsi_emulator::occupancy;
use codelsi_engine::cuda::LaunchRecord;
use codelsi_engine::{Device, Error, Result};

/// Flops of one m16n8k16 product of a warp.
const MMA_FLOPS: f64 = 2.0 * 16.0 * 8.0 * 16.0;
/// Bytes of a sector of global memory, and of a wavefront of shared memory.
const SECTOR: f64 = 32.0;
const WAVEFRONT: f64 = 128.0;
/// Share of its rate that a busy pipeline of a multiprocessor reaches: what dependent instructions leave idle.
const PIPELINE: f64 = 0.75;
/// Share of its rate that a stream from device memory or the L2 cache reaches: a plain copy of large tensors.
const STREAM: f64 = 0.9;
/// Seconds from the end of a kernel to the first instructions of the next, in one stream.
const LAUNCH: f64 = 1.5e-6;

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

/// Modelled time of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Prediction {
    /// Seconds, the start included.
    pub seconds: f64,
    pub bound: Bound,
}

/// Predicts the time of a launch on `chip`.
///
/// # Errors
/// When no multiprocessor of the chip can hold a block.
pub fn predict(chip: &Chip, launch: &LaunchRecord) -> Result<Prediction> {
    let c = &launch.counters;
    let fit = occupancy(&chip.arch, launch.threads, launch.registers, launch.shared);
    if fit.map_err(|e| Error::new(e.to_string()))?.blocks == 0 {
        return Err(Error::new(format!(
            "{}: no multiprocessor of {} holds a block",
            launch.kernel, chip.name
        )));
    }
    let warps = |lanes: f64| lanes / 32.0;
    let shared =
        [c.shared_loads, c.shared_stores, c.shared_atomics].map(|t| t.transactions).iter().sum::<u64>();
    let sectors =
        [c.global_loads, c.global_stores, c.global_atomics].map(|t| t.transactions).iter().sum::<u64>();
    // Work of the multiprocessor that has most blocks, over its share of an even division.
    let blocks = launch.blocks as f64;
    let tail = (blocks / chip.multiprocessors).ceil() * chip.multiprocessors / blocks;
    let clocks = chip.clock * chip.multiprocessors / tail;
    let on_chip = |count: u64, per_clock: f64| count as f64 / (per_clock * clocks * PIPELINE);
    let mma_per_clock = chip.mma_flops / MMA_FLOPS / (chip.clock * chip.multiprocessors);
    let bytes = sectors as f64 * SECTOR;
    let terms = [
        (Bound::Tensor, on_chip(c.mma.warps, mma_per_clock)),
        (Bound::Issue, on_chip(c.warp_instructions, chip.schedulers)),
        (Bound::Float, on_chip(c.float.warps, warps(chip.fp32_lanes))),
        (Bound::Integer, on_chip(c.integer.warps, warps(chip.int32_lanes))),
        (Bound::Special, on_chip(c.special.warps, warps(chip.special_lanes))),
        (Bound::Shared, on_chip(shared, chip.shared_bytes / WAVEFRONT)),
        (Bound::L2, bytes * tail / (chip.l2_bytes * STREAM)),
        (Bound::Dram, bytes.min(launch.footprint as f64) / (chip.dram_bytes * STREAM)),
    ];
    let (bound, seconds) = terms.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are terms");
    Ok(Prediction { seconds: seconds + LAUNCH, bound })
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
