//! Duplicates, exact and near, within and across repositories: MinHash over token n-grams (Broder, "On the resemblance and containment of
//! documents", 1997), candidates by bands of the signature, then the resemblance itself.

use crate::fingerprint::{grams, lex};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Tokens of an n-gram.
const TOKENS: usize = 5;
/// Two texts that share a band are compared: at a resemblance of 0.8 all but one in 10,000 pairs do.
const BANDS: usize = 16;
const ROWS: usize = 4;

/// A text's n-grams, and the least of them under each of many orders.
struct Sketch {
    grams: HashSet<u64>,
    least: [u64; BANDS * ROWS],
}

/// Code without any white space: what an exact duplicate shares with its original.
pub fn unspaced(code: &str) -> String {
    code.split_whitespace().collect()
}

/// For each text whether an earlier one that stays resembles it by `least` or more: the n-grams that both have, of all
/// that either has.
pub fn repeats(texts: &[&str], least: f64) -> Vec<bool> {
    let sketches: Vec<Sketch> = texts.par_iter().map(|text| sketch(text)).collect();
    let mut by_band: HashMap<(usize, &[u64]), Vec<usize>> = HashMap::new();
    let mut repeats = Vec::with_capacity(texts.len());
    for (i, sketch) in sketches.iter().enumerate() {
        let bands = || sketch.least.chunks_exact(ROWS).enumerate();
        let earlier: HashSet<usize> =
            bands().filter_map(|band| by_band.get(&band)).flatten().copied().collect();
        let repeat = earlier.into_iter().any(|j| resemblance(&sketches[j].grams, &sketch.grams) >= least);
        if !repeat {
            bands().for_each(|band| by_band.entry(band).or_default().push(i));
        }
        repeats.push(repeat);
    }
    repeats
}

fn sketch(text: &str) -> Sketch {
    let tokens = lex(text);
    let grams: HashSet<u64> = grams(&tokens, TOKENS.min(tokens.len().max(1)), |_| true).collect();
    let least =
        std::array::from_fn(|order| grams.iter().map(|&gram| mixed(gram, order as u64)).min().unwrap_or(0));
    Sketch { grams, least }
}

/// One of many orders of the hashes (the finalizer of SplitMix64).
fn mixed(gram: u64, order: u64) -> u64 {
    let mut x = gram ^ order.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn resemblance(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
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
    fn what_is_changed_in_a_few_places_repeats_the_first_and_other_code_does_not() {
        let first = program(["f", "x", "y"], 3);
        let edited = first.replace("Math.abs(x - 9)", "Math.round(x)").replace("function f", "function g");
        let reformatted = first.replace("\n  ", "\n\t\t").replace(" + ", "+");
        let other = program(["f", "x", "y"], 5);
        let unlike =
            "export const route = (path: string) => path.split('/').filter(Boolean).map(decodeURIComponent);";
        let texts = [first.as_str(), &other, &edited, unlike, &reformatted, &first];
        assert_eq!(repeats(&texts, 0.8), [false, false, true, false, true, true]);
        assert_eq!(repeats(&texts, 1.01), [false; 6]);
        assert_eq!(repeats(&["", "a", "a"], 0.8), [false, false, true]);
    }
}
