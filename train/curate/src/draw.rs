//! Choices that depend on a seed and on the item they are made for alone.

use codelsi_engine::rng::Key;
use sha2::{Digest, Sha256};

/// Choices of one item in one style.
pub struct Draw(Key);

impl Draw {
    /// Keyed by the seed and by all that tells the item from others.
    pub fn new(seed: u64, parts: &[&str]) -> Draw {
        let mut digest = Sha256::new();
        digest.update(seed.to_le_bytes());
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let head: [u8; 8] = digest.finalize()[..8].try_into().expect("a digest has 32 bytes");
        Draw(Key { seed: u64::from_le_bytes(head), step: 0, site: 0 })
    }

    /// A seed for others' choices.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The `n`-th choice, one of `count`.
    pub fn below(&self, n: u32, count: usize) -> usize {
        self.0.words(n, 0)[0] as usize % count
    }
}
