//! How many blocks of a kernel a multiprocessor holds at once.

use crate::error::{Error, Result};

/// What a multiprocessor has.
struct Limits {
    threads: u32,
    blocks: u32,
    registers: u32,
    shared: u32,
    /// Shared memory the system keeps of every block.
    reserved: u32,
}

/// Which resource sets the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Threads per multiprocessor.
    Threads,
    /// Blocks per multiprocessor.
    Blocks,
    /// The register file.
    Registers,
    /// Shared memory.
    Shared,
}

/// The occupancy of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Occupancy {
    /// Blocks a multiprocessor holds at once; 0 when a single one does not fit.
    pub blocks: u32,
    /// Warps it then holds, as a share of the most it could.
    pub share: f64,
    /// What allows no more.
    pub bound: Bound,
}

/// The occupancy on `arch` of a block with so many threads, registers per thread (from the assembler) and bytes
/// of shared memory, static and dynamic.
pub fn occupancy(arch: &str, threads: u32, registers: u32, shared: u32) -> Result<Occupancy> {
    let limits = match arch {
        "sm_80" => Limits { threads: 2048, blocks: 32, registers: 65536, shared: 164 * 1024, reserved: 1024 },
        "sm_90a" => {
            Limits { threads: 2048, blocks: 32, registers: 65536, shared: 228 * 1024, reserved: 1024 }
        }
        _ => return Err(Error::call(format!("no such architecture: {arch}; sm_80 and sm_90a are known"))),
    };
    if threads == 0 || threads > 1024 || registers > 255 {
        return Err(Error::call(format!("a block of {threads} threads with {registers} registers each")));
    }
    let warps = threads.div_ceil(32);
    // Registers are given out per warp in units of 256, to four quarters of the multiprocessor.
    let per_warp = (registers.max(1) * 32).next_multiple_of(256);
    let by_registers = limits.registers / 4 / per_warp * 4 / warps;
    let per_block = (shared + limits.reserved).next_multiple_of(128);
    let (blocks, bound) = [
        (limits.threads / 32 / warps, Bound::Threads),
        (limits.blocks, Bound::Blocks),
        (by_registers, Bound::Registers),
        (limits.shared / per_block, Bound::Shared),
    ]
    .into_iter()
    .min_by_key(|l| l.0)
    .unwrap_or((0, Bound::Threads));
    Ok(Occupancy { blocks, share: (blocks * warps) as f64 / (limits.threads / 32) as f64, bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_can_be_the_bound() {
        let of = |threads, registers, shared| occupancy("sm_80", threads, registers, shared).unwrap();
        assert_eq!(of(256, 32, 0), Occupancy { blocks: 8, share: 1.0, bound: Bound::Threads });
        assert_eq!(of(32, 32, 0), Occupancy { blocks: 32, share: 0.5, bound: Bound::Blocks });
        assert_eq!(of(256, 128, 0), Occupancy { blocks: 2, share: 0.25, bound: Bound::Registers });
        assert_eq!(of(256, 64, 48 * 1024), Occupancy { blocks: 3, share: 0.375, bound: Bound::Shared });
        assert_eq!(of(128, 255, 200 * 1024).blocks, 0);
        assert!(occupancy("sm_75", 32, 32, 0).is_err());
        assert!(occupancy("sm_80", 0, 32, 0).is_err());
    }
}
