//! Evaluation of infilling: a model fills holes in files, whose text is known and was held out of training.
//!
//! Two metrics, neither of them a verdict: the share of samples that are the text that was there, and their edit
//! similarity with it, both without the white space at their ends.

use crate::protocol::{check_sampling, derive_seed};
use crate::run_folder::{check_model, check_unchanged};
use crate::sampling::{CompletionRequest, Generator, NamedRequest, Progress, draw_samples, fit_to_context};
use crate::statistics::{ConfidenceInterval, PairedDifference, paired_difference, proportion_interval};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{At, Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A hole and the text that was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfillRow {
    pub prefix: String,
    pub suffix: String,
    pub reference: String,
}

/// The sampling and the rows of an evaluation, which results that are compared share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InfillProtocol {
    /// Samples per row.
    pub samples: usize,
    pub temperature: f32,
    pub top_p: f32,
    pub max_tokens: usize,
    pub seed: u64,
    pub rows: usize,
    /// SHA-256 of the rows.
    pub rows_hash: String,
}

impl InfillProtocol {
    /// Completes the sampling settings of `self` by the rows.
    pub fn over(self, rows: &[InfillRow]) -> InfillProtocol {
        let mut hash = Sha256::new();
        for text in rows.iter().flat_map(|row| [&row.prefix, &row.suffix, &row.reference]) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        let rows_hash = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        InfillProtocol { rows: rows.len(), rows_hash, ..self }
    }
}

/// The result of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InfillResult {
    pub model: String,
    pub protocol: InfillProtocol,
    /// Rows whose prompts leave less room in the model's context than the protocol's `max_tokens`.
    pub limited: usize,
    /// Share of samples that equal the reference.
    pub exact_match: ConfidenceInterval,
    /// 1 − the edit distance in characters from the reference, divided by the length of the longer one: a mean.
    pub edit_similarity: ConfidenceInterval,
    /// Exact match and edit similarity of each row.
    pub per_row: Vec<(f64, f64)>,
}

impl InfillResult {
    /// Returns the paired differences of `self` from `base`: of exact match, and of edit similarity.
    ///
    /// # Errors
    /// When the two were measured under different protocols.
    pub fn difference_from(&self, base: &InfillResult) -> Result<[PairedDifference; 2]> {
        if self.protocol != base.protocol {
            return Err(Error::new(format!("{} and {} filled different holes", base.model, self.model)));
        }
        let of = |part: fn(&(f64, f64)) -> f64| {
            let [base, own] = [base, self].map(|r| r.per_row.iter().map(part).collect::<Vec<_>>());
            paired_difference(&base, &own, self.protocol.samples)
        };
        Ok([of(|row| row.0), of(|row| row.1)])
    }
}

/// Samples the text of every hole from `model` and measures it. Writes `protocol.json`, `samples.jsonl` and
/// `result.json` to `folder`.
///
/// # Errors
/// When the folder holds a run under another protocol or of another model, or when the model (which may not infill) or
/// the disk fails. The next call continues with the samples in `folder`.
pub fn evaluate_infilling(
    name: &str,
    model: &mut dyn Generator,
    rows: &[InfillRow],
    protocol: &InfillProtocol,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<InfillResult> {
    let InfillProtocol { samples, max_tokens, temperature, top_p, .. } = *protocol;
    check_sampling(samples, max_tokens, temperature, top_p)?;
    let names: Vec<String> = (0..rows.len()).map(|row| format!("row {row}")).collect();
    let named = |(name, row)| NamedRequest { name, request: request(name, row, protocol) };
    let mut requests: Vec<NamedRequest> = names.iter().map(String::as_str).zip(rows).map(named).collect();
    fit_to_context(model, &mut requests).at(name)?;
    check_unchanged(protocol, &folder.join("protocol.json"))?;
    check_model(model.fingerprint(), &folder.join("model.sha256"))?;
    let limited = requests.iter().filter(|named| named.request.max_tokens < max_tokens).count();
    let whole = |_, answer: &str| answer.to_owned();
    let drawn = draw_samples(model, &requests, &whole, &folder.join("samples.jsonl"), progress).at(name)?;
    let filled: Vec<&str> = drawn.iter().map(|sample| sample.completion.as_str()).collect();
    let per_row: Vec<(f64, f64)> = rows
        .par_iter()
        .zip(filled.par_chunks(samples))
        .map(|(row, filled)| {
            let mean = |score: fn(&str, &str) -> f64| {
                filled.iter().map(|text| score(text, &row.reference)).sum::<f64>() / filled.len() as f64
            };
            (mean(exact_match), mean(edit_similarity))
        })
        .collect();
    let interval = |part: fn(&(f64, f64)) -> f64| {
        proportion_interval(&per_row.iter().map(part).collect::<Vec<_>>(), samples)
    };
    let result = InfillResult {
        model: name.into(),
        protocol: protocol.clone(),
        limited,
        exact_match: interval(|row| row.0),
        edit_similarity: interval(|row| row.1),
        per_row,
    };
    let text = serde_json::to_string_pretty(&result).map_err(|e| Error::new(e.to_string()))?;
    write_atomic(folder.join("result.json"), text.as_bytes())?;
    Ok(result)
}

fn request(name: &str, row: &InfillRow, protocol: &InfillProtocol) -> CompletionRequest {
    CompletionRequest {
        prompt: row.prefix.clone(),
        suffix: Some(row.suffix.clone()),
        chat_template: false,
        message: None,
        n: protocol.samples,
        max_tokens: protocol.max_tokens,
        temperature: protocol.temperature,
        top_p: protocol.top_p,
        seed: derive_seed(protocol.seed, name),
        stop: Vec::new(),
    }
}

fn exact_match(text: &str, reference: &str) -> f64 {
    f64::from(u8::from(text.trim() == reference.trim()))
}

/// Returns 1 for equal texts and 0 for texts of which every character must be changed.
fn edit_similarity(text: &str, reference: &str) -> f64 {
    let [a, b]: [Vec<char>; 2] = [text, reference].map(|text| text.trim().chars().collect());
    match a.len().max(b.len()) {
        0 => 1.0,
        longer => 1.0 - edit_distance(&a, &b) as f64 / longer as f64,
    }
}

/// Returns the number of insertions, deletions and substitutions from `a` to `b` (Levenshtein).
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut distances: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut distances[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = distances[j + 1];
            distances[j + 1] = changed.min(diagonal + 1).min(distances[j] + 1);
        }
    }
    distances[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::ConstantGenerator;

    fn rows() -> Vec<InfillRow> {
        let row = |reference: &str| InfillRow {
            prefix: "f(".into(),
            suffix: ");".into(),
            reference: reference.into(),
        };
        vec![row("a, b"), row("a, c")]
    }

    fn measured(name: &str, texts: Vec<&'static str>, folder: &Path, seed: u64) -> Result<InfillResult> {
        let settings =
            InfillProtocol { samples: texts.len(), max_tokens: 8, seed, ..InfillProtocol::default() };
        let (rows, mut model) = (rows(), ConstantGenerator::new(texts));
        let protocol = InfillProtocol { top_p: 1.0, ..settings }.over(&rows);
        let result = evaluate_infilling(name, &mut model, &rows, &protocol, &folder.join(name), &());
        assert!(model.requests.iter().all(|request| request.suffix.as_deref() == Some(");")));
        result
    }

    #[test]
    fn exact_match_and_edit_similarity_are_means_over_rows() {
        let folder = tempfile::tempdir().unwrap();
        let base = measured("base", vec!["x", ""], folder.path(), 1).unwrap();
        let tuned = measured("tuned", vec!["a, b\n", "a, b"], folder.path(), 1).unwrap();
        assert_eq!((base.exact_match.value, base.edit_similarity.value), (0.0, 0.0));
        assert_eq!((tuned.exact_match.value, tuned.edit_similarity.value), (0.5, 0.875));
        assert_eq!(tuned.per_row, [(1.0, 1.0), (0.0, 0.75)]);
        assert!(tuned.exact_match.low < 0.5 && tuned.exact_match.high > 0.5);
        let [exact, similar] = tuned.difference_from(&base).unwrap();
        assert_eq!((exact.interval.value, similar.interval.value), (0.5, 0.875));
        assert!(tuned.difference_from(&InfillResult::default()).is_err());
    }

    #[test]
    fn a_run_goes_on_under_the_same_protocol_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = measured("m", vec!["a, b"], folder.path(), 1).unwrap();
        // The samples are kept: other answers are not asked for.
        assert_eq!(measured("m", vec!["x"], folder.path(), 1).unwrap(), first);
        let message = measured("m", vec!["x"], folder.path(), 2).unwrap_err().to_string();
        assert!(message.contains("another protocol (`seed` was 1 and is 2 now)"), "{message}");
        assert!(message.contains("protocol.json"), "{message}");
    }

    #[test]
    fn the_edit_distance_is_levenshteins() {
        for (a, b, distance) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("éa", "aé", 2), ("same", "same", 0)]
        {
            let [x, y]: [Vec<char>; 2] = [a, b].map(|text| text.chars().collect());
            assert_eq!((edit_distance(&x, &y), edit_distance(&y, &x)), (distance, distance), "{a} {b}");
        }
        assert_eq!(edit_similarity(" ", ""), 1.0);
    }
}
