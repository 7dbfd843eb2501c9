//! Verbatim memorization: the longest run of tokens that a model's output shares with its training data.

use crate::extract::is_identifier_char;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Finds the longest run of tokens that a text of `written` shares with a text of `trained`. Returns its length and
/// text.
///
/// A token is an identifier or a single other character; white space does not count. A shared run contains shorter
/// shared runs, so bisection finds its length.
pub fn longest_shared_run(written: &[&str], trained: &[&str]) -> (usize, String) {
    let (written, trained) = (tokenize(written), tokenize(trained));
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

fn tokenize<'a>(texts: &[&'a str]) -> Vec<Vec<&'a str>> {
    let tokens = |text: &'a str| {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let end = if is_identifier_char(first) {
                rest.find(|c| !is_identifier_char(c)).unwrap_or(rest.len())
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
        let (n, run) = longest_shared_run(&["// sums\n  return  a+b;\n  }", "const b = 1;"], &trained);
        assert_eq!((n, run.as_str()), (6, "return a + b ; }"));
        assert_eq!(longest_shared_run(&["function add(a, b) { return a + b; }"], &trained).0, 14);
        // A run does not extend over two training texts.
        assert_eq!(longest_shared_run(&["let z; function"], &trained).0, 3);
        assert_eq!(longest_shared_run(&["δ"], &trained), (0, String::new()));
        assert_eq!(longest_shared_run(&[], &[]), (0, String::new()));
    }
}
