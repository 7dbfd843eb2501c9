//! Counter-based random numbers: a value is a pure function of where it is used.
//!
//! Philox 4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, DOI 10.1145/2063384.2063405):
//! 10 rounds for sampling and initialization; 7, the fewest that pass BigCrush there, for dropout masks, which are most of
//! the numbers drawn. Because nothing is drawn in sequence, they do not depend on ranks, packing, batch or threads.

/// The key of random numbers: seed, optimizer step, and site (one per layer and linear, or per request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngKey {
    pub seed: u64,
    pub step: u32,
    pub site: u32,
}

impl RngKey {
    /// Returns four random words for `(token, block)`; channel `c` uses word `c % 4` of block `c / 4`.
    pub fn words(&self, token: u32, block: u32) -> [u32; 4] {
        philox::<10, 1>([[block], [token], [self.site], [self.step]], self.seed).map(|[word]| word)
    }

    /// Returns eight 16-bit random numbers for `(token, block)`, those of a dropout mask: channel `c` uses number `c % 8`
    /// of block `c / 8`. The low half of a word comes first.
    #[inline]
    pub fn halves(&self, token: u32, block: u32) -> [u16; 8] {
        let [halves] = self.halves_of_blocks(token, block);
        halves
    }

    /// Returns [`RngKey::halves`] of the blocks from `first` on, side by side in vectors where the caller is compiled for
    /// them.
    #[inline(always)]
    pub fn halves_of_blocks<const BLOCKS: usize>(&self, token: u32, first: u32) -> [[u16; 8]; BLOCKS] {
        let mut blocks = [0; BLOCKS];
        blocks.iter_mut().zip(0..).for_each(|(block, i)| *block = first.wrapping_add(i));
        let same = |word: u32| [word; BLOCKS];
        let words = philox::<7, BLOCKS>([blocks, same(token), same(self.site), same(self.step)], self.seed);
        let mut halves = [[0; 8]; BLOCKS];
        for (i, halves) in halves.iter_mut().enumerate() {
            for (pair, words) in halves.chunks_exact_mut(2).zip(&words) {
                (pair[0], pair[1]) = (words[i] as u16, (words[i] >> 16) as u16);
            }
        }
        halves
    }

    /// Returns a uniform number in [0, 1) with 24 random bits.
    pub fn uniform(&self, token: u32, channel: u32) -> f32 {
        unit(self.words(token, channel / 4)[channel as usize % 4])
    }

    /// Returns a standard normal deviate (Box-Muller on two words of one block).
    pub fn normal(&self, token: u32, channel: u32) -> f32 {
        let words = self.words(token, channel / 2);
        let pair = 2 * (channel as usize % 2);
        let radius = (-2.0 * (1.0 - unit(words[pair]) as f64).ln()).sqrt();
        (radius * (std::f64::consts::TAU * unit(words[pair + 1]) as f64).cos()) as f32
    }
}

/// Converts the top 24 bits of `word` to a number in [0, 1).
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Philox of `LANES` counters at once, word by word.
#[inline(always)]
fn philox<const ROUNDS: usize, const LANES: usize>(
    mut counter: [[u32; LANES]; 4],
    seed: u64,
) -> [[u32; LANES]; 4] {
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..ROUNDS {
        let [c0, c1, c2, c3] = counter;
        for i in 0..LANES {
            let a = 0xD251_1F53u64 * c0[i] as u64;
            let b = 0xCD9E_8D57u64 * c2[i] as u64;
            counter[0][i] = (b >> 32) as u32 ^ c1[i] ^ k0;
            counter[1][i] = b as u32;
            counter[2][i] = (a >> 32) as u32 ^ c3[i] ^ k1;
            counter[3][i] = a as u32;
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    /// The known-answer vectors of the Random123 distribution.
    #[test]
    fn philox_gives_the_published_vectors() {
        fn of<const ROUNDS: usize>(counter: [u32; 4], seed: u64) -> [u32; 4] {
            philox::<ROUNDS, 1>(counter.map(|word| [word]), seed).map(|[word]| word)
        }
        let (ones, ones_key) = ([u32::MAX; 4], u64::MAX);
        let (pi, pi_key) = ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], 0x299f31d0_a4093822);
        assert_eq!(of::<10>([0; 4], 0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(of::<10>(ones, ones_key), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(of::<10>(pi, pi_key), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
        assert_eq!(of::<7>([0; 4], 0), [0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48]);
        assert_eq!(of::<7>(ones, ones_key), [0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662]);
        assert_eq!(of::<7>(pi, pi_key), [0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a]);
    }

    #[test]
    fn halves_are_those_of_the_words_low_half_first() {
        let key = RngKey { seed: u64::MAX, step: u32::MAX, site: u32::MAX };
        let halves = [0xddc2, 0x5207, 0x5e59, 0x4516, 0xe751, 0x4d8e, 0xf662, 0x8c52];
        assert_eq!(key.halves(u32::MAX, u32::MAX), halves);
        assert_eq!(key.halves_of_blocks::<3>(u32::MAX, u32::MAX - 1)[1], halves);
        let both = [key.halves(5, u32::MAX), key.halves(5, 0)];
        assert_eq!(key.halves_of_blocks::<2>(5, u32::MAX), both);
    }

    #[test]
    fn normal_deviates_have_mean_zero_and_variance_one() {
        let key = RngKey { seed: 7, step: 0, site: 0 };
        let draws: Vec<f64> = (0..20_000).map(|i| key.normal(i / 100, i % 100) as f64).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / draws.len() as f64;
        assert_abs_diff_eq!(mean, 0.0, epsilon = 0.03);
        assert_abs_diff_eq!(variance, 1.0, epsilon = 0.05);
    }
}
