//! Training rows `{instruction, output}`, and their split into training and validation.

use codelsi_engine::rng::RngKey;
use codelsi_engine::{Error, Result};
use codelsi_model::jsonl;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// An instruction and the output that the model is to learn. Other keys of a line (provenance) are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub instruction: String,
    pub output: String,
}

/// Reads JSON Lines of examples, plain or `.gz`.
///
/// # Errors
/// A file that cannot be read, holds no row, or holds a malformed one; the message names file and line.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Example>> {
    jsonl::read(path)
}

/// Splits `rows` into `(training, validation)`, with `validation` rows drawn by `seed`; both parts keep the file's
/// order.
///
/// # Errors
/// When no row is left to train on.
pub fn split(rows: Vec<Example>, validation: usize, seed: u64) -> Result<(Vec<Example>, Vec<Example>)> {
    if validation >= rows.len() {
        return Err(Error::new(format!(
            "{validation} validation rows leave none of {} to train on; ask for fewer",
            rows.len()
        )));
    }
    let mut held_out = vec![false; rows.len()];
    for index in
        permutation(rows.len(), RngKey { seed, step: 0, site: SPLIT_SITE }).into_iter().take(validation)
    {
        held_out[index] = true;
    }
    let (validation, training): (Vec<_>, Vec<_>) =
        rows.into_iter().zip(held_out).partition(|(_, held)| *held);
    let rows_of = |part: Vec<(Example, bool)>| part.into_iter().map(|(row, _)| row).collect();
    Ok((rows_of(training), rows_of(validation)))
}

/// Returns at most `count` of the rows at even distances, in their order.
pub fn take_evenly<T>(rows: Vec<T>, count: usize) -> Vec<T> {
    let (all, count) = (rows.len(), count.min(rows.len()));
    let chosen = |i: usize| (i + 1) * count / all > i * count / all;
    rows.into_iter().enumerate().filter(|(i, _)| chosen(*i)).map(|(_, row)| row).collect()
}

/// Sites of the random numbers drawn here (see [`RngKey`]); layers and linears use small numbers.
const SPLIT_SITE: u32 = u32::MAX;
pub(crate) const ORDER_SITE: u32 = u32::MAX - 1;

/// A random permutation of `0..n`: the indices sorted by a random number drawn for each.
pub(crate) fn permutation(n: usize, key: RngKey) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_cached_key(|&i| (key.words(i as u32, 0), i));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize) -> Vec<Example> {
        (0..n).map(|i| Example { instruction: i.to_string(), output: String::new() }).collect()
    }

    #[test]
    fn spread_rows_keep_their_order_and_their_distance() {
        assert_eq!(take_evenly((0..10).collect(), 3), [3, 6, 9]);
        assert_eq!(take_evenly(vec![7, 8], 5), [7, 8]);
        assert!(take_evenly(vec![1, 2], 0).is_empty() && take_evenly(Vec::<u8>::new(), 3).is_empty());
    }

    #[test]
    fn the_split_is_a_partition_that_only_the_seed_decides() {
        let (train, held) = split(rows(40), 8, 42).unwrap();
        assert_eq!((train.len(), held.len()), (32, 8));
        let mut all: Vec<usize> = train.iter().chain(&held).map(|r| r.instruction.parse().unwrap()).collect();
        all.sort();
        assert_eq!(all, (0..40).collect::<Vec<_>>());
        assert_eq!(split(rows(40), 8, 42).unwrap(), (train, held.clone()));
        assert_ne!(split(rows(40), 8, 43).unwrap().1, held);
        assert!(split(rows(8), 8, 42).unwrap_err().to_string().contains("8 validation rows"));
    }

    #[test]
    fn a_row_without_an_output_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data.jsonl");
        std::fs::write(
            &file,
            "{\"instruction\":\"a\",\"output\":\"b\",\"repo\":\"c\"}\n{\"instruction\":\"a\"}\n",
        )
        .unwrap();
        let message = read(&file).unwrap_err().to_string();
        assert!(
            message.contains("data.jsonl: line 2") && message.contains("missing field `output`"),
            "{message}"
        );
    }
}
