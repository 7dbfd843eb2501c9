//! Models measured on problems: progress bars, and differences between models.

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

/// Measures one model on one set of problems, with progress bars.
///
/// # Errors
/// Those of [`evaluate`].
pub fn measure(
    name: &str,
    model: &mut dyn Generator,
    problems: &[Problem],
    protocol: &Protocol,
    judge: &dyn Judge,
    folder: &Path,
    out: &Output,
) -> Result<ModelResult> {
    watched(name, out, |watch| evaluate(name, model, problems, protocol, judge, folder, watch))
}

/// Runs `work` with progress bars of what it reports.
///
/// # Errors
/// Those of `work`.
pub fn watched<T>(name: &str, out: &Output, work: impl FnOnce(&dyn Progress) -> Result<T>) -> Result<T> {
    let watch = Bars { name: name.into(), out, bars: Mutex::default() };
    let result = work(&watch);
    watch.finish();
    result
}

/// The pairs of models that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Each with the one before it, of which it is a further step, and with the first.
    Steps,
    /// Each with the first.
    WithFirst,
}

/// Puts results of models on the same problems together, with their differences.
///
/// # Errors
/// When two results are not of the same problems under the same protocol.
pub fn problem_set(name: &str, results: Vec<ModelResult>, pairs: Pairs) -> Result<ProblemSet> {
    let mut differences = Vec::new();
    for (i, to) in results.iter().enumerate().skip(1) {
        for from in if i > 1 && pairs == Pairs::Steps { vec![i - 1, 0] } else { vec![0] } {
            let from = &results[from];
            differences.push(ModelComparison {
                from: from.name.clone(),
                to: to.name.clone(),
                difference: to.difference_from(from)?,
            });
        }
    }
    Ok(ProblemSet { name: name.into(), results, differences })
}

/// Two bars: problems answered, programs judged.
struct Bars<'a> {
    name: String,
    out: &'a Output,
    bars: Mutex<[Option<Bar>; 2]>,
}

impl Bars<'_> {
    fn at(&self, index: usize, verb: &str, done: usize, of: usize) {
        let mut bars = self.bars.lock().unwrap_or_else(|e| e.into_inner());
        let bar = bars[index].get_or_insert_with(|| self.out.bar(&format!("{verb} {}", self.name), of));
        bar.at(done, "");
        if done == of {
            bar.finish();
        }
    }

    fn finish(&self) {
        let bars = self.bars.lock().unwrap_or_else(|e| e.into_inner());
        bars.iter().flatten().for_each(Bar::finish);
    }
}

impl Progress for Bars<'_> {
    fn generated(&self, problems: usize, of: usize) {
        self.at(0, "answer", problems, of);
    }
    fn judged(&self, programs: usize, of: usize) {
        self.at(1, "judge", programs, of);
    }
}
