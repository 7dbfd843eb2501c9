//! Repositories and problems of one seed, kept apart from each other and from what the base model has read.

use crate::corpus::{self, SourceFile};
use crate::problems::{self, Problem};
use crate::{recipe, sdk};
use codelsi_curate::{self as curate, Benchmark, Language};
use codelsi_engine::Result;
use codelsi_engine::files::write_atomic;
use rayon::prelude::*;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// What a run of the demo reads.
pub struct World {
    pub public: Vec<SourceFile>,
    pub private: Vec<SourceFile>,
    /// Over lists and texts, held out by the composition of their operations.
    pub general: Vec<Problem>,
    /// Over the private library.
    pub private_problems: Vec<Problem>,
}

/// Files that [`World::write`] writes.
pub struct WorldFiles {
    pub public: PathBuf,
    pub private: PathBuf,
    pub general_problems: PathBuf,
    pub private_problems: PathBuf,
}

impl World {
    /// The world of `seed`, with that many examples of the private library; more of them begin with the same. The base model's text is the same for every seed; problems that it repeats by accident
    /// are left out, by the decontamination that real runs use.
    pub fn new(seed: u64, examples: usize) -> World {
        let drawn = problems::general(seed, recipe::GENERAL_PROBLEMS * 3 / 2);
        let base = corpus::base_text(recipe::BASE_SEED, recipe::BASE_FILES);
        let general: Vec<Problem> = unseen(drawn, &base).into_iter().take(recipe::GENERAL_PROBLEMS).collect();
        let private_problems = sdk::problems(seed, recipe::PRIVATE_PROBLEMS);
        let benchmark = benchmark(general.iter().chain(&private_problems));
        World {
            public: corpus::public_files(seed, recipe::PUBLIC_FILES),
            private: sdk::private_files(seed, examples, &private_problems, &benchmark),
            general,
            private_problems,
        }
    }

    /// Writes four `.jsonl` files into `folder`, which must exist.
    pub fn write(&self, folder: &Path) -> Result<WorldFiles> {
        let paths = WorldFiles {
            public: folder.join("public.jsonl"),
            private: folder.join("private.jsonl"),
            general_problems: folder.join("general-problems.jsonl"),
            private_problems: folder.join("private-problems.jsonl"),
        };
        write_lines(&paths.public, self.public.iter().map(SourceFile::json))?;
        write_lines(&paths.private, self.private.iter().map(SourceFile::json))?;
        write_lines(&paths.general_problems, self.general.iter().map(Problem::json))?;
        write_lines(&paths.private_problems, self.private_problems.iter().map(Problem::json))?;
        Ok(paths)
    }
}

/// Writes JSON Lines.
pub fn write_lines(path: &Path, lines: impl Iterator<Item = Json>) -> Result<()> {
    let text: String = lines.map(|line| line.to_string() + "\n").collect();
    write_atomic(path, text.as_bytes())
}

fn benchmark<'a>(problems: impl Iterator<Item = &'a Problem>) -> Benchmark {
    let plain = |p: &Problem| curate::BenchmarkProblem {
        name: p.name.clone(),
        prompt: p.prompt.clone(),
        tests: p.tests.clone(),
        ..curate::BenchmarkProblem::default()
    };
    Benchmark::new(&problems.map(plain).collect::<Vec<_>>())
}

/// Whether a piece of code repeats a problem.
fn repeats(part: &str, benchmark: &Benchmark) -> bool {
    benchmark.find(Language::TypeScript, function_name(part), part, part).is_some()
}

/// The problems that no part of `texts` repeats.
fn unseen(problems: Vec<Problem>, texts: &[String]) -> Vec<Problem> {
    let all = benchmark(problems.iter());
    let suspects: Vec<&str> = texts
        .par_iter()
        .flat_map_iter(|text| text.split("\n\n"))
        .filter(|part| repeats(part, &all))
        .collect();
    let is_unseen = |problem: &Problem| {
        let alone = benchmark([problem].into_iter());
        !suspects.iter().any(|part| repeats(part, &alone))
    };
    problems.into_iter().filter(is_unseen).collect()
}

/// The name after the first `function` of a piece of code; empty if there is none.
fn function_name(code: &str) -> &str {
    code.split_once("function ").map_or("", |(_, rest)| rest.split('(').next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::held_out;
    use std::collections::HashSet;

    fn world(seed: u64) -> World {
        World::new(seed, recipe::PRIVATE_EXAMPLES)
    }

    #[test]
    fn a_world_is_its_seed() {
        let files =
            |w: &World| w.public.iter().chain(&w.private).map(|f| f.content.clone()).collect::<Vec<_>>();
        let prompts = |w: &World| {
            w.general.iter().chain(&w.private_problems).map(|p| p.prompt.clone()).collect::<Vec<_>>()
        };
        let (a, b, c) = (world(7), world(7), world(8));
        assert_eq!((files(&a), prompts(&a)), (files(&b), prompts(&b)));
        assert_ne!(files(&a), files(&c));
        assert_ne!(prompts(&a), prompts(&c));
        let more = World::new(7, 2 * recipe::PRIVATE_EXAMPLES);
        assert_eq!((files(&more)[..files(&a).len()].to_vec(), prompts(&more)), (files(&a), prompts(&a)));
        assert_eq!(files(&more).len(), files(&a).len() + recipe::PRIVATE_EXAMPLES);
    }

    #[test]
    fn problems_are_new_compositions_that_no_training_text_repeats() {
        let world = world(1);
        assert_eq!(world.general.len(), recipe::GENERAL_PROBLEMS);
        assert_eq!(world.private_problems.len(), recipe::PRIVATE_PROBLEMS);
        let mut compositions = HashSet::new();
        for problem in world.general.iter().chain(&world.private_problems) {
            let operations: Vec<&str> = problem.composition.split(' ').collect();
            // Private problems are new as a whole: the private library has too few methods to spare a pair.
            let whole = problem.name.starts_with("Private");
            assert!(whole || operations.windows(2).any(|p| held_out(p[0], p[1])), "{}", problem.composition);
            assert!(compositions.insert(&problem.composition), "{} twice", problem.composition);
        }
        let base = corpus::base_text(recipe::BASE_SEED, recipe::BASE_FILES);
        let all = benchmark(world.general.iter().chain(&world.private_problems));
        let seen = base.iter().flat_map(|t| t.split("\n\n")).find(|part| repeats(part, &all));
        assert_eq!(seen, None);
    }

    #[test]
    fn curation_keeps_forty_private_rows_and_most_public_ones() {
        let folder = tempfile::tempdir().unwrap();
        let paths = world(1).write(folder.path()).unwrap();
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
