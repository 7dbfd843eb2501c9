//! Drawing samples from a model: questions out, answers in, kept as they come so that a run cut short goes on.

use crate::jsonl;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Questions that are answered between two writes of the samples file.
const CHUNK: usize = 16;

/// What a model is asked at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub prompt: String,
    /// What a model that chats is told instead: its server wraps a message in its own way.
    pub message: Option<String>,
    /// Samples wanted.
    pub n: usize,
    pub max_tokens: usize,
    pub temperature: f32,
    pub top_p: f32,
    /// Sample i of this problem is number i under this seed, whatever else is in the batch.
    pub seed: u64,
    /// An answer ends before the first of these.
    pub stop: Vec<String>,
}

/// A model, as far as evaluation knows one.
pub trait Completer {
    /// The answers to each question, `n` of them in order. The same question must get the same answers in any company.
    /// `tokens` hears of tokens as they are made.
    fn complete(&mut self, asks: &[Ask], tokens: &mut dyn FnMut(usize)) -> Result<Vec<Vec<String>>>;
}

/// A line of `samples.jsonl`; `codelsi judge` takes the file as completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub id: String,
    pub name: String,
    pub completion: String,
    /// The whole answer, where the completion is only a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// What a caller hears while a model is evaluated.
pub trait Watch: Sync {
    fn generated(&self, _problems: usize, _of: usize) {}
    fn tokens(&self, _new: usize) {}
    fn judged(&self, _programs: usize, _of: usize) {}
}

/// Nobody listens.
impl Watch for () {}

/// A named question.
pub struct Question<'a> {
    pub name: &'a str,
    pub ask: Ask,
}

/// Draws what samples the file `path` does not hold yet; a question's samples are written together or not at all.
/// `completion` makes the completion of an answer to the question of that number. In the questions' order.
///
/// # Errors
/// When the model or the disk fails. What was drawn stays.
pub fn draw(
    model: &mut dyn Completer,
    questions: &[Question],
    completion: &dyn Fn(usize, &str) -> String,
    path: &Path,
    watch: &dyn Watch,
) -> Result<Vec<Sample>> {
    let mut drawn = whole(jsonl::read_partial(path), questions);
    let kept = questions.iter().filter_map(|question| drawn.get(question.name)).flatten();
    write_atomic(path, kept.map(jsonl::line).collect::<String>().as_bytes())?;
    let missing: Vec<usize> =
        (0..questions.len()).filter(|&i| !drawn.contains_key(questions[i].name)).collect();
    let mut done = questions.len() - missing.len();
    watch.generated(done, questions.len());
    for chunk in missing.chunks(CHUNK) {
        let asks: Vec<Ask> = chunk.iter().map(|&i| questions[i].ask.clone()).collect();
        let answers = model.complete(&asks, &mut |new| watch.tokens(new))?;
        let mut text = String::new();
        for (&i, answers) in chunk.iter().zip(answers) {
            let samples = samples(questions[i].name, answers, |answer| completion(i, answer));
            text.extend(samples.iter().map(jsonl::line));
            drawn.insert(questions[i].name.to_owned(), samples);
        }
        append(path, &text)?;
        done += chunk.len();
        watch.generated(done, questions.len());
    }
    Ok(questions.iter().filter_map(|question| drawn.remove(question.name)).flatten().collect())
}

fn samples(name: &str, answers: Vec<String>, completion: impl Fn(&str) -> String) -> Vec<Sample> {
    let sample = |(i, answer): (usize, String)| {
        let completion = completion(&answer);
        let answer = (completion != answer).then_some(answer);
        Sample { id: format!("{name}#{i}"), name: name.to_owned(), completion, answer }
    };
    answers.into_iter().enumerate().map(sample).collect()
}

/// The questions whose samples are all there.
fn whole(samples: Vec<Sample>, questions: &[Question]) -> HashMap<String, Vec<Sample>> {
    let wanted: HashMap<&str, usize> = questions.iter().map(|q| (q.name, q.ask.n)).collect();
    let mut of_question: HashMap<String, Vec<Sample>> = HashMap::new();
    samples.into_iter().for_each(|s| of_question.entry(s.name.clone()).or_default().push(s));
    of_question.retain(|name, samples| wanted.get(name.as_str()) == Some(&samples.len()));
    of_question
}

/// The completions that an evaluation left in `folder`.
///
/// # Errors
/// When they cannot be read.
pub fn completions(folder: &Path) -> Result<Vec<String>> {
    let samples: Vec<Sample> = jsonl::read(&folder.join("samples.jsonl"))?;
    Ok(samples.into_iter().map(|sample| sample.completion).collect())
}

fn append(path: &Path, text: &str) -> Result<()> {
    let io = |e| Error::io(path, e);
    let mut file = OpenOptions::new().append(true).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(io)
}
