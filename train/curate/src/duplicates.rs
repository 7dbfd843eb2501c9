//! Exact and near-duplicates, within and across repositories.
//!
//! Near-duplicates are found by MinHash over token n-grams (Broder, "On the resemblance and containment of documents",
//! 1997): bands of the signature give candidates, whose Jaccard similarity is then computed exactly.

use crate::fingerprint::{ngram_hashes, tokenize};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Tokens of an n-gram.
const NGRAM_TOKENS: usize = 5;
/// Two texts that share a band are compared; at a similarity of 0.8, all but one in 10,000 pairs share one.
const BANDS: usize = 16;
const ROWS_PER_BAND: usize = 4;

/// The n-grams of a text, and their minimum under each of many hash functions.
struct Sketch {
    ngrams: HashSet<u64>,
    min_hashes: [u64; BANDS * ROWS_PER_BAND],
}

/// Removes all white space; exact duplicates are compared in this form.
pub fn without_whitespace(code: &str) -> String {
    code.split_whitespace().collect()
}

/// Returns for each text whether its Jaccard similarity to an earlier text, which is not itself a duplicate, is
/// `threshold` or more.
pub fn near_duplicates(texts: &[&str], threshold: f64) -> Vec<bool> {
    let sketches: Vec<Sketch> = texts.par_iter().map(|text| Sketch::of(text)).collect();
    let mut by_band: HashMap<(usize, &[u64]), Vec<usize>> = HashMap::new();
    let mut duplicates = Vec::with_capacity(texts.len());
    for (i, sketch) in sketches.iter().enumerate() {
        let bands = || sketch.min_hashes.chunks_exact(ROWS_PER_BAND).enumerate();
        let earlier: HashSet<usize> =
            bands().filter_map(|band| by_band.get(&band)).flatten().copied().collect();
        let duplicate =
            earlier.into_iter().any(|j| jaccard(&sketches[j].ngrams, &sketch.ngrams) >= threshold);
        if !duplicate {
            bands().for_each(|band| by_band.entry(band).or_default().push(i));
        }
        duplicates.push(duplicate);
    }
    duplicates
}

impl Sketch {
    fn of(text: &str) -> Sketch {
        let tokens = tokenize(text);
        let n = NGRAM_TOKENS.min(tokens.len().max(1));
        let ngrams: HashSet<u64> = ngram_hashes(&tokens, n, |_| true).collect();
        let min_hash = |i| ngrams.iter().map(|&ngram| rehash(ngram, i as u64)).min().unwrap_or(0);
        Sketch { min_hashes: std::array::from_fn(min_hash), ngrams }
    }
}

/// Hash function number `i` of an n-gram (the finalizer of SplitMix64).
fn rehash(ngram: u64, i: u64) -> u64 {
    let mut x = ngram ^ i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let both = a.intersection(b).count();
    both as f64 / (a.len() + b.len() - both).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(names: [&str; 3], step: usize) -> String {
        let [f, x, y] = names;
        let lines = (0..40).map(|i| format!("  {x} += {y} * {} - Math.abs({x} - {});\n", i * step, i + step));
        format!("function {f}({x}: number, {y}: number) {{\n{}  return {x};\n}}", lines.collect::<String>())
    }

    #[test]
    fn small_edits_are_near_duplicates_and_other_code_is_not() {
        let first = program(["f", "x", "y"], 3);
        let edited = first.replace("Math.abs(x - 9)", "Math.round(x)").replace("function f", "function g");
        let reformatted = first.replace("\n  ", "\n\t\t").replace(" + ", "+");
        let other = program(["f", "x", "y"], 5);
        let unlike =
            "export const route = (path: string) => path.split('/').filter(Boolean).map(decodeURIComponent);";
        let texts = [first.as_str(), &other, &edited, unlike, &reformatted, &first];
        assert_eq!(near_duplicates(&texts, 0.8), [false, false, true, false, true, true]);
        assert_eq!(near_duplicates(&texts, 1.01), [false; 6]);
        assert_eq!(near_duplicates(&["", "a", "a"], 0.8), [false, false, true]);
    }
}
