//! Sampling from a model: requests out, answers in. Answers are saved as they arrive, so that an interrupted run
//! continues.

use crate::jsonl;
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result, interrupt};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Requests that are answered between two writes of the samples file.
const CHUNK: usize = 16;

/// A prompt, and the number and kind of samples to generate for it.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// The text that the model continues; with `chat_template`, the message that is put to it.
    pub prompt: String,
    /// The text after the completion, which then fills the hole between prompt and suffix.
    pub suffix: Option<String>,
    /// True to write the prompt by the model's own chat template, as a user's message.
    pub chat_template: bool,
    /// The message for a chat model instead of the prompt: its server applies its own template.
    pub message: Option<String>,
    /// Number of samples.
    pub n: usize,
    pub max_tokens: usize,
    pub temperature: f32,
    pub top_p: f32,
    /// Sample i uses random stream i of this seed, whatever else is in the batch.
    pub seed: u64,
    /// Stop strings: an answer ends before the first of these.
    pub stop: Vec<String>,
}

/// A model, local or remote, from which evaluation samples.
pub trait Generator {
    /// Returns the answers to each request, `n` of them in order. The answers to a request must not depend on the other
    /// requests of the batch. `on_tokens` is called with the number of new tokens as they are generated.
    ///
    /// # Errors
    /// When the model or its server fails.
    fn generate(
        &mut self,
        requests: &[CompletionRequest],
        on_tokens: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>>;

    /// Returns the number of tokens that may be generated for each request: its own maximum, or what the prompt leaves of
    /// the model's context; 0 if the prompt does not fit. A model behind a server does not know.
    ///
    /// # Errors
    /// When a prompt cannot be encoded.
    fn room(&self, requests: &[CompletionRequest]) -> Result<Vec<usize>> {
        Ok(requests.iter().map(|request| request.max_tokens).collect())
    }

    /// Returns a digest of what answers, so that a run is not continued with another model; `None` where it is not known.
    fn fingerprint(&self) -> Option<&str> {
        None
    }
}

/// A line of `samples.jsonl`; `codelsi judge` takes the file as completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub id: String,
    pub name: String,
    pub completion: String,
    /// The whole answer, if the completion is only a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// Receives the progress of an evaluation; each method does nothing by default.
pub trait Progress: Sync {
    fn generated(&self, _problems: usize, _of: usize) {}
    fn tokens(&self, _new: usize) {}
    fn judged(&self, _programs: usize, _of: usize) {}
}

/// Ignores the progress.
impl Progress for () {}

/// A request under the name of its problem or row.
pub struct NamedRequest<'a> {
    pub name: &'a str,
    pub request: CompletionRequest,
}

/// Gives each request as many tokens as the model has room for, at most its own maximum. No prompt is cut.
///
/// # Errors
/// When a prompt cannot be encoded.
pub fn fit_to_context(model: &dyn Generator, requests: &mut [NamedRequest]) -> Result<()> {
    let plain: Vec<CompletionRequest> = requests.iter().map(|named| named.request.clone()).collect();
    let room = model.room(&plain)?;
    requests.iter_mut().zip(room).for_each(|(named, room)| named.request.max_tokens = room);
    Ok(())
}

/// Generates the samples that the file `path` does not hold yet and returns all, in the order of `requests`. The
/// samples of a request are written atomically. `extract(i, answer)` returns the completion in an answer
/// to request `i`. A request of no tokens is answered with nothing, and the model is not asked.
///
/// # Errors
/// When the model or the disk fails. Samples that were generated before remain in the file.
pub fn draw_samples(
    model: &mut dyn Generator,
    requests: &[NamedRequest],
    extract: &dyn Fn(usize, &str) -> String,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Vec<Sample>> {
    let mut drawn = complete_groups(jsonl::read_partial(path), requests);
    let kept = requests.iter().filter_map(|named| drawn.get(named.name)).flatten();
    write_atomic(path, kept.map(jsonl::line).collect::<String>().as_bytes())?;
    let missing: Vec<usize> =
        (0..requests.len()).filter(|&i| !drawn.contains_key(requests[i].name)).collect();
    let mut done = requests.len() - missing.len();
    progress.generated(done, requests.len());
    for chunk in missing.chunks(CHUNK) {
        interrupt::check("the samples so far are kept")?;
        let asked = |i: &&usize| requests[**i].request.max_tokens > 0;
        let batch: Vec<CompletionRequest> =
            chunk.iter().filter(asked).map(|&i| requests[i].request.clone()).collect();
        let answers = match batch.is_empty() {
            true => Vec::new(),
            false => model.generate(&batch, &mut |new| progress.tokens(new))?,
        };
        let mut answers = chunk.iter().filter(asked).zip(answers).collect::<HashMap<_, _>>();
        let mut text = String::new();
        for i in chunk {
            let answers = answers.remove(i).unwrap_or_else(|| vec![String::new(); requests[*i].request.n]);
            let i = *i;
            let samples = name_samples(requests[i].name, answers, |answer| extract(i, answer));
            text.extend(samples.iter().map(jsonl::line));
            drawn.insert(requests[i].name.to_owned(), samples);
        }
        append(path, &text)?;
        done += chunk.len();
        progress.generated(done, requests.len());
    }
    Ok(requests.iter().filter_map(|named| drawn.remove(named.name)).flatten().collect())
}

fn name_samples(name: &str, answers: Vec<String>, extract: impl Fn(&str) -> String) -> Vec<Sample> {
    let sample = |(i, answer): (usize, String)| {
        let completion = extract(&answer);
        let answer = (completion != answer).then_some(answer);
        Sample { id: format!("{name}#{i}"), name: name.to_owned(), completion, answer }
    };
    answers.into_iter().enumerate().map(sample).collect()
}

/// Groups samples by request and drops the groups that lack samples.
fn complete_groups(samples: Vec<Sample>, requests: &[NamedRequest]) -> HashMap<String, Vec<Sample>> {
    let expected: HashMap<&str, usize> = requests.iter().map(|named| (named.name, named.request.n)).collect();
    let mut groups: HashMap<String, Vec<Sample>> = HashMap::new();
    samples.into_iter().for_each(|s| groups.entry(s.name.clone()).or_default().push(s));
    groups.retain(|name, group| expected.get(name.as_str()) == Some(&group.len()));
    groups
}

/// Reads the completions that an evaluation has written to `folder`.
///
/// # Errors
/// When its `samples.jsonl` cannot be read.
pub fn read_completions(folder: &Path) -> Result<Vec<String>> {
    let samples: Vec<Sample> = jsonl::read(folder.join("samples.jsonl"))?;
    Ok(samples.into_iter().map(|sample| sample.completion).collect())
}

fn append(path: &Path, text: &str) -> Result<()> {
    let io = |e| Error::io(path, e);
    let mut file = OpenOptions::new().append(true).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(io)
}

/// A model of tests: gives the same answers to every request.
#[cfg(test)]
pub(crate) struct ConstantGenerator {
    pub answers: Vec<&'static str>,
    /// What it was asked.
    pub requests: Vec<CompletionRequest>,
}

#[cfg(test)]
impl ConstantGenerator {
    pub fn new(answers: Vec<&'static str>) -> Self {
        ConstantGenerator { answers, requests: Vec::new() }
    }
}

#[cfg(test)]
impl Generator for ConstantGenerator {
    fn generate(
        &mut self,
        requests: &[CompletionRequest],
        _: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>> {
        self.requests.extend_from_slice(requests);
        Ok(requests.iter().map(|_| self.answers.iter().map(|s| s.to_string()).collect()).collect())
    }
}
