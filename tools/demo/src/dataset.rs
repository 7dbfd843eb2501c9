//! Repositories and problems of one seed, decontaminated against each other and against the base model's training text.

use crate::chain::is_held_out_pair;
use crate::corpus::{self, GeneratedFile};
use crate::problems::{self, GeneratedProblem};
use crate::{recipe, sdk};
use codelsi_curate::{self as curate, Benchmark, BenchmarkProblem, Language};
use codelsi_engine::Result;
use codelsi_engine::files::write_atomic;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Candidates for the general problems. Most share a phrase and a signature with the base model's text, ten words in a row,
/// and are dropped.
const CANDIDATES: usize = 8 * recipe::GENERAL_PROBLEMS;

/// Data of a demo run.
pub struct DemoDataset {
    pub public: Vec<GeneratedFile>,
    pub private: Vec<GeneratedFile>,
    /// Compositions of the private repository's functions.
    private_compositions: Vec<String>,
    /// Problems over lists and texts, held out by the composition of their operations.
    pub general: Vec<GeneratedProblem>,
    /// Problems over the private library.
    pub private_problems: Vec<GeneratedProblem>,
}

/// Files that [`DemoDataset::write`] writes.
pub struct DatasetFiles {
    pub public: PathBuf,
    pub private: PathBuf,
    pub general_problems: PathBuf,
    pub private_problems: PathBuf,
}

impl DemoDataset {
    /// Generates the data of `seed`. The base model's text is the same for every seed; problems that it
    /// happens to repeat are dropped by the decontamination that real runs use.
    pub fn new(seed: u64) -> DemoDataset {
        let candidates = problems::general(seed, CANDIDATES);
        let base = corpus::base_text(recipe::BASE_SEED, recipe::BASE_FILES);
        let general = decontaminate(candidates, &base, recipe::GENERAL_PROBLEMS);
        let private_problems = sdk::problems(seed, recipe::PRIVATE_PROBLEMS);
        let benchmark = benchmark(general.iter().chain(&private_problems));
        let (private, private_compositions) =
            sdk::private_files(seed, recipe::PRIVATE_EXAMPLES, &private_problems, &benchmark);
        DemoDataset {
            public: corpus::public_files(seed, recipe::PUBLIC_FILES),
            private,
            private_compositions,
            general,
            private_problems,
        }
    }

    /// Describes the problems: lengths of their chains, and how many have a composition that is new.
    pub fn description(&self) -> String {
        let private: HashSet<&str> = self.private_compositions.iter().map(String::as_str).collect();
        let is_new = |problem: &&GeneratedProblem| !private.contains(problem.composition.as_str());
        // Text for the general stage never holds a held-out pair.
        let has_new_pair = |problem: &&GeneratedProblem| {
            let operations: Vec<&str> = problem.composition.split(' ').collect();
            operations.windows(2).any(|pair| is_held_out_pair(pair[0], pair[1]))
        };
        let (general, new_pairs) = (&self.general, self.general.iter().filter(has_new_pair).count());
        let (problems, new) = (&self.private_problems, self.private_problems.iter().filter(is_new).count());
        format!(
            "{} general problems: chains of {}; {} hold a pair of operations that no training text has\n\
             {} private problems: chains of {}; {} are compositions that no function of the private repository has ({} functions)",
            general.len(),
            lengths(general),
            share(new_pairs, general.len()),
            problems.len(),
            lengths(problems),
            share(new, problems.len()),
            private.len(),
        )
    }

    /// Writes four `.jsonl` files into `folder`, which must exist.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<DatasetFiles> {
        let paths = DatasetFiles {
            public: folder.join("public.jsonl"),
            private: folder.join("private.jsonl"),
            general_problems: folder.join("general-problems.jsonl"),
            private_problems: folder.join("private-problems.jsonl"),
        };
        write_lines(&paths.public, self.public.iter().map(GeneratedFile::json))?;
        write_lines(&paths.private, self.private.iter().map(GeneratedFile::json))?;
        write_lines(&paths.general_problems, self.general.iter().map(GeneratedProblem::json))?;
        write_lines(&paths.private_problems, self.private_problems.iter().map(GeneratedProblem::json))?;
        Ok(paths)
    }
}

/// Lists how many problems have chains of each length: `2 operations 30 %, 3 operations 70 %`.
fn lengths(problems: &[GeneratedProblem]) -> String {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for problem in problems {
        *counts.entry(problem.composition.split(' ').count()).or_default() += 1;
    }
    let list =
        counts.into_iter().map(|(length, n)| format!("{length} operations {}", share(n, problems.len())));
    list.collect::<Vec<_>>().join(", ")
}

fn share(n: usize, of: usize) -> String {
    format!("{:.0} %", 100.0 * n as f64 / of.max(1) as f64)
}

/// Writes a JSON Lines file.
///
/// # Errors
/// When the file cannot be written.
pub fn write_lines(path: &Path, lines: impl Iterator<Item = Json>) -> Result<()> {
    let text: String = lines.map(|line| line.to_string() + "\n").collect();
    write_atomic(path, text.as_bytes())
}

fn benchmark<'a>(problems: impl Iterator<Item = &'a GeneratedProblem>) -> Benchmark {
    Benchmark::new(&problems.map(benchmark_problem).collect::<Vec<_>>())
}

fn benchmark_problem(problem: &GeneratedProblem) -> BenchmarkProblem {
    BenchmarkProblem {
        name: problem.name.clone(),
        prompt: problem.prompt.clone(),
        tests: problem.tests.clone(),
        ..BenchmarkProblem::default()
    }
}

/// Returns the first `count` problems of which no part of `texts` repeats words or examples.
fn decontaminate(problems: Vec<GeneratedProblem>, texts: &[String], count: usize) -> Vec<GeneratedProblem> {
    let candidates: Vec<BenchmarkProblem> = problems.iter().map(benchmark_problem).collect();
    let parts: Vec<&str> = texts.iter().flat_map(|text| text.split("\n\n")).collect();
    let repeated = curate::problems_in(&candidates, &parts, Language::TypeScript);
    let clean = problems.into_iter().enumerate().filter(|(i, _)| !repeated.contains(i));
    clean.map(|(_, problem)| problem).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the name of a problem that a piece of code repeats.
    fn repeated_problem(part: &str, benchmark: &Benchmark) -> Option<String> {
        benchmark.find(Language::TypeScript, function_name(part), part, part).map(|found| found.problem)
    }

    /// Returns the name after the first `function` of a piece of code, or an empty string.
    fn function_name(code: &str) -> &str {
        code.split_once("function ").map_or("", |(_, rest)| rest.split('(').next().unwrap_or(""))
    }

    #[test]
    fn a_seed_decides_the_dataset() {
        let files = |w: &DemoDataset| {
            w.public.iter().chain(&w.private).map(|f| f.content.clone()).collect::<Vec<_>>()
        };
        let prompts = |w: &DemoDataset| {
            w.general.iter().chain(&w.private_problems).map(|p| p.prompt.clone()).collect::<Vec<_>>()
        };
        let (a, b, c) = (DemoDataset::new(7), DemoDataset::new(7), DemoDataset::new(8));
        assert_eq!((files(&a), prompts(&a)), (files(&b), prompts(&b)));
        assert_ne!(files(&a), files(&c));
        assert_ne!(prompts(&a), prompts(&c));
    }

    #[test]
    fn problems_are_new_compositions_that_no_training_text_repeats() {
        let data = DemoDataset::new(1);
        assert_eq!(data.general.len(), recipe::GENERAL_PROBLEMS);
        assert_eq!(data.private_problems.len(), recipe::PRIVATE_PROBLEMS);
        let description = data.description();
        assert_eq!(description.matches("100 % ").count(), 2, "{description}");
        let mut compositions = HashSet::new();
        for problem in data.general.iter().chain(&data.private_problems) {
            let operations: Vec<&str> = problem.composition.split(' ').collect();
            // The private library has too few methods to hold out pairs: only the whole composition is new.
            let is_private = problem.name.starts_with("Private");
            assert!(
                is_private || operations.windows(2).any(|p| is_held_out_pair(p[0], p[1])),
                "{}",
                problem.composition
            );
            assert!(compositions.insert(&problem.composition), "{} twice", problem.composition);
        }
        let base = corpus::base_text(recipe::BASE_SEED, recipe::BASE_FILES);
        let all = benchmark(data.general.iter().chain(&data.private_problems));
        let seen = base.iter().flat_map(|t| t.split("\n\n")).find_map(|part| repeated_problem(part, &all));
        assert_eq!(seen, None);
    }

    #[test]
    fn curation_keeps_every_private_example_and_most_public_ones() {
        let folder = tempfile::tempdir().unwrap();
        let paths = DemoDataset::new(1).write(folder.path()).unwrap();
        let curated = |path: &Path| {
            let options = curate::CurateOptions {
                paths: vec![path.to_path_buf()],
                against: vec![paths.general_problems.clone(), paths.private_problems.clone()],
                ..Default::default()
            };
            curate::run(&options, &|_, _| ()).unwrap()
        };
        assert_eq!(curated(&paths.private).0.len(), recipe::PRIVATE_EXAMPLES);
        let (rows, counts) = curated(&paths.public);
        assert!(rows.len() > 2000, "{counts:?}");
        for reason in ["syntax", "no-comment", "too-long", "duplicate"] {
            assert!(counts.dropped.contains_key(reason), "nothing was dropped as {reason}: {counts:?}");
        }
    }
}
