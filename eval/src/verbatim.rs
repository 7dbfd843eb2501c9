//! How much of what a model writes it has by heart: the longest run of tokens that stands in its training data as well.

use crate::extract::is_name;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The longest run of tokens that a text of `written` shares with one of `trained`: how many, and what they are.
///
/// A token is a word or any other mark; white space does not count. A shared run holds shorter shared runs, so its length
/// is found by bisection.
pub fn longest(written: &[&str], trained: &[&str]) -> (usize, String) {
    let (written, trained) = (split(written), split(trained));
    let longest = written.iter().map(Vec::len).max().unwrap_or(0);
    let shares = |n: usize| -> Option<&[&str]> {
        let known: HashSet<u64> = trained.iter().flat_map(|text| text.windows(n)).map(hash).collect();
        written.iter().flat_map(|text| text.windows(n)).find(|run| known.contains(&hash(run)))
    };
    let (mut low, mut high, mut best) = (0, longest, None);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match shares(middle) {
            Some(run) => (low, best) = (middle, Some(run)),
            None => high = middle - 1,
        }
    }
    (low, best.unwrap_or_default().join(" "))
}

fn split<'a>(texts: &[&'a str]) -> Vec<Vec<&'a str>> {
    let tokens = |text: &'a str| {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let end = if is_name(first) {
                rest.find(|c| !is_name(c)).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            tokens.push(&rest[..end]);
            rest = rest[end..].trim_start();
        }
        tokens
    };
    texts.iter().map(|text| tokens(text)).collect()
}

fn hash(run: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_common_run_is_found_whatever_the_white_space() {
        let trained = ["const a = 1;", "function add(a, b) {\n  return a + b;\n}", "let z;"];
        let (n, run) = longest(&["// sums\n  return  a+b;\n  }", "const b = 1;"], &trained);
        assert_eq!((n, run.as_str()), (6, "return a + b ; }"));
        assert_eq!(longest(&["function add(a, b) { return a + b; }"], &trained).0, 14);
        // Two halves of a run in two texts are no run.
        assert_eq!(longest(&["let z; function"], &trained).0, 3);
        assert_eq!(longest(&["δ"], &trained), (0, String::new()));
        assert_eq!(longest(&[], &[]), (0, String::new()));
    }
}
