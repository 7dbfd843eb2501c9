//! How models are asked.

use codelsi_engine::Result;
use codelsi_eval::judge::Judge;
use codelsi_eval::problem::{Problem, read_problems};
use codelsi_eval::protocol::{PromptFormat, Protocol};
use std::path::Path;

/// How models are asked.
#[derive(Clone, Copy, Debug)]
pub struct ProtocolOptions {
    /// Samples a problem.
    pub n: usize,
    /// Softmax temperature; 0 is greedy.
    pub temperature: f32,
    /// Nucleus: the likeliest tokens that hold this probability together.
    pub top_p: f32,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// Seed of the sampling.
    pub seed: u64,
    pub prompt_format: PromptFormat,
    /// Measure on the first of the problems only.
    pub limit: Option<usize>,
}

impl ProtocolOptions {
    /// The protocol over `problems`, judged by `judge`.
    pub fn protocol(&self, problems: &[Problem], judge: &dyn Judge) -> Protocol {
        let (count, problems_hash) = Protocol::fingerprint_problems(problems);
        Protocol {
            format: self.prompt_format,
            temperature: self.temperature,
            top_p: self.top_p,
            samples: self.n,
            max_tokens: self.max_tokens,
            seed: self.seed,
            judge: judge.describe(),
            problems: count,
            problems_hash,
        }
    }

    /// The problems of a file, as many as are wanted.
    pub fn problems(&self, file: &Path) -> Result<Vec<Problem>> {
        let mut problems = read_problems(file)?;
        problems.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(problems)
    }
}
