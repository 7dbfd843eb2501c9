//! The evaluation of one model: prompts, samples, verdicts, Pass@1 with its confidence interval. Every step can resume.

use crate::failure_modes::FailureModes;
use crate::jsonl;
use crate::judge::verdicts::{CompletionRecord, Verdict, judge_all};
use crate::judge::{Judge, Status, StatusCounts};
use crate::problem::Problem;
use crate::protocol::{LimitedProblem, Protocol};
use crate::run_folder::check_model;
use crate::sampling::{
    CompletionRequest, Generator, NamedRequest, Progress, Sample, draw_samples, fit_to_context,
};
use crate::statistics::{
    ConfidenceInterval, PairedDifference, paired_difference, pass_at_k, proportion_interval,
};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{At, Error, Result};
use codelsi_model::template::PromptTemplate;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

/// The result of a model on one problem.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProblemResult {
    pub name: String,
    pub samples: usize,
    pub correct: usize,
    /// Samples of the status `NeedsNode`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub needs_node: usize,
    /// The first sample that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailedSample>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A failed sample with its diagnostics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedSample {
    pub status: Status,
    /// The problem's prompt; empty in files of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// The completion, truncated as it was judged.
    pub completion: String,
    pub message: String,
}

/// The result of one model under one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelResult {
    pub name: String,
    /// Share of samples that pass, averaged over problems.
    pub pass_at_1: f64,
    /// The 95 % confidence interval of `pass_at_1`.
    pub low: f64,
    pub high: f64,
    /// Present if there are ten samples per problem or more.
    pub pass_at_10: Option<f64>,
    pub problems: usize,
    pub samples: usize,
    pub statuses: StatusCounts,
    /// Samples that count as solved without reaching the end of their tests.
    pub exploits: usize,
    /// Counts of the failure modes of its samples.
    #[serde(default, rename = "signatures")]
    pub failure_modes: FailureModes,
    /// Length and text of the longest run of tokens that its samples share with its training data, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbatim: Option<(usize, String)>,
    pub per_problem: Vec<ProblemResult>,
    pub protocol: Protocol,
    pub protocol_hash: String,
    /// Wall time of this call; near zero if all samples were resumed.
    pub generate_seconds: f64,
    pub judge_seconds: f64,
}

impl ModelResult {
    /// Returns Pass@1 of each problem, in the problems' order.
    pub fn scores(&self) -> Vec<f64> {
        self.per_problem.iter().map(|p| pass_at_k(p.samples, p.correct, 1)).collect()
    }

    /// Returns the share of samples on which the judge could not decide, with Pass@1 if they are solved; `None` if there
    /// are none.
    pub fn needs_node(&self) -> Option<String> {
        let undecided = self.per_problem.iter().map(|p| p.needs_node).sum::<usize>();
        let share = |p: &ProblemResult| (p.correct + p.needs_node) as f64 / p.samples.max(1) as f64;
        let solved = self.per_problem.iter().map(share).sum::<f64>() / self.problems.max(1) as f64;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        (undecided > 0).then(|| {
            let share = undecided as f64 / self.samples.max(1) as f64;
            format!("{} NeedsNode; Pass@1 {} with these solved", percent(share), percent(solved))
        })
    }

    /// Returns Pass@1 with its 95 % confidence interval.
    pub fn interval(&self) -> ConfidenceInterval {
        proportion_interval(&self.scores(), self.protocol.samples)
    }

    /// Returns the paired difference of `self` from `base`.
    ///
    /// # Errors
    /// When the two were measured on different problems.
    pub fn difference_from(&self, base: &ModelResult) -> Result<PairedDifference> {
        let names = |r: &ModelResult| r.per_problem.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        if names(self) != names(base) {
            return Err(Error::new(format!(
                "{} and {} were measured on different problems",
                base.name, self.name
            )));
        }
        let samples = self.protocol.samples.min(base.protocol.samples);
        Ok(paired_difference(&base.scores(), &self.scores(), samples))
    }
}

/// Evaluates one model and writes `protocol.json`, `samples.jsonl`, `verdicts.jsonl` and `result.json` to `folder`.
///
/// # Errors
/// When the folder holds a run under another protocol or of another model, or when the model, the judge or the disk fails. Finished work
/// remains in the folder, and the next call continues it.
pub fn evaluate(
    name: &str,
    model: &mut dyn Generator,
    problems: &[Problem],
    protocol: &Protocol,
    judge: &dyn Judge,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<ModelResult> {
    protocol.check()?;
    protocol.format.check(problems)?;
    let (requests, limited) = fit_requests(model, problems, protocol).at(name)?;
    let protocol = &Protocol { limited, ..protocol.clone() };
    check_protocol(protocol, &folder.join("protocol.json"))?;
    check_model(model.fingerprint(), &folder.join("model.sha256"))?;
    let started = Instant::now();
    let extract = |i: usize, answer: &str| protocol.format.completion(&problems[i], answer);
    let samples =
        draw_samples(model, &requests, &extract, &folder.join("samples.jsonl"), progress).at(name)?;
    let generate_seconds = started.elapsed().as_secs_f64();

    let failure_modes = count_failure_modes(problems, &samples);

    let started = Instant::now();
    let out = folder.join("verdicts.jsonl");
    let lines: Vec<CompletionRecord> = samples
        .into_iter()
        .map(|s| CompletionRecord { id: s.id, name: s.name, completion: s.completion, truncated: false })
        .collect();
    let summary = judge_all(judge, problems, &lines, &out, &|done, of| progress.judged(done, of)).at(name)?;
    let judge_seconds = started.elapsed().as_secs_f64();

    let per_problem = group_by_problem(problems, &lines, &jsonl::read(&out)?);
    let mut result = ModelResult {
        name: name.into(),
        pass_at_1: 0.0,
        low: 0.0,
        high: 0.0,
        pass_at_10: None,
        problems: problems.len(),
        samples: lines.len(),
        statuses: summary.statuses,
        exploits: summary.exploits.len(),
        failure_modes,
        verbatim: None,
        per_problem,
        protocol: protocol.clone(),
        protocol_hash: protocol.hash(),
        generate_seconds,
        judge_seconds,
    };
    let interval = result.interval();
    (result.pass_at_1, result.low, result.high) = (interval.value, interval.low, interval.high);
    if protocol.samples >= 10 {
        let sum = result.per_problem.iter().map(|p| pass_at_k(p.samples, p.correct, 10)).sum::<f64>();
        result.pass_at_10 = Some(sum / problems.len().max(1) as f64);
    }
    let text = serde_json::to_string_pretty(&result).map_err(|e| Error::new(e.to_string()))?;
    write_atomic(folder.join("result.json"), text.as_bytes())?;
    Ok(result)
}

/// Returns the requests of the problems, each for as many tokens as the model has room for, and the problems for which it
/// has less than the protocol allows. No prompt is cut.
fn fit_requests<'a>(
    model: &dyn Generator,
    problems: &'a [Problem],
    protocol: &Protocol,
) -> Result<(Vec<NamedRequest<'a>>, Vec<LimitedProblem>)> {
    let named = |p: &'a Problem| NamedRequest { name: &p.name, request: request(p, protocol) };
    let mut named: Vec<NamedRequest> = problems.iter().map(named).collect();
    fit_to_context(model, &mut named)?;
    let limited = named
        .iter()
        .filter(|named| named.request.max_tokens < protocol.max_tokens)
        .map(|named| LimitedProblem { name: named.name.to_owned(), max_tokens: named.request.max_tokens });
    let limited = limited.collect();
    Ok((named, limited))
}

/// Writes the protocol to a new folder; refuses one that was begun under another protocol, so that results never mix.
fn check_protocol(protocol: &Protocol, path: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else {
        let text = serde_json::to_string_pretty(protocol).map_err(|e| Error::new(e.to_string()))?;
        return write_atomic(path, text.as_bytes());
    };
    let earlier: Protocol = serde_json::from_str(&text).map_err(|e| Error::io(path, e))?;
    if earlier.hash() == protocol.hash() {
        return Ok(());
    }
    let (old, new) = (earlier.to_string(), protocol.to_string());
    let differing = old.lines().zip(new.lines()).find(|(old, new)| old != new).map_or("", |(old, _)| old);
    let message = format!(
        "this run was begun under another protocol ({differing}); choose another folder, or delete this one to start again"
    );
    Err(Error::new(message).at(path.display().to_string()))
}

fn request(problem: &Problem, protocol: &Protocol) -> CompletionRequest {
    CompletionRequest {
        prompt: protocol.format.prompt(problem),
        suffix: None,
        chat_template: protocol.format.template() == Some(PromptTemplate::Chat),
        message: protocol.format.message(problem),
        n: protocol.samples,
        max_tokens: protocol.max_tokens,
        temperature: protocol.temperature,
        top_p: protocol.top_p,
        seed: protocol.problem_seed(&problem.name),
        stop: protocol.format.stop(problem),
    }
}

fn by_name(problems: &[Problem]) -> HashMap<&str, &Problem> {
    problems.iter().map(|p| (p.name.as_str(), p)).collect()
}

fn count_failure_modes(problems: &[Problem], samples: &[Sample]) -> FailureModes {
    let problems = by_name(problems);
    let mut counts = FailureModes::default();
    for sample in samples {
        let answer = sample.answer.as_ref().unwrap_or(&sample.completion);
        if let Some(problem) = problems.get(sample.name.as_str()) {
            counts.add(problem, answer, &sample.completion);
        }
    }
    counts
}

/// Groups the verdicts of `completions` (in the same order) by problem.
fn group_by_problem(
    problems: &[Problem],
    completions: &[CompletionRecord],
    verdicts: &[Verdict],
) -> Vec<ProblemResult> {
    let mut of_problem: HashMap<&str, ProblemResult> = HashMap::new();
    let problem_of = by_name(problems);
    for (completion, verdict) in completions.iter().zip(verdicts) {
        let result = of_problem.entry(&verdict.name).or_default();
        result.samples += 1;
        result.needs_node += usize::from(verdict.status == Status::NeedsNode);
        if verdict.status == Status::Ok {
            result.correct += 1;
        } else if result.failure.is_none() {
            let problem = problem_of.get(verdict.name.as_str());
            result.failure = Some(FailedSample {
                status: verdict.status,
                prompt: problem.map_or(String::new(), |p| p.prompt.clone()),
                completion: problem
                    .map_or("", |p| p.truncate_at_stop_token(&completion.completion))
                    .to_owned(),
                message: verdict.message.clone(),
            });
        }
    }
    let result = |p: &Problem| {
        let counts = of_problem.remove(p.name.as_str()).unwrap_or_default();
        ProblemResult { name: p.name.clone(), ..counts }
    };
    problems.iter().map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Judgement;
    use crate::problem::CandidateProgram;
    use crate::protocol::PromptFormat;
    use approx::assert_abs_diff_eq;

    /// Answers with its seed; breaks down after `breaks_at` requests.
    struct FakeGenerator {
        requests: usize,
        breaks_at: usize,
    }

    impl Generator for FakeGenerator {
        fn generate(
            &mut self,
            requests: &[CompletionRequest],
            on_tokens: &mut dyn FnMut(usize),
        ) -> Result<Vec<Vec<String>>> {
            self.requests += requests.len();
            if self.requests > self.breaks_at {
                return Err(Error::new("out of memory"));
            }
            on_tokens(requests.len());
            Ok(requests.iter().map(|r| (0..r.n).map(|i| format!("{} {}", r.seed, i)).collect()).collect())
        }
    }

    /// Passes samples that end in an even number.
    struct EvenJudge;

    impl Judge for EvenJudge {
        fn languages(&self) -> &'static [&'static str] {
            &["ts"]
        }

        fn describe(&self) -> String {
            "even".into()
        }

        fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
            let even = program.text.trim_end().ends_with(['0', '2', '4', '6', '8']);
            let status = if even { Status::Ok } else { Status::Exception };
            Ok(Judgement { status, message: if even { "" } else { "odd" }.into(), seconds: 0.0 })
        }

        fn reaches_end(&self, _: &CandidateProgram) -> Result<bool> {
            Ok(true)
        }
    }

    fn problems() -> Vec<Problem> {
        let problem = |i: usize| Problem {
            name: format!("p{i}"),
            language: "ts".into(),
            prompt: String::new(),
            tests: String::new(),
            stop_tokens: vec![],
        };
        (0..20).map(problem).collect()
    }

    fn protocol(samples: usize) -> Protocol {
        let (problems, problems_hash) = Protocol::fingerprint_problems(&problems());
        let format = PromptFormat::Completion;
        Protocol {
            format,
            temperature: 0.2,
            top_p: 0.95,
            samples,
            max_tokens: 9,
            seed: 3,
            judge: "even".into(),
            judge_choice: String::new(),
            problems,
            problems_hash,
            limited: Vec::new(),
        }
    }

    fn run(folder: &Path, breaks_at: usize, samples: usize) -> Result<ModelResult> {
        let mut model = FakeGenerator { requests: 0, breaks_at };
        evaluate("m", &mut model, &problems(), &protocol(samples), &EvenJudge, folder, &())
    }

    #[test]
    fn a_run_that_broke_off_resumes_to_the_same_result() {
        let (uninterrupted, interrupted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = run(uninterrupted.path(), 99, 3).unwrap();
        assert!(run(interrupted.path(), 16, 3).unwrap_err().to_string().contains("m: out of memory"));
        // The file has 16 of 20 problems; the kill cost the last of them a sample.
        let path = interrupted.path().join("samples.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        let mut model = FakeGenerator { requests: 0, breaks_at: 99 };
        let result =
            evaluate("m", &mut model, &problems(), &protocol(3), &EvenJudge, interrupted.path(), &())
                .unwrap();
        assert_eq!(model.requests, 5);
        let timeless = |r: ModelResult| ModelResult { generate_seconds: 0.0, judge_seconds: 0.0, ..r };
        assert_eq!(timeless(result), timeless(expected));
    }

    #[test]
    fn pass_at_1_is_the_mean_over_problems() {
        let folder = tempfile::tempdir().unwrap();
        let result = run(folder.path(), 99, 3).unwrap();
        assert_eq!((result.problems, result.samples), (20, 60));
        assert_abs_diff_eq!(result.pass_at_1, 2.0 / 3.0, epsilon = 1e-12);
        assert!(result.low < 0.6 && result.high > 0.75 && result.pass_at_10.is_none());
        assert_eq!(result.statuses, StatusCounts::from([(Status::Ok, 40), (Status::Exception, 20)]));
        assert_eq!(result.difference_from(&result).unwrap().interval.value, 0.0);
    }

    /// A context of 10 tokens, one a byte; refuses to be asked for more than fits.
    struct SmallContext;

    impl Generator for SmallContext {
        fn generate(
            &mut self,
            requests: &[CompletionRequest],
            _: &mut dyn FnMut(usize),
        ) -> Result<Vec<Vec<String>>> {
            assert!(requests.iter().all(|r| r.max_tokens > 0 && r.prompt.len() + r.max_tokens <= 10));
            Ok(requests.iter().map(|r| vec!["0".repeat(r.max_tokens); r.n]).collect())
        }

        fn room(&self, requests: &[CompletionRequest]) -> Result<Vec<usize>> {
            let room = |r: &CompletionRequest| 10usize.saturating_sub(r.prompt.len()).min(r.max_tokens);
            Ok(requests.iter().map(room).collect())
        }
    }

    #[test]
    fn prompts_that_leave_too_little_room_are_named_and_never_cut() {
        let prompts = ["", "abc", "abcdefghijkl"];
        let problems: Vec<Problem> = problems()
            .into_iter()
            .zip(prompts)
            .map(|(p, prompt)| Problem { prompt: prompt.into(), ..p })
            .collect();
        let protocol = Protocol { problems: 3, ..protocol(2) };
        let folder = tempfile::tempdir().unwrap();
        let result =
            evaluate("m", &mut SmallContext, &problems, &protocol, &EvenJudge, folder.path(), &()).unwrap();
        let limited: Vec<(&str, usize)> =
            result.protocol.limited.iter().map(|p| (p.name.as_str(), p.max_tokens)).collect();
        assert_eq!(limited, [("p1", 7), ("p2", 0)]);
        // What does not fit is not answered, and so not solved.
        assert_eq!(result.per_problem.iter().map(|p| p.correct).collect::<Vec<_>>(), [2, 2, 0]);
        let text = std::fs::read_to_string(folder.path().join("protocol.json")).unwrap();
        assert!(text.contains("limited") && text.contains("p2"), "{text}");
        let shown = result.protocol.to_string();
        assert!(shown.contains("2 of 3 problems") && shown.contains("p1 (at most 7)"), "{shown}");
        assert!(shown.contains("p2 (its prompt does not fit: no answer)"), "{shown}");
    }

    #[test]
    fn undecided_samples_are_counted_apart() {
        let mut result = run(tempfile::tempdir().unwrap().path(), 99, 3).unwrap();
        assert_eq!(result.needs_node(), None);
        result.per_problem[0] =
            ProblemResult { samples: 3, correct: 0, needs_node: 3, ..ProblemResult::default() };
        let solved = 100.0 * (2.0 / 3.0 * 19.0 + 1.0) / 20.0;
        let text = format!("5.0 % NeedsNode; Pass@1 {solved:.1} % with these solved");
        assert_eq!(result.needs_node(), Some(text));
    }

    #[test]
    fn another_model_is_refused_in_the_same_folder() {
        struct Named(&'static str);
        impl Generator for Named {
            fn generate(
                &mut self,
                requests: &[CompletionRequest],
                _: &mut dyn FnMut(usize),
            ) -> Result<Vec<Vec<String>>> {
                Ok(requests.iter().map(|r| vec![self.0.to_string(); r.n]).collect())
            }
            fn fingerprint(&self) -> Option<&str> {
                Some(self.0)
            }
        }
        let (folder, problems) = (tempfile::tempdir().unwrap(), problems());
        let run =
            |name| evaluate("m", &mut Named(name), &problems, &protocol(2), &EvenJudge, folder.path(), &());
        run("a").unwrap();
        run("a").unwrap();
        let e = run("b").unwrap_err().to_string();
        assert!(e.contains("model.sha256") && e.contains("another model or adapter"), "{e}");
    }

    #[test]
    fn another_protocol_is_refused_in_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), 99, 3).unwrap();
        let e = run(folder.path(), 99, 4).unwrap_err().to_string();
        assert!(e.contains("another protocol") && e.contains("3 samples"), "{e}");
    }
}
