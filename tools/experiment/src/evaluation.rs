//! Evaluation of models on problems, with progress bars, and paired differences between models.

use crate::output::{Bar, Output};
use codelsi_engine::Result;
use codelsi_eval::evaluate::{ModelResult, evaluate};
use codelsi_eval::judge::Judge;
use codelsi_eval::problem::Problem;
use codelsi_eval::protocol::Protocol;
use codelsi_eval::report::{ModelComparison, ProblemSet};
use codelsi_eval::sampling::{Generator, Progress};
use std::path::Path;
use std::sync::Mutex;

/// Evaluates one model on one set of problems, with progress bars.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_model(
    name: &str,
    model: &mut dyn Generator,
    problems: &[Problem],
    protocol: &Protocol,
    judge: &dyn Judge,
    folder: &Path,
    out: &Output,
) -> Result<ModelResult> {
    let result = with_progress(name, out, |progress| {
        evaluate(name, model, problems, protocol, judge, folder, progress)
    })?;
    result.protocol.limits().iter().for_each(|limits| eprintln!("{name}: {limits}"));
    Ok(result)
}

/// Runs `work` with progress bars of generation and judging.
///
/// # Errors
/// Returns the error of `work`.
pub fn with_progress<T>(
    name: &str,
    out: &Output,
    work: impl FnOnce(&dyn Progress) -> Result<T>,
) -> Result<T> {
    let bars = Bars { name: name.into(), out, bars: Mutex::default() };
    let result = work(&bars);
    bars.finish();
    result
}

/// Pairs of models to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPairs {
    /// Each with the one before it, and with the first.
    PreviousAndFirst,
    /// Each with the first.
    WithFirst,
}

/// Collects the results of models on the same problems, with their paired differences.
///
/// # Errors
/// When two results are of different problems or protocols.
pub fn problem_set(name: &str, results: Vec<ModelResult>, pairs: ModelPairs) -> Result<ProblemSet> {
    let mut differences = Vec::new();
    for (i, to) in results.iter().enumerate().skip(1) {
        for j in if i > 1 && pairs == ModelPairs::PreviousAndFirst { vec![i - 1, 0] } else { vec![0] } {
            let from = &results[j];
            differences.push(ModelComparison {
                from: from.name.clone(),
                to: to.name.clone(),
                difference: to.difference_from(from)?,
            });
        }
    }
    Ok(ProblemSet { name: name.into(), results, differences })
}

/// Progress bars of generation and judging.
struct Bars<'a> {
    name: String,
    out: &'a Output,
    bars: Mutex<[Option<Bar>; 2]>,
}

impl Bars<'_> {
    fn update(&self, index: usize, verb: &str, done: usize, total: usize) {
        let mut bars = self.bars.lock().unwrap_or_else(|e| e.into_inner());
        let bar = bars[index].get_or_insert_with(|| self.out.bar(&format!("{verb} {}", self.name), total));
        bar.update(done, "");
        if done == total {
            bar.finish();
        }
    }

    fn finish(&self) {
        let bars = self.bars.lock().unwrap_or_else(|e| e.into_inner());
        bars.iter().flatten().for_each(Bar::finish);
    }
}

impl Progress for Bars<'_> {
    fn generated(&self, problems: usize, total: usize) {
        self.update(0, "answer", problems, total);
    }
    fn judged(&self, programs: usize, total: usize) {
        self.update(1, "judge", programs, total);
    }
}
