//! Options of the evaluation protocol.

use codelsi_engine::{Error, Result};
use codelsi_eval::judge::Judge;
use codelsi_eval::problem::{Problem, read_problems};
use codelsi_eval::protocol::{PromptFormat, Protocol, check_sampling};
use std::path::Path;

/// Options of the evaluation protocol: prompts and sampling.
#[derive(Clone, Copy, Debug)]
pub struct ProtocolOptions {
    /// Samples per problem.
    pub n: usize,
    /// Softmax temperature; 0 is greedy.
    pub temperature: f32,
    /// Nucleus sampling: the smallest set of most likely tokens with at least this probability.
    pub top_p: f32,
    /// Maximum tokens per answer.
    pub max_tokens: usize,
    /// Seed of the sampling.
    pub seed: u64,
    pub prompt_format: PromptFormat,
    /// Number of problems, from the first; all by default.
    pub limit: Option<usize>,
}

impl ProtocolOptions {
    /// Refuses options under which nothing can be measured.
    ///
    /// # Errors
    /// When an option is outside its range; the error names it and its value.
    pub fn check(&self) -> Result<()> {
        match self.limit {
            Some(0) => Err(Error::new("a limit of 0 problems: at least 1 is needed")),
            _ => check_sampling(self.n, self.max_tokens, self.temperature, self.top_p),
        }
    }

    /// Returns the protocol over `problems`, judged by `judge`.
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
            judge_choice: judge.choice().to_string(),
            problems: count,
            problems_hash,
            limited: Vec::new(),
        }
    }

    /// Reads the problems of a file, up to the limit.
    ///
    /// # Errors
    /// When an option is outside its range, or the file cannot be read.
    pub fn read_problems(&self, file: &Path) -> Result<Vec<Problem>> {
        self.check()?;
        let mut problems = read_problems(file)?;
        problems.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(problems)
    }
}
