//! Sizes of random cases, drawn from a seed.

use codelsi_engine::rng::RngKey;

/// A source of sizes.
pub struct Draw {
    key: RngKey,
    drawn: u32,
}

impl Draw {
    /// Starts the draws of one case: the `case`-th of `op`.
    pub fn new(seed: u64, op: &str, case: usize) -> Self {
        let site = op.bytes().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        Draw { key: RngKey { seed, step: case as u32, site }, drawn: 0 }
    }

    /// Draws a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        ((self.key.words(self.drawn, 0)[0] as u64 * n as u64) >> 32) as usize
    }

    /// Draws a size from 1 to `most`: every power of two as often as the next, and every residue.
    pub fn size(&mut self, most: usize) -> usize {
        let scale = 1usize << self.below(most.ilog2() as usize + 1);
        (scale + self.below(scale)).min(most)
    }

    /// Draws a size as [`Draw::size`], half of the time a multiple of 8: whole accesses.
    pub fn width(&mut self, most: usize) -> usize {
        let size = self.size(most);
        if self.below(2) == 0 { size.next_multiple_of(8) } else { size }
    }

    /// Draws one of `all`.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_sizes_and_all_residues_occur() {
        let draw = |seed| {
            let mut draw = Draw::new(seed, "gemm", 3);
            (0..400).map(|_| draw.size(300)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(1).iter().all(|&n| (1..=300).contains(&n)));
        assert!((0..8).all(|residue| draw(1).iter().any(|n| n % 8 == residue && *n > 64)));
    }
}
