//! Evaluation on private code that cannot be executed alone: the model answers rows that were held out of training,
//! and its answers are parsed.
//!
//! Three metrics, none of them a verdict: the share of answers that parse; the share of the private library's names
//! in the reference code that the answer uses too; and the share of answers that call a method that neither the
//! private sources nor the language's library declare. The trainer measures the perplexity of the reference code.

use crate::deep_stack::with_stack_for;
use crate::extract::is_identifier_char;
use crate::failure_modes::unknown_methods;
use crate::protocol::derive_seed;
use crate::sampling::{
    CompletionRequest, Generator, NamedRequest, Progress, Sample, draw_samples, fit_to_context,
};
use crate::statistics::{ConfidenceInterval, PairedDifference, paired_difference, proportion_interval};
use codelsi_engine::{At, Error, Result};
use codelsi_model::template::PromptTemplate;
use oxc_allocator::Allocator;
use oxc_parser::Parser;
use oxc_span::SourceType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// A row that was held out of all training stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOutRow {
    /// Unique among the rows.
    pub name: String,
    pub instruction: String,
    /// The code of the repository.
    pub reference: String,
}

/// The names of a private library.
#[derive(Clone, Debug, Default)]
pub struct PrivateLibrary {
    /// Names that it exports.
    pub names: BTreeSet<String>,
    /// All identifiers of its sources; a method among them is not an invented one.
    pub identifiers: BTreeSet<String>,
}

/// The prompt template and sampling settings of an evaluation on held-out rows.
#[derive(Clone, Copy, Debug)]
pub struct HeldOutProtocol {
    pub template: PromptTemplate,
    /// Answers per row.
    pub n: usize,
    pub temperature: f32,
    pub top_p: f32,
    pub max_tokens: usize,
    pub seed: u64,
}

/// The result of one model on the rows of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeldOutResult {
    pub model: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of answers.
    pub answers: usize,
    /// Rows whose prompts leave less room in the model's context than an answer may take.
    #[serde(default)]
    pub limited: usize,
    /// Share of answers that parse.
    pub valid: ConfidenceInterval,
    /// Share of the library's names in the reference code, without those in the instruction, that the answer uses: a
    /// mean over rows. `None` if no row uses such a name.
    pub names: Option<ConfidenceInterval>,
    /// Share of answers that call an undeclared method.
    pub invented: ConfidenceInterval,
    /// exp of the mean loss over the tokens of the reference code, if the trainer has measured it.
    pub perplexity: Option<f64>,
    /// Length and text of the longest run of tokens that the answers share with the training data.
    pub verbatim: Option<(usize, String)>,
    /// The values of `valid` and `names` by row.
    pub per_row: Vec<(f64, Option<f64>)>,
}

impl HeldOutResult {
    /// Returns the paired differences of `self` from `base`: of answers that parse, and of names used.
    ///
    /// # Errors
    /// When the two were measured on different rows.
    pub fn difference_from(
        &self,
        base: &HeldOutResult,
    ) -> Result<(PairedDifference, Option<PairedDifference>)> {
        let named = |r: &HeldOutResult| r.per_row.iter().map(|row| row.1.is_some()).collect::<Vec<_>>();
        if named(self) != named(base) {
            return Err(Error::new(format!("{} and {} answered different rows", base.model, self.model)));
        }
        let samples = self.answers / self.rows.max(1);
        let valid = |r: &HeldOutResult| r.per_row.iter().map(|row| row.0).collect::<Vec<_>>();
        let names = |r: &HeldOutResult| r.per_row.iter().filter_map(|row| row.1).collect::<Vec<_>>();
        let names_difference =
            (!names(self).is_empty()).then(|| paired_difference(&names(base), &names(self), samples));
        Ok((paired_difference(&valid(base), &valid(self), samples), names_difference))
    }
}

/// Samples answers to `rows` from `model` and measures them. Also returns the code of every answer. The answers are
/// saved in the file `samples`.
///
/// # Errors
/// When the model or the disk fails. The next call continues with the answers in `samples`.
pub fn evaluate_held_out(
    name: &str,
    model: &mut dyn Generator,
    rows: &[HeldOutRow],
    library: &PrivateLibrary,
    sampling: HeldOutProtocol,
    samples: &Path,
    progress: &dyn Progress,
) -> Result<(HeldOutResult, Vec<String>)> {
    let mut requests: Vec<NamedRequest> =
        rows.iter().map(|row| NamedRequest { name: &row.name, request: request(row, sampling) }).collect();
    fit_to_context(model, &mut requests).at(name)?;
    let limited = requests.iter().filter(|named| named.request.max_tokens < sampling.max_tokens).count();
    let extract = |_, answer: &str| code_block(answer).to_owned();
    let drawn = draw_samples(model, &requests, &extract, samples, progress).at(name)?;
    let codes: Vec<String> = drawn.into_iter().map(|Sample { completion, .. }| completion).collect();
    let (mut per_row, mut invented) = (Vec::new(), Vec::new());
    for (row, answers) in rows.iter().zip(codes.chunks(sampling.n)) {
        let share = |holds: &dyn Fn(&String) -> bool| {
            answers.iter().filter(|a| holds(a)).count() as f64 / answers.len() as f64
        };
        per_row.push((share(&|a| parses(a)), share_of_names_used(row, answers, library)));
        invented.push(share(&|a| !unknown_methods(&as_program(a), &library.identifiers).is_empty()));
    }
    let names: Vec<f64> = per_row.iter().filter_map(|row| row.1).collect();
    let result = HeldOutResult {
        model: name.into(),
        rows: rows.len(),
        answers: codes.len(),
        limited,
        valid: proportion_interval(&per_row.iter().map(|row| row.0).collect::<Vec<_>>(), sampling.n),
        names: (!names.is_empty()).then(|| proportion_interval(&names, sampling.n)),
        invented: proportion_interval(&invented, sampling.n),
        perplexity: None,
        verbatim: None,
        per_row,
    };
    Ok((result, codes))
}

fn request(row: &HeldOutRow, sampling: HeldOutProtocol) -> CompletionRequest {
    CompletionRequest {
        prompt: sampling.template.wrap(&row.instruction),
        suffix: None,
        chat_template: sampling.template == PromptTemplate::Chat,
        message: Some(row.instruction.clone()),
        n: sampling.n,
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        seed: derive_seed(sampling.seed, &row.name),
        stop: Vec::new(),
    }
}

/// Returns the first fenced block of an answer, or the whole answer if it has none.
fn code_block(answer: &str) -> &str {
    let Some((_, block)) = answer.split_once("```") else { return answer };
    let block = block.split_once('\n').map_or(block, |(_, code)| code);
    block.split("```").next().unwrap_or(block)
}

/// Returns true if a piece of code is a program or a member of a class.
fn parses(code: &str) -> bool {
    !code.trim().is_empty() && (is_program(code) || is_program(&in_class(code)))
}

/// Returns a piece of code as a program: itself, or a class with it as a member.
fn as_program(code: &str) -> String {
    if is_program(code) { code.to_owned() } else { in_class(code) }
}

fn in_class(code: &str) -> String {
    format!("class _ {{\n{code}\n}}")
}

/// Returns whether code parses; code that is too long to examine does not.
fn is_program(code: &str) -> bool {
    let parses = || Parser::new(&Allocator::default(), code, SourceType::ts()).parse().diagnostics.is_empty();
    with_stack_for(code, parses).unwrap_or(false)
}

/// Returns the mean share of the library's names in the reference code, without those in the instruction, that an
/// answer uses.
fn share_of_names_used(row: &HeldOutRow, answers: &[String], library: &PrivateLibrary) -> Option<f64> {
    let given = identifiers(&row.instruction);
    let expected: BTreeSet<String> = identifiers(&without_comments(&row.reference))
        .into_iter()
        .filter(|word| library.names.contains(word) && !given.contains(word))
        .collect();
    let share = |answer: &String| {
        expected.intersection(&identifiers(&without_comments(answer))).count() as f64 / expected.len() as f64
    };
    (!expected.is_empty()).then(|| answers.iter().map(share).sum::<f64>() / answers.len() as f64)
}

/// Returns every identifier-like word of a text.
pub fn identifiers(text: &str) -> BTreeSet<String> {
    text.split(|c| !is_identifier_char(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Removes comments without a parser, since answers may not parse: approximate in strings.
fn without_comments(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::new();
    while let Some(at) = rest.find("/*") {
        kept.push_str(&rest[..at]);
        rest = rest[at..].split_once("*/").map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    let lines = kept.lines().map(|line| match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::ConstantGenerator;
    use approx::assert_abs_diff_eq;

    const REFERENCE: &str =
        "async send(id: string) {\n  // then close\n  return this.client.post(new Mail(id));\n}";

    fn measured(answers: Vec<&'static str>) -> HeldOutResult {
        let sampling = HeldOutProtocol {
            template: PromptTemplate::Paper,
            n: answers.len(),
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: 9,
            seed: 1,
        };
        let row = |name: &str, reference: &str| HeldOutRow {
            name: name.into(),
            instruction: "Write the method `send` of the class `Mailer`.".into(),
            reference: reference.into(),
        };
        let library = PrivateLibrary {
            names: ["send", "post", "Mail", "close"].map(str::to_owned).into(),
            identifiers: identifiers("send post Mail close client"),
        };
        let rows = [row("a", REFERENCE), row("b", "send() {\n  return 1;\n}")];
        let folder = tempfile::tempdir().unwrap();
        let samples = folder.path().join("samples.jsonl");
        evaluate_held_out("m", &mut ConstantGenerator::new(answers), &rows, &library, sampling, &samples, &())
            .unwrap()
            .0
    }

    #[test]
    fn names_in_the_instruction_or_in_comments_do_not_count() {
        // `send` is in the instruction, `close` in a comment: post and Mail count, in row a alone.
        let perfect = measured(vec![REFERENCE]);
        assert_eq!(
            (perfect.valid.value, perfect.names.unwrap().value, perfect.invented.value),
            (1.0, 1.0, 0.0)
        );
        let half =
            measured(vec!["send() {\n  return this.client.post(1);\n}", "send() {\n  // post Mail\n}"]);
        assert_eq!(half.names.unwrap().value, 0.25);
        let (valid, names) = perfect.difference_from(&half).unwrap();
        assert_eq!((valid.interval.value, names.unwrap().interval.value), (0.0, 0.75));
        assert!(perfect.difference_from(&HeldOutResult::default()).is_err());
    }

    #[test]
    fn syntax_errors_and_undeclared_methods_are_counted() {
        let r = measured(vec![
            "send( {",
            "send() {\n  return this.client.dispatch(1);\n}",
            "```ts\nsend() {}\n```\nSo.",
        ]);
        assert_eq!((r.rows, r.answers), (2, 6));
        assert_abs_diff_eq!(r.valid.value, 2.0 / 3.0, epsilon = 1e-12);
        assert_abs_diff_eq!(r.invented.value, 1.0 / 3.0, epsilon = 1e-12);
    }
}
