//! Performance counters of a launch, named after those of Nsight Compute where it has them.

use crate::inst::InstructionKind;

/// Number of executed instructions of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstructionCount {
    /// Counted once per warp.
    pub warps: u64,
    /// Counted once per active lane.
    pub threads: u64,
}

/// Requests of one kind to one memory, and their cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of warp instructions that accessed this memory.
    pub requests: u64,
    /// Bytes moved by active lanes.
    pub bytes: u64,
    /// Global memory: 32-byte sectors accessed. Shared memory: wavefronts, passes over the 32 banks.
    pub transactions: u64,
    /// Minimum number of sectors or wavefronts for the same number of distinct bytes.
    pub ideal: u64,
}

/// Counters of a launch, summed over its blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions executed by warps.
    pub warp_instructions: u64,
    /// Instructions executed by threads: active lanes only.
    pub thread_instructions: u64,
    /// Integer arithmetic, comparisons and bit operations.
    pub integer: InstructionCount,
    /// Floating-point arithmetic and conversions.
    pub float: InstructionCount,
    /// Divisions, roots, exponentials and the other approximations.
    pub special: InstructionCount,
    /// Tensor-core products.
    pub mma: InstructionCount,
    /// Loads, stores, atomics, matrix loads and asynchronous copies.
    pub memory: InstructionCount,
    /// Barriers and waits.
    pub barrier: InstructionCount,
    /// Branches, calls and exits.
    pub branch: InstructionCount,
    /// Moves, selections, shuffles, votes, fences.
    pub other: InstructionCount,
    /// Loads from global memory, asynchronous copies included; constants not.
    pub global_loads: Traffic,
    /// Stores to global memory.
    pub global_stores: Traffic,
    /// Atomics on global memory.
    pub global_atomics: Traffic,
    /// Loads from shared memory, `ldmatrix` included.
    pub shared_loads: Traffic,
    /// Stores to shared memory, asynchronous copies included.
    pub shared_stores: Traffic,
    /// Atomics on shared memory.
    pub shared_atomics: Traffic,
    /// Loads from local memory: spills, and arrays indexed at run time.
    pub local_loads: Traffic,
    /// Stores to local memory.
    pub local_stores: Traffic,
    /// Loads of constants and parameters.
    pub constant_loads: Traffic,
}

impl Counters {
    /// Returns the bank conflicts: wavefronts of shared memory beyond the minimum.
    pub fn bank_conflicts(&self) -> u64 {
        [self.shared_loads, self.shared_stores, self.shared_atomics]
            .iter()
            .map(|t| t.transactions - t.ideal)
            .sum()
    }

    /// Returns the minimum number of sectors of global memory divided by the number accessed; 1 when none was accessed.
    pub fn sector_efficiency(&self) -> f64 {
        let all = [self.global_loads, self.global_stores, self.global_atomics];
        let (ideal, pieces): (u64, u64) =
            all.iter().fold((0, 0), |s, t| (s.0 + t.ideal, s.1 + t.transactions));
        if pieces == 0 { 1.0 } else { ideal as f64 / pieces as f64 }
    }

    /// Returns the bytes of local memory loaded and stored.
    pub fn local_bytes(&self) -> u64 {
        self.local_loads.bytes + self.local_stores.bytes
    }

    /// Returns the bytes of global memory loaded, stored and updated by atomics.
    pub fn global_bytes(&self) -> u64 {
        self.global_loads.bytes + self.global_stores.bytes + self.global_atomics.bytes
    }

    fn of_kind(&mut self, kind: InstructionKind) -> &mut InstructionCount {
        match kind {
            InstructionKind::Integer => &mut self.integer,
            InstructionKind::Float => &mut self.float,
            InstructionKind::Special => &mut self.special,
            InstructionKind::Mma => &mut self.mma,
            InstructionKind::Memory => &mut self.memory,
            InstructionKind::Barrier => &mut self.barrier,
            InstructionKind::Branch => &mut self.branch,
            InstructionKind::Other => &mut self.other,
        }
    }

    /// Adds the executed instructions of a block.
    pub(crate) fn add_executed(&mut self, kinds: &[InstructionCount; InstructionKind::COUNT]) {
        for kind in InstructionKind::ALL {
            let n = kinds[kind as usize];
            *self.of_kind(kind) = InstructionCount {
                warps: self.of_kind(kind).warps + n.warps,
                threads: self.of_kind(kind).threads + n.threads,
            };
            self.warp_instructions += n.warps;
            self.thread_instructions += n.threads;
        }
    }

    /// Adds the counters of another launch.
    pub fn add(&mut self, other: &Counters) {
        let mut from = other.clone();
        let kinds = InstructionKind::ALL.map(|kind| *from.of_kind(kind));
        self.add_executed(&kinds);
        for (to, from) in self.traffic().into_iter().zip(from.traffic()) {
            to.requests += from.requests;
            to.bytes += from.bytes;
            to.transactions += from.transactions;
            to.ideal += from.ideal;
        }
    }

    /// Multiplies all counts by `of` / `sampled`, to the nearest whole number.
    pub(crate) fn scale(&mut self, of: u64, sampled: u64) {
        let scale = |n: &mut u64| {
            *n = ((*n as u128 * of as u128 + sampled as u128 / 2) / sampled as u128) as u64;
        };
        let mut kinds = InstructionKind::ALL.map(|kind| *self.of_kind(kind));
        kinds.iter_mut().flat_map(|n| [&mut n.warps, &mut n.threads]).for_each(scale);
        for t in self.traffic() {
            [&mut t.requests, &mut t.bytes, &mut t.transactions, &mut t.ideal].into_iter().for_each(scale);
        }
        for kind in InstructionKind::ALL {
            *self.of_kind(kind) = InstructionCount::default();
        }
        (self.warp_instructions, self.thread_instructions) = (0, 0);
        self.add_executed(&kinds);
    }

    fn traffic(&mut self) -> [&mut Traffic; 9] {
        [
            &mut self.global_loads,
            &mut self.global_stores,
            &mut self.global_atomics,
            &mut self.shared_loads,
            &mut self.shared_stores,
            &mut self.shared_atomics,
            &mut self.local_loads,
            &mut self.local_stores,
            &mut self.constant_loads,
        ]
    }
}

impl Traffic {
    /// Counts a request: bytes of all its lanes, and its actual and minimum number of sectors or wavefronts.
    pub(crate) fn count(&mut self, bytes: u64, (pieces, ideal): (u64, u64)) {
        self.requests += 1;
        self.bytes += bytes;
        self.transactions += pieces;
        self.ideal += ideal;
    }
}
