//! What a launch did, counted.

use crate::inst::Kind;

/// Instructions of one kind: executed by warps, and by threads (active lanes only).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// Once per warp.
    pub warps: u64,
    /// Once per active lane.
    pub threads: u64,
}

/// Requests of one kind to one memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Instructions of a warp that reached this memory.
    pub requests: u64,
    /// Bytes moved by active lanes.
    pub bytes: u64,
    /// Global memory: 32-byte sectors touched. Shared memory: passes over the banks.
    pub pieces: u64,
    /// The fewest pieces that could have moved as many different bytes.
    pub least: u64,
}

/// Counters of one launch, summed over its blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions executed by warps.
    pub warp_instructions: u64,
    /// Instructions executed by threads: active lanes only.
    pub thread_instructions: u64,
    /// Integer arithmetic, comparisons and bit operations.
    pub integer: Executed,
    /// Floating-point arithmetic and conversions.
    pub float: Executed,
    /// Divisions, roots, exponentials and the other approximations.
    pub special: Executed,
    /// Tensor-core products.
    pub mma: Executed,
    /// Loads, stores, atomics, matrix loads and asynchronous copies.
    pub memory: Executed,
    /// Barriers and waits.
    pub barrier: Executed,
    /// Branches, calls and exits.
    pub branch: Executed,
    /// Moves, selections, shuffles, votes, fences.
    pub other: Executed,
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
    /// Passes over the banks of shared memory beyond the fewest possible.
    pub fn bank_conflicts(&self) -> u64 {
        [self.shared_loads, self.shared_stores, self.shared_atomics].iter().map(|t| t.pieces - t.least).sum()
    }

    /// The share of the sectors touched in global memory that was needed; 1 when there were none.
    pub fn sector_efficiency(&self) -> f64 {
        let all = [self.global_loads, self.global_stores, self.global_atomics];
        let (least, pieces): (u64, u64) = all.iter().fold((0, 0), |s, t| (s.0 + t.least, s.1 + t.pieces));
        if pieces == 0 { 1.0 } else { least as f64 / pieces as f64 }
    }

    /// Bytes of local memory moved.
    pub fn local_bytes(&self) -> u64 {
        self.local_loads.bytes + self.local_stores.bytes
    }

    /// Bytes moved between global memory and the blocks.
    pub fn global_bytes(&self) -> u64 {
        self.global_loads.bytes + self.global_stores.bytes + self.global_atomics.bytes
    }

    fn kind(&mut self, kind: Kind) -> &mut Executed {
        match kind {
            Kind::Integer => &mut self.integer,
            Kind::Float => &mut self.float,
            Kind::Special => &mut self.special,
            Kind::Mma => &mut self.mma,
            Kind::Memory => &mut self.memory,
            Kind::Barrier => &mut self.barrier,
            Kind::Branch => &mut self.branch,
            Kind::Other => &mut self.other,
        }
    }

    /// Adds what a block counted per kind.
    pub(crate) fn executed(&mut self, kinds: &[Executed; Kind::COUNT]) {
        for kind in Kind::ALL {
            let n = kinds[kind as usize];
            *self.kind(kind) = Executed {
                warps: self.kind(kind).warps + n.warps,
                threads: self.kind(kind).threads + n.threads,
            };
            self.warp_instructions += n.warps;
            self.thread_instructions += n.threads;
        }
    }

    /// Adds another launch's counts.
    pub fn add(&mut self, other: &Counters) {
        let mut from = other.clone();
        let kinds = Kind::ALL.map(|kind| *from.kind(kind));
        self.executed(&kinds);
        for (to, from) in self.traffic().into_iter().zip(from.traffic()) {
            to.requests += from.requests;
            to.bytes += from.bytes;
            to.pieces += from.pieces;
            to.least += from.least;
        }
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
    /// One more request: bytes of all its lanes, and (pieces, least).
    pub(crate) fn count(&mut self, bytes: u64, (pieces, least): (u64, u64)) {
        self.requests += 1;
        self.bytes += bytes;
        self.pieces += pieces;
        self.least += least;
    }
}
