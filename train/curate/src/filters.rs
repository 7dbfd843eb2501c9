//! What a row may be, whoever wrote it: sizes, no secrets, no benchmark problem.

use crate::benchmark::{Benchmark, Match};
use crate::extract::Item;
use crate::fingerprint::lex;
use crate::language::Language;
use crate::options::{Limits, Options};
use crate::secrets;
use codelsi_engine::Result;
use codelsi_model::tokenizer::Tokenizer;

/// The filters that every row goes through, offline or a teacher's.
pub struct Filters {
    pub limits: Limits,
    benchmark: Benchmark,
    tokenizer: Option<Tokenizer>,
}

impl Filters {
    /// Reads what the filters need.
    ///
    /// # Errors
    /// A problem file or a tokenizer that cannot be read or is malformed.
    pub fn open(options: &Options) -> Result<Filters> {
        let tokenizer = options.tokenizer.as_ref().map(Tokenizer::load).transpose()?;
        Ok(Filters {
            limits: options.limits.clone(),
            benchmark: Benchmark::read(&options.against)?,
            tokenizer,
        })
    }

    /// What is wrong with the size of an answer that is code.
    pub fn size(&self, code: &str) -> Option<&'static str> {
        let limits = &self.limits;
        let (chars, lines) = (code.chars().count(), code.lines().count());
        let longest = code.lines().map(str::len).max().unwrap_or(0);
        if chars < limits.min_chars || lines < limits.min_lines {
            return Some("too-short");
        }
        if chars > limits.max_chars || lines > limits.max_lines || longest > limits.max_line {
            return Some("too-long");
        }
        (chars > limits.max_mean_line * lines).then_some("minified")
    }

    /// Whether too much of a piece of code is comments, which take `commented` of its characters.
    pub fn comments(&self, code: &str, commented: usize) -> Option<&'static str> {
        (100 * commented > self.limits.max_commented * code.chars().count()).then_some("comment-heavy")
    }

    /// How long a row is: tokens of instruction and answer where there is a tokenizer, else lexical tokens of the answer.
    ///
    /// # Errors
    /// `too-many-tokens`, and `unspellable` where the tokenizer's vocabulary lacks something.
    pub fn length(&self, instruction: &str, output: &str) -> Result<usize, &'static str> {
        let Some(tokenizer) = &self.tokenizer else {
            return Ok(lex(output).len());
        };
        let tokens = |text| tokenizer.encode(text, false).map(|ids| ids.len()).map_err(|_| "unspellable");
        let length = tokens(instruction)? + tokens(output)?;
        if length > self.limits.max_tokens { Err("too-many-tokens") } else { Ok(length) }
    }

    /// Whether text about `code`, which defines `name`, or the code repeats a benchmark problem.
    pub fn repeats(&self, language: Language, name: &str, text: &str, code: &str) -> Option<Match> {
        self.benchmark.find(language, name, text, code)
    }

    /// The problem whose head a method has.
    pub fn repeats_by_head(&self, method: &Item) -> Option<Match> {
        self.benchmark.find_head(method.language, &method.name, &method.code)
    }
}

/// Whether any of the texts holds what a person would not want repeated.
pub fn secret(texts: &[&str]) -> Option<&'static str> {
    texts.iter().any(|text| secrets::holds_secret(text)).then_some("secret")
}
