//! Judging completions: in parallel, each distinct program once, resumable.

pub use super::completions::{CompletionRecord, Completions};
use super::judgement::{Judge, Judgement, Status, StatusCounts};
use crate::jsonl;
use crate::problem::{CandidateProgram, Problem};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result, interrupt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A line of a verdicts file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub id: String,
    pub name: String,
    pub status: Status,
    /// Compiling and running, wall time; for identical programs, that of the first.
    pub seconds: f64,
    /// Diagnostics of the compiler or the runtime.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// True if the program counts as solved, but does not reach the end of its tests in the guarded run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exploit: bool,
    /// Hash of judge and program: equal programs share a verdict, and a resumed run reuses it.
    pub program: String,
}

/// The summary of a judged file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub statuses: StatusCounts,
    /// Ids of the lines that are flagged as exploits.
    pub exploits: Vec<String>,
    /// Number of distinct programs.
    pub programs: usize,
    /// Verdicts reused from an earlier run.
    pub resumed: usize,
}

/// Judges completions and writes `out`, one verdict per line in the same order. An
/// interrupted run continues where it was when called again. `progress` is called after each program with the
/// number of judged programs and the total.
///
/// # Errors
/// When a completion refers to no problem (the error has its number), or when the judge itself fails.
pub fn judge_all(
    judge: &dyn Judge,
    problems: &[Problem],
    completions: &[CompletionRecord],
    out: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Summary> {
    let programs = assemble_programs(judge, problems, completions)?;
    let rule = judge.describe();
    let keys: Vec<String> = programs.iter().map(|program| program_key(&rule, program)).collect();
    let partial = partial_path(out);
    let earlier = [out, &partial].into_iter().flat_map(jsonl::read_partial::<Verdict>);
    let mut judged: HashMap<String, CheckedJudgement> =
        earlier.map(|v| (v.program.clone(), CheckedJudgement::from(&v))).collect();

    let mut seen = HashSet::new();
    let distinct: Vec<usize> = (0..keys.len()).filter(|&i| seen.insert(&keys[i])).collect();
    let pending: Vec<usize> = distinct.iter().copied().filter(|&i| !judged.contains_key(&keys[i])).collect();
    let resumed = distinct.len() - pending.len();
    let log = (!pending.is_empty()).then(|| VerdictLog::open(&partial)).transpose()?;
    let done = AtomicUsize::new(resumed);
    progress(resumed, distinct.len());
    let fresh = judge_programs(judge, &programs, &pending, &|i, judgement| {
        interrupt::check("the verdicts so far are kept")?;
        if let Some(log) = &log {
            log.append(&judgement.verdict(&completions[i], &keys[i]))?;
        }
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, distinct.len());
        Ok(())
    })?;
    judged.extend(fresh.into_iter().map(|(i, judgement)| (keys[i].clone(), judgement)));

    let verdicts: Vec<_> =
        completions.iter().zip(&keys).map(|(c, key)| judged[key].verdict(c, key)).collect();
    write_atomic(out, verdicts.iter().map(jsonl::line).collect::<String>().as_bytes())?;
    let _ = fs::remove_file(&partial);
    let mut summary = Summary { programs: distinct.len(), resumed, ..Summary::default() };
    for verdict in verdicts {
        *summary.statuses.entry(verdict.status).or_default() += 1;
        summary.exploits.extend(verdict.exploit.then_some(verdict.id));
    }
    Ok(summary)
}

/// Judges the programs with the indices `pending` in parallel, in batches of the judge's size, and calls `on_judgement`
/// after each.
fn judge_programs(
    judge: &dyn Judge,
    programs: &[CandidateProgram],
    pending: &[usize],
    on_judgement: &(dyn Fn(usize, &CheckedJudgement) -> Result<()> + Sync),
) -> Result<Vec<(usize, CheckedJudgement)>> {
    let share = pending.len().div_ceil(rayon::current_num_threads());
    let judge_batch = |batch: &[usize]| {
        let batch_programs: Vec<&CandidateProgram> = batch.iter().map(|&i| &programs[i]).collect();
        let mut judgements = Vec::with_capacity(batch.len());
        judge.judge_batch(&batch_programs, &mut |index, judgement| {
            let i = batch[index];
            let checked = check_for_exploit(judge, &programs[i], judgement)?;
            on_judgement(i, &checked)?;
            judgements.push((i, checked));
            Ok(())
        })?;
        Ok(judgements)
    };
    let batches: Result<Vec<Vec<_>>> =
        pending.par_chunks(judge.batch_size().min(share).max(1)).map(judge_batch).collect();
    Ok(batches?.into_iter().flatten().collect())
}

/// A judgement with the guard's finding.
#[derive(Clone)]
struct CheckedJudgement {
    judgement: Judgement,
    exploit: bool,
}

impl From<&Verdict> for CheckedJudgement {
    fn from(v: &Verdict) -> Self {
        let judgement = Judgement { status: v.status, message: v.message.clone(), seconds: v.seconds };
        CheckedJudgement { judgement, exploit: v.exploit }
    }
}

impl CheckedJudgement {
    fn verdict(&self, completion: &CompletionRecord, key: &str) -> Verdict {
        Verdict {
            id: completion.id.clone(),
            name: completion.name.clone(),
            status: self.judgement.status,
            seconds: self.judgement.seconds,
            message: self.judgement.message.clone(),
            exploit: self.exploit,
            program: key.to_string(),
        }
    }
}

/// Runs a program that counts as solved once more, guarded.
fn check_for_exploit(
    judge: &dyn Judge,
    program: &CandidateProgram,
    judgement: Judgement,
) -> Result<CheckedJudgement> {
    let exploit = judgement.status == Status::Ok && !judge.reaches_end(program)?;
    let seconds = (judgement.seconds * 1e3).round() / 1e3;
    Ok(CheckedJudgement { judgement: Judgement { seconds, ..judgement }, exploit })
}

fn assemble_programs(
    judge: &dyn Judge,
    problems: &[Problem],
    completions: &[CompletionRecord],
) -> Result<Vec<CandidateProgram>> {
    let by_name: HashMap<&str, &Problem> = problems.iter().map(|p| (p.name.as_str(), p)).collect();
    let program = |(i, c): (usize, &CompletionRecord)| match by_name.get(c.name.as_str()) {
        None => Err(Error::new(format!("completion {}: no problem is named `{}`", i + 1, c.name))),
        Some(p) if !judge.languages().contains(&p.language.as_str()) => {
            let languages = judge.languages().join(", ");
            let message =
                format!("problem `{}` is in `{}`; this judge takes {languages}", p.name, p.language);
            Err(Error::new(message))
        }
        Some(p) => Ok(c.program(p)),
    };
    completions.iter().enumerate().map(program).collect()
}

fn program_key(rule: &str, program: &CandidateProgram) -> String {
    let digest = Sha256::new().chain_update(rule).chain_update([0]).chain_update(&program.text).finalize();
    digest[..12].iter().map(|b| format!("{b:02x}")).collect()
}

/// Returns the path of the unfinished file in the folder of `out`.
fn partial_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    out.with_file_name(name)
}

/// A file of verdicts in the order in which they are reached, which the next run reuses.
struct VerdictLog {
    file: Mutex<File>,
    path: PathBuf,
}

impl VerdictLog {
    fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(io)?;
        }
        // The file of a killed run may end in half a line.
        let kept: String = jsonl::read_partial::<Verdict>(path).iter().map(jsonl::line).collect();
        write_atomic(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(VerdictLog { file: Mutex::new(file), path: path.to_path_buf() })
    }

    fn append(&self, verdict: &Verdict) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.write_all(jsonl::line(verdict).as_bytes()).map_err(|e| Error::io(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes programs that contain "right", fails the others, and returns an error from the call `breaks_at` on.
    struct FakeJudge {
        calls: AtomicUsize,
        breaks_at: usize,
    }

    impl Judge for FakeJudge {
        fn languages(&self) -> &'static [&'static str] {
            &["ts"]
        }

        fn describe(&self) -> String {
            "fake".into()
        }

        fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
            if self.calls.fetch_add(1, Ordering::Relaxed) >= self.breaks_at {
                return Err(Error::new("broke down"));
            }
            let status = if program.text.contains("right") { Status::Ok } else { Status::AssertionError };
            Ok(Judgement { status, message: String::new(), seconds: 0.5 })
        }

        fn reaches_end(&self, program: &CandidateProgram) -> Result<bool> {
            Ok(!program.text.contains("cheat"))
        }
    }

    fn problem() -> Problem {
        let text = |s: &str| s.to_string();
        Problem {
            name: text("p"),
            language: text("ts"),
            prompt: text("("),
            tests: text(")"),
            stop_tokens: vec![text("#")],
        }
    }

    fn lines(completions: &[&str]) -> Vec<CompletionRecord> {
        let line = |(i, c): (usize, &&str)| CompletionRecord {
            id: format!("c{i}"),
            name: "p".into(),
            completion: c.to_string(),
            truncated: false,
        };
        completions.iter().enumerate().map(line).collect()
    }

    fn fake(breaks_at: usize) -> FakeJudge {
        FakeJudge { calls: AtomicUsize::new(0), breaks_at }
    }

    #[test]
    fn identical_programs_are_judged_once_and_lines_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("v.jsonl");
        let judge = fake(usize::MAX);
        let completions = lines(&["right", "wrong", "right#cut away", "right cheat"]);
        let summary = judge_all(&judge, &[problem()], &completions, &out, &|_, _| {}).unwrap();
        assert_eq!(judge.calls.load(Ordering::Relaxed), 3);
        assert_eq!(summary.statuses, StatusCounts::from([(Status::Ok, 3), (Status::AssertionError, 1)]));
        assert_eq!((summary.exploits, summary.programs), (vec!["c3".to_string()], 3));
        let verdicts: Vec<Verdict> = jsonl::read(&out).unwrap();
        assert_eq!(verdicts.iter().map(|v| v.id.as_str()).collect::<Vec<_>>(), ["c0", "c1", "c2", "c3"]);
        assert!(
            fs::read_to_string(&out)
                .unwrap()
                .starts_with(r#"{"id":"c0","name":"p","status":"OK","seconds":0.5,"#)
        );
    }

    #[test]
    fn an_interrupted_run_goes_on_and_a_half_written_line_is_judged_again() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("v.jsonl");
        let completions = lines(&["a", "b", "c", "d", "right"]);
        assert!(judge_all(&fake(3), &[problem()], &completions, &out, &|_, _| {}).is_err());
        assert!(!out.exists());
        let partial = partial_path(&out);
        let kept = fs::read_to_string(&partial).unwrap();
        assert_eq!(kept.lines().count(), 3);
        fs::write(&partial, &kept[..kept.len() - 9]).unwrap();
        let judge = fake(usize::MAX);
        let summary = judge_all(&judge, &[problem()], &completions, &out, &|_, _| {}).unwrap();
        assert_eq!((judge.calls.load(Ordering::Relaxed), summary.resumed), (3, 2));
        assert!(!partial.exists());
    }

    #[test]
    fn a_completion_without_its_problem_and_a_malformed_line_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("c.jsonl"), dir.path().join("v.jsonl"));
        let judge = |text: &str| {
            fs::write(&file, text).unwrap();
            let judged = Completions::read(&file)
                .and_then(|all| judge_all(&fake(0), &[problem()], &all.records, &out, &|_, _| {}));
            judged.unwrap_err().to_string()
        };
        let e = judge("{\"id\":\"1\",\"name\":\"q\",\"completion\":\"\"}\n");
        assert!(e.contains("completion 1") && e.contains("`q`"), "{e}");
        let e = judge("\n{\"id\":\"1\"\n");
        assert!(e.contains("c.jsonl") && e.contains("line 2"), "{e}");
        assert!(!out.exists());
    }
}
