//! What a launch did, counted.

/// Counters of one launch, summed over its blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions executed by warps.
    pub warp_instructions: u64,
    /// Instructions executed by threads: active lanes only.
    pub thread_instructions: u64,
}

impl Counters {
    pub(crate) fn add(&mut self, other: &Counters) {
        self.warp_instructions += other.warp_instructions;
        self.thread_instructions += other.thread_instructions;
    }
}
