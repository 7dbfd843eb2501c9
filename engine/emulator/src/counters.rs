//! What a launch did, counted.

/// Counters of one launch, summed over its blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions executed by warps.
    pub warp_instructions: u64,
    /// Instructions executed by threads: active lanes only.
    pub thread_instructions: u64,
}
