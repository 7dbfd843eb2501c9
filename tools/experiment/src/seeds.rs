//! One experiment with several seeds: a run for each, and one table with the variance within and between them.

use crate::stages::Experiment;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use codelsi_eval::report::Report;
use codelsi_eval::statistics::{AcrossSeeds, ConfidenceInterval, across_seeds};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// The results of one experiment with several seeds.
#[derive(Debug, Serialize)]
pub struct SeedTable {
    pub seeds: Vec<u64>,
    pub sets: Vec<SeedSet>,
}

/// One set of problems: Pass@1 of every model, and the paired differences.
#[derive(Debug, Serialize)]
pub struct SeedSet {
    pub name: String,
    pub models: Vec<SeedRow>,
    pub differences: Vec<SeedRow>,
}

/// A quantity with each seed.
#[derive(Debug, Serialize)]
pub struct SeedRow {
    pub name: String,
    pub estimates: Vec<ConfidenceInterval>,
    pub across: AcrossSeeds,
    /// Seeds in which the difference is significant by their own table's rule; `None` for a single model.
    pub significant: Option<usize>,
}

/// Runs an experiment with `count` seeds from `first`, each into a folder `seed-N` of `folder`; prints the table and writes
/// it there as `seeds.json` and `seeds.txt`.
///
/// # Errors
/// The first error of a run, or when a file cannot be written.
pub fn run(
    first: u64,
    count: usize,
    folder: &Path,
    experiment: impl Fn(u64, &Path) -> Result<Experiment>,
    run: impl Fn(&Experiment) -> Result<Report>,
) -> Result<SeedTable> {
    let seeds: Vec<u64> = (0..count as u64).map(|i| first.wrapping_add(i)).collect();
    let mut reports = Vec::with_capacity(count);
    for seed in &seeds {
        eprintln!("\n== seed {seed}");
        reports.push(run(&experiment(*seed, &folder.join(format!("seed-{seed}")))?)?);
    }
    let table = SeedTable::new(seeds, &reports);
    let json = serde_json::to_string_pretty(&table).map_err(|e| Error::new(e.to_string()))?;
    write_atomic(folder.join("seeds.json"), json.as_bytes())?;
    write_atomic(folder.join("seeds.txt"), table.render().as_bytes())?;
    println!("\n{}", table.render());
    Ok(table)
}

impl SeedTable {
    fn new(seeds: Vec<u64>, reports: &[Report]) -> Self {
        let problems = |report: &Report| -> Vec<String> {
            let results = report.sets.iter().flat_map(|set| &set.results);
            results.map(|result| result.protocol.problems_hash.clone()).collect()
        };
        let same_problems = reports.iter().all(|report| problems(report) == problems(&reports[0]));
        let row = |name: String, estimates: Vec<ConfidenceInterval>, significant| {
            let across = across_seeds(&estimates, same_problems);
            SeedRow { name, estimates, across, significant }
        };
        let sets = reports[0].sets.iter().enumerate().map(|(s, set)| {
            let of_seeds = || reports.iter().map(move |report| &report.sets[s]);
            let models = set.results.iter().enumerate().map(|(m, model)| {
                row(model.name.clone(), of_seeds().map(|set| set.results[m].interval()).collect(), None)
            });
            let differences = set.differences.iter().enumerate().map(|(d, difference)| {
                let significant = of_seeds().filter(|set| set.verdicts()[d].is_significant()).count();
                let estimates = of_seeds().map(|set| set.differences[d].difference.interval).collect();
                row(format!("{} - {}", difference.to, difference.from), estimates, Some(significant))
            });
            SeedSet { name: set.name.clone(), models: models.collect(), differences: differences.collect() }
        });
        SeedTable { sets: sets.collect(), seeds }
    }

    /// Renders the table as text. Percentages and points; within: the standard error of one seed; between: the standard
    /// deviation of the seeds beyond it.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let rows = || self.sets.iter().flat_map(|set| set.models.iter().chain(&set.differences));
        let width = rows().map(|row| row.name.chars().count() + 2).max().unwrap_or(0);
        for set in &self.sets {
            let _ = writeln!(text, "Pass@1 on {} with {} seeds", set.name, self.seeds.len());
            let _ = write!(text, "  {:<width$}", "seed");
            self.seeds.iter().for_each(|seed| text.push_str(&format!("{seed:>8}")));
            let _ = writeln!(text, "{:>8}  {:<18}{:>8}{:>8}", "mean", "95 % interval", "between", "within");
            for row in set.models.iter().chain(&set.differences) {
                let _ = write!(text, "  {:<width$}", row.name);
                let signed = row.significant.is_some();
                let number = |x: f64| match signed {
                    true => format!("{:+.1}", 100.0 * x),
                    false => format!("{:.1}", 100.0 * x),
                };
                row.estimates.iter().for_each(|e| text.push_str(&format!("{:>8}", number(e.value))));
                let AcrossSeeds { mean, between, within } = row.across;
                let interval = format!("[{}, {}]", number(mean.low), number(mean.high));
                let between = between.map_or("-".into(), |sd| format!("{:.1}", 100.0 * sd));
                let _ = write!(
                    text,
                    "{:>8}  {interval:<18}{between:>8}{:>8.1}",
                    number(mean.value),
                    100.0 * within
                );
                if let Some(significant) = row.significant {
                    let _ = write!(text, "   significant with {significant} of {}", self.seeds.len());
                }
                text.push('\n');
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{ModelPairs, problem_set};
    use codelsi_eval::evaluate::{ModelResult, ProblemResult};
    use codelsi_eval::failure_modes::FailureModes;
    use codelsi_eval::judge::StatusCounts;
    use codelsi_eval::protocol::{PromptFormat, Protocol};

    /// The result of a model that solves the first of 40 problems, with one sample each.
    fn result(name: &str, problems_hash: &str, solved: usize) -> ModelResult {
        let protocol = Protocol {
            format: PromptFormat::Completion,
            temperature: 0.2,
            top_p: 0.95,
            samples: 1,
            max_tokens: 8,
            seed: 1,
            judge: "embedded".into(),
            judge_choice: String::new(),
            problems: 40,
            problems_hash: problems_hash.into(),
            limited: Vec::new(),
        };
        let problem = |i: usize| ProblemResult {
            name: format!("p{i}"),
            samples: 1,
            correct: usize::from(i < solved),
            needs_node: 0,
            failure: None,
        };
        ModelResult {
            name: name.into(),
            pass_at_1: solved as f64 / 40.0,
            low: 0.0,
            high: 1.0,
            pass_at_10: None,
            problems: 40,
            samples: 40,
            statuses: StatusCounts::new(),
            exploits: 0,
            failure_modes: FailureModes::default(),
            verbatim: None,
            per_problem: (0..40).map(problem).collect(),
            protocol_hash: protocol.hash(),
            protocol,
            generate_seconds: 0.0,
            judge_seconds: 0.0,
        }
    }

    /// A report of two models that solve so many problems.
    fn report(problems_hash: &str, solved: [usize; 2]) -> Report {
        let results =
            vec![result("base", problems_hash, solved[0]), result("general", problems_hash, solved[1])];
        let set = problem_set("problems", results, ModelPairs::WithFirst).unwrap();
        Report { sets: vec![set], ..Report::default() }
    }

    #[test]
    fn a_table_shows_every_seed_and_tells_their_variance_apart() {
        let reports = [report("a", [4, 30]), report("b", [4, 7]), report("c", [4, 20])];
        let table = SeedTable::new(vec![7, 8, 9], &reports);
        let [base, general] = &table.sets[0].models[..] else { panic!("two models") };
        assert!((base.across.mean.value - 0.1).abs() < 1e-12 && base.across.between == Some(0.0), "{base:?}");
        assert!((general.across.mean.value - 0.475).abs() < 1e-12 && general.across.between.unwrap() > 0.2);
        let difference = &table.sets[0].differences[0];
        assert_eq!((difference.name.as_str(), difference.significant), ("general - base", Some(2)));
        let text = table.render();
        assert!(
            text.contains("75.0    17.5    50.0    47.5") && text.contains("significant with 2 of 3"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn seeds_over_the_same_problems_do_not_narrow_the_interval() {
        let width = |hashes: [&str; 3]| {
            let reports = hashes.map(|hash| report(hash, [4, 20]));
            SeedTable::new(vec![1, 2, 3], &reports).sets[0].models[1].across.mean.width()
        };
        assert!(width(["a", "a", "a"]) > 1.5 * width(["a", "b", "c"]));
    }
}
