//! Occupancy: the number of blocks that are resident on a multiprocessor at once.

use crate::error::{Error, Result};

/// Resources of a multiprocessor (SM).
struct SmResources {
    threads: u32,
    blocks: u32,
    registers: u32,
    shared: u32,
    /// Bytes of shared memory that the system reserves in every block.
    reserved: u32,
}

/// Resource that limits the occupancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitingResource {
    /// Threads per multiprocessor.
    Threads,
    /// Blocks per multiprocessor.
    Blocks,
    /// The register file.
    Registers,
    /// Shared memory.
    Shared,
}

/// Occupancy of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Occupancy {
    /// Resident blocks per multiprocessor; 0 when not even one fits.
    pub blocks: u32,
    /// Resident warps divided by the maximum of the multiprocessor.
    pub fraction: f64,
    /// Resource that allows no more blocks.
    pub limited_by: LimitingResource,
}

/// Returns the occupancy on `arch` (`sm_80` or `sm_90a`) of blocks with the given threads, registers per thread (as
/// ptxas reports them) and bytes of shared memory, static plus dynamic.
///
/// # Errors
///
/// An unknown architecture, or a block that no multiprocessor can hold (over 1024 threads, over 255 registers).
pub fn occupancy(arch: &str, threads: u32, registers: u32, shared: u32) -> Result<Occupancy> {
    let limits = match arch {
        "sm_80" => {
            SmResources { threads: 2048, blocks: 32, registers: 65536, shared: 164 * 1024, reserved: 1024 }
        }
        "sm_90a" => {
            SmResources { threads: 2048, blocks: 32, registers: 65536, shared: 228 * 1024, reserved: 1024 }
        }
        _ => {
            return Err(Error::call(format!(
                "unknown architecture '{arch}': the software GPU has sm_80 and sm_90a"
            )));
        }
    };
    if threads == 0 || threads > 1024 || registers > 255 {
        return Err(Error::call(format!(
            "a block of {threads} threads with {registers} registers each: 1 to 1024 threads and \
             up to 255 registers are possible"
        )));
    }
    let warps = threads.div_ceil(32);
    // Registers are allocated per warp in units of 256, in each of the four partitions of the multiprocessor.
    let per_warp = (registers.max(1) * 32).next_multiple_of(256);
    let by_registers = limits.registers / 4 / per_warp * 4 / warps;
    let per_block = (shared + limits.reserved).next_multiple_of(128);
    let (blocks, limited_by) = [
        (limits.threads / 32 / warps, LimitingResource::Threads),
        (limits.blocks, LimitingResource::Blocks),
        (by_registers, LimitingResource::Registers),
        (limits.shared / per_block, LimitingResource::Shared),
    ]
    .into_iter()
    .min_by_key(|l| l.0)
    .unwrap_or((0, LimitingResource::Threads));
    Ok(Occupancy { blocks, fraction: (blocks * warps) as f64 / (limits.threads / 32) as f64, limited_by })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_can_be_the_bound() {
        let of = |threads, registers, shared| occupancy("sm_80", threads, registers, shared).unwrap();
        assert_eq!(
            of(256, 32, 0),
            Occupancy { blocks: 8, fraction: 1.0, limited_by: LimitingResource::Threads }
        );
        assert_eq!(
            of(32, 32, 0),
            Occupancy { blocks: 32, fraction: 0.5, limited_by: LimitingResource::Blocks }
        );
        assert_eq!(
            of(256, 128, 0),
            Occupancy { blocks: 2, fraction: 0.25, limited_by: LimitingResource::Registers }
        );
        assert_eq!(
            of(256, 64, 48 * 1024),
            Occupancy { blocks: 3, fraction: 0.375, limited_by: LimitingResource::Shared }
        );
        assert_eq!(of(128, 255, 200 * 1024).blocks, 0);
        assert!(occupancy("sm_75", 32, 32, 0).is_err());
        assert!(occupancy("sm_80", 0, 32, 0).is_err());
    }
}
