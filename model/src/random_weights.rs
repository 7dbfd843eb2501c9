//! Random weights for benches and tests: about four million weights are drawn once, normal with Llama's initial standard
//! deviation of 0.02, and each tensor reads that block cyclically from its own offset. The block's length is prime, so no
//! two rows of a matrix are equal, and weights of 26 GB are made as fast as they can be copied.

use codelsi_engine::rng::RngKey;
use half::bf16;
use rayon::prelude::*;

/// Number of weights drawn: a prime just above 2²².
const BLOCK: usize = 4_194_319;
/// Standard deviation of the weights.
pub(crate) const DEVIATION: f32 = 0.02;

/// True if a tensor is the weight of a norm, whose elements are ones.
pub(crate) fn is_norm(name: &str) -> bool {
    name.ends_with("norm.weight")
}

/// The block of weights, and where each tensor begins in it.
pub(crate) struct RandomWeights {
    seed: u64,
    block: Vec<bf16>,
}

impl RandomWeights {
    /// Draws the block of a model with `parameters` parameters.
    pub fn new(parameters: usize, seed: u64) -> Self {
        let key = RngKey { seed, step: 0, site: 0 };
        let row = 1 << 12;
        let draw = |i: usize| bf16::from_f32(DEVIATION * key.normal((i / row) as u32, (i % row) as u32));
        let block = (0..parameters.min(BLOCK)).into_par_iter().map(draw).collect();
        RandomWeights { seed, block }
    }

    /// The weights drawn.
    pub fn block(&self) -> &[bf16] {
        &self.block
    }

    /// Returns the index in the block at which the model's tensor of index `tensor` begins.
    pub fn start(&self, tensor: usize) -> usize {
        let key = RngKey { seed: self.seed, step: 0, site: 1 };
        let [high, low, ..] = key.words(tensor as u32, 0);
        (((high as u64) << 32 | low as u64) % self.block.len() as u64) as usize
    }
}
