//! The filters of rows, from a source or from a teacher: sizes, secrets, benchmark problems.

use crate::benchmark::{Benchmark, BenchmarkMatch};
use crate::counts::FoundSecret;
use crate::extract::Item;
use crate::fingerprint::tokenize;
use crate::language::Language;
use crate::options::{CurateOptions, RowLimits};
use crate::secrets::SecretRules;
use crate::source::SourceFile;
use codelsi_engine::Result;
use codelsi_model::tokenizer::Tokenizer;

/// The filters that every row goes through.
pub struct Filters {
    pub limits: RowLimits,
    benchmark: Benchmark,
    tokenizer: Option<Tokenizer>,
    pub secret_rules: SecretRules,
}

impl Filters {
    /// Reads the benchmark problems, the tokenizer and the secret rules.
    ///
    /// # Errors
    /// A problem file, a tokenizer or a rule file that cannot be read or is malformed.
    pub fn open(options: &CurateOptions) -> Result<Filters> {
        let tokenizer = options.tokenizer.as_ref().map(Tokenizer::load).transpose()?;
        Ok(Filters {
            limits: options.limits.clone(),
            benchmark: Benchmark::read(&options.against)?,
            tokenizer,
            secret_rules: SecretRules::open(options.secret_rules.as_deref())?,
        })
    }

    /// True if rows are measured in the tokens of a model.
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The reason to drop code for its size, if there is one.
    pub fn check_size(&self, code: &str) -> Option<&'static str> {
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

    /// The reason to drop code of which `commented` characters are comments, if that is too large a share.
    pub fn check_comments(&self, code: &str, commented: usize) -> Option<&'static str> {
        (100 * commented > self.limits.max_commented * code.chars().count()).then_some("comment-heavy")
    }

    /// Measures a row: tokens of instruction and answer with a tokenizer, else lexical tokens of the answer.
    ///
    /// # Errors
    /// `too-many-tokens`, or `unspellable` if the vocabulary of the tokenizer cannot encode it.
    pub fn measure(&self, instruction: &str, output: &str) -> Result<usize, &'static str> {
        let Some(tokenizer) = &self.tokenizer else {
            return Ok(tokenize(output).len());
        };
        let tokens = |text| tokenizer.encode(text, false).map(|ids| ids.len()).map_err(|_| "unspellable");
        let length = tokens(instruction)? + tokens(output)?;
        if length > self.limits.max_tokens { Err("too-many-tokens") } else { Ok(length) }
    }

    /// The benchmark problem that `code`, which defines `name`, or `text` about it repeats, if any.
    pub fn benchmark_match(
        &self,
        language: Language,
        name: &str,
        text: &str,
        code: &str,
    ) -> Option<BenchmarkMatch> {
        self.benchmark.find(language, name, text, code)
    }

    /// The benchmark problem whose signature `method` has, if any.
    pub fn benchmark_signature_match(&self, method: &Item) -> Option<BenchmarkMatch> {
        self.benchmark.find_signature(method.language, &method.name, &method.code)
    }

    /// The first secret in the texts of a row made of `lines` of a file.
    ///
    /// # Errors
    /// Line of the file that holds its text, or the first of `lines`.
    pub fn check_secrets(&self, texts: &[&str], at: RowPlace) -> Result<(), FoundSecret> {
        let found = texts.iter().find_map(|text| Some((*text, self.secret_rules.find(at.path, text)?)));
        let Some((text, secret)) = found else { return Ok(()) };
        let line = text[..secret.at].rsplit('\n').next().unwrap_or_default().len();
        let line = text[secret.at - line..].lines().next().unwrap_or_default().trim();
        let line_in_file = at.content.and_then(|content| content.lines().position(|l| l.contains(line)));
        Err(FoundSecret {
            path: at.path.to_string(),
            line: line_in_file.map_or(at.lines.0, |at| at + 1),
            name: at.name.to_string(),
            rule: secret.rule,
        })
    }
}

/// The place of a row in its file.
#[derive(Clone, Copy)]
pub struct RowPlace<'a> {
    pub path: &'a str,
    /// The text of the file, if it is at hand.
    pub content: Option<&'a str>,
    pub name: &'a str,
    /// First and last line of the item.
    pub lines: (usize, usize),
}

impl<'a> RowPlace<'a> {
    /// The place of an item.
    pub fn of(source: &'a SourceFile, item: &'a Item) -> RowPlace<'a> {
        RowPlace { path: &source.path, content: Some(&source.content), name: &item.name, lines: item.lines }
    }
}
