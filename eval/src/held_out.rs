//! Measuring a model on private code that cannot run alone: rows held out of training, answered and read.
//!
//! Three figures, none of them a verdict: the share of answers that parse; of the names of the private library that the
//! true code uses, the share that the answer uses as well; and the share of answers that call a method which neither
//! the private sources nor the language's library have. Perplexity of the true code is the trainer's to measure.

use crate::extract::is_name;
use crate::protocol::seed_of;
use crate::sampling::{Ask, Completer, Question, Sample, Watch, draw};
use crate::signatures::unknown_methods;
use crate::statistics::{Difference, Interval, bootstrap, paired};
use codelsi_engine::{At, Error, Result};
use codelsi_model::template::Template;
use oxc_allocator::Allocator;
use oxc_parser::Parser;
use oxc_span::SourceType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// A row that no stage has trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Unlike every other row's.
    pub name: String,
    pub instruction: String,
    /// The code that a person wrote.
    pub reference: String,
}

/// What is known of the private code.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// Names that it exports.
    pub names: BTreeSet<String>,
    /// Every word of its sources: what is there is not invented.
    pub words: BTreeSet<String>,
}

/// How rows are put to a model.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    pub template: Template,
    /// Answers a row.
    pub n: usize,
    pub temperature: f32,
    pub top_p: f32,
    pub max_tokens: usize,
    pub seed: u64,
}

/// What one model made of the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    pub model: String,
    /// Rows and answers.
    pub rows: usize,
    pub answers: usize,
    /// Share of answers that parse.
    pub valid: Interval,
    /// Of the library's names that the true code uses and the instruction does not tell, the share that the answer uses:
    /// a mean over rows. Nothing where no row uses such a name.
    pub names: Option<Interval>,
    /// Share of answers that call a method that nobody has declared.
    pub invented: Interval,
    /// exp of the mean loss over the true code's tokens, where the trainer has measured it.
    pub perplexity: Option<f64>,
    /// The longest run of tokens that the answers share with training data.
    pub verbatim: Option<(usize, String)>,
    /// By row: what `valid` and `names` are the means of.
    pub per_row: Vec<(f64, Option<f64>)>,
}

impl Reading {
    /// How far `self` is from `base` on the same rows: answers that parse, and names found.
    ///
    /// # Errors
    /// When the rows are not the same.
    pub fn against(&self, base: &Reading, seed: u64) -> Result<(Difference, Option<Difference>)> {
        let named = |r: &Reading| r.per_row.iter().map(|row| row.1.is_some()).collect::<Vec<_>>();
        if named(self) != named(base) {
            return Err(Error::new(format!("{} and {} answered different rows", base.model, self.model)));
        }
        let valid = |r: &Reading| r.per_row.iter().map(|row| row.0).collect::<Vec<_>>();
        let names = |r: &Reading| r.per_row.iter().filter_map(|row| row.1).collect::<Vec<_>>();
        let of_names = (!names(self).is_empty()).then(|| paired(&names(base), &names(self), seed));
        Ok((paired(&valid(base), &valid(self), seed), of_names))
    }
}

/// Has `model` answer `rows` and reads the answers, which are kept in `samples`.
///
/// # Errors
/// When the model or the disk fails. What was answered stays, and is taken up by the next call.
pub fn read(
    name: &str,
    model: &mut dyn Completer,
    rows: &[Row],
    library: &Library,
    sampling: Sampling,
    samples: &Path,
    watch: &dyn Watch,
) -> Result<(Reading, Vec<String>)> {
    let questions: Vec<Question> =
        rows.iter().map(|row| Question { name: &row.name, ask: ask(row, sampling) }).collect();
    let drawn = draw(model, &questions, &|_, answer| code(answer).to_owned(), samples, watch).at(name)?;
    let codes: Vec<String> = drawn.into_iter().map(|Sample { completion, .. }| completion).collect();
    let (mut per_row, mut invented) = (Vec::new(), Vec::new());
    for (row, answers) in rows.iter().zip(codes.chunks(sampling.n)) {
        let share = |holds: &dyn Fn(&String) -> bool| {
            answers.iter().filter(|a| holds(a)).count() as f64 / answers.len() as f64
        };
        per_row.push((share(&|a| parses(a)), found(row, answers, library)));
        invented.push(share(&|a| !unknown_methods(&whole(a), &library.words).is_empty()));
    }
    let names: Vec<f64> = per_row.iter().filter_map(|row| row.1).collect();
    let reading = Reading {
        model: name.into(),
        rows: rows.len(),
        answers: codes.len(),
        valid: bootstrap(&per_row.iter().map(|row| row.0).collect::<Vec<_>>(), sampling.seed),
        names: (!names.is_empty()).then(|| bootstrap(&names, sampling.seed)),
        invented: bootstrap(&invented, sampling.seed),
        perplexity: None,
        verbatim: None,
        per_row,
    };
    Ok((reading, codes))
}

fn ask(row: &Row, sampling: Sampling) -> Ask {
    Ask {
        prompt: sampling.template.wrap(&row.instruction),
        message: Some(row.instruction.clone()),
        n: sampling.n,
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        seed: seed_of(sampling.seed, &row.name),
        stop: Vec::new(),
    }
}

/// The first fenced block of an answer, or all of it.
fn code(answer: &str) -> &str {
    let Some((_, block)) = answer.split_once("```") else { return answer };
    let block = block.split_once('\n').map_or(block, |(_, code)| code);
    block.split("```").next().unwrap_or(block)
}

/// Whether a piece of code is a program, or a member of a class.
fn parses(code: &str) -> bool {
    !code.trim().is_empty() && (is_program(code) || is_program(&member(code)))
}

/// What can be parsed of a piece of code.
fn whole(code: &str) -> String {
    if is_program(code) { code.to_owned() } else { member(code) }
}

fn member(code: &str) -> String {
    format!("class _ {{\n{code}\n}}")
}

fn is_program(code: &str) -> bool {
    Parser::new(&Allocator::default(), code, SourceType::ts()).parse().diagnostics.is_empty()
}

/// The mean share of the row's names that the answers use.
fn found(row: &Row, answers: &[String], library: &Library) -> Option<f64> {
    let told = words(&row.instruction);
    let wanted: BTreeSet<String> = words(&uncommented(&row.reference))
        .into_iter()
        .filter(|word| library.names.contains(word) && !told.contains(word))
        .collect();
    let share = |answer: &String| {
        wanted.intersection(&words(&uncommented(answer))).count() as f64 / wanted.len() as f64
    };
    (!wanted.is_empty()).then(|| answers.iter().map(share).sum::<f64>() / answers.len() as f64)
}

/// Every word of a text.
pub fn words(text: &str) -> BTreeSet<String> {
    text.split(|c| !is_name(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Code without its comments, as far as that can be told without a parser: answers may not parse.
fn uncommented(code: &str) -> String {
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

    /// Answers every question with the same texts.
    struct Says(Vec<&'static str>);

    impl Completer for Says {
        fn complete(&mut self, asks: &[Ask], _: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>> {
            Ok(asks.iter().map(|_| self.0.iter().map(|s| s.to_string()).collect()).collect())
        }
    }

    const TRUE: &str =
        "async send(id: string) {\n  // then close\n  return this.client.post(new Mail(id));\n}";

    fn reading(answers: Vec<&'static str>) -> Reading {
        let sampling = Sampling {
            template: Template::Paper,
            n: answers.len(),
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: 9,
            seed: 1,
        };
        let row = |name: &str, reference: &str| Row {
            name: name.into(),
            instruction: "Write the method `send` of the class `Mailer`.".into(),
            reference: reference.into(),
        };
        let library = Library {
            names: ["send", "post", "Mail", "close"].map(str::to_owned).into(),
            words: words("send post Mail close client"),
        };
        let rows = [row("a", TRUE), row("b", "send() {\n  return 1;\n}")];
        let folder = tempfile::tempdir().unwrap();
        let samples = folder.path().join("samples.jsonl");
        read("m", &mut Says(answers), &rows, &library, sampling, &samples, &()).unwrap().0
    }

    #[test]
    fn names_are_those_that_the_instruction_does_not_tell() {
        // `send` is told, `close` stands in a comment: post and Mail count, in row a alone.
        let perfect = reading(vec![TRUE]);
        assert_eq!(
            (perfect.valid.value, perfect.names.unwrap().value, perfect.invented.value),
            (1.0, 1.0, 0.0)
        );
        let half = reading(vec!["send() {\n  return this.client.post(1);\n}", "send() {\n  // post Mail\n}"]);
        assert_eq!(half.names.unwrap().value, 0.25);
        let (valid, names) = perfect.against(&half, 1).unwrap();
        assert_eq!((valid.interval.value, names.unwrap().interval.value), (0.0, 0.75));
        assert!(perfect.against(&Reading::default(), 1).is_err());
    }

    #[test]
    fn what_does_not_parse_and_what_nobody_declared_is_seen() {
        let r = reading(vec![
            "send( {",
            "send() {\n  return this.client.dispatch(1);\n}",
            "```ts\nsend() {}\n```\nSo.",
        ]);
        assert_eq!((r.rows, r.answers), (2, 6));
        assert!((r.valid.value - 2.0 / 3.0).abs() < 1e-12 && (r.invented.value - 1.0 / 3.0).abs() < 1e-12);
    }
}
