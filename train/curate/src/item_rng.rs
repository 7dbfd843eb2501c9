//! Random choices for one item, which depend on the seed and the item alone.

use codelsi_engine::rng::RngKey;
use sha2::{Digest, Sha256};

/// A source of random choices for one item, keyed rather than sequential.
pub struct ItemRng(RngKey);

impl ItemRng {
    /// Derives the key from the seed and from `parts`, which identify the item and the purpose.
    pub fn new(seed: u64, parts: &[&str]) -> ItemRng {
        let mut digest = Sha256::new();
        digest.update(seed.to_le_bytes());
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let head: [u8; 8] = digest.finalize()[..8].try_into().expect("a digest has 32 bytes");
        ItemRng(RngKey { seed: u64::from_le_bytes(head), step: 0, site: 0 })
    }

    /// A seed for choices made elsewhere.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The `n`-th choice, a number below `count`.
    pub fn below(&self, n: u32, count: usize) -> usize {
        self.0.words(n, 0)[0] as usize % count
    }
}
