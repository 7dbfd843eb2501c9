//! Judging a file of completions: in parallel, each different program once, resumable.

use super::{Counts, Judge, Judgement, Status};
use crate::jsonl;
use crate::problem::{Problem, Program};
use codelsi_engine::files::write_atomic;
use codelsi_engine::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A line of a completions file; further fields are ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Completion {
    pub id: String,
    /// The problem's name.
    pub name: String,
    /// As the model gave it, not yet cut.
    pub completion: String,
}

/// A line of a verdicts file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub id: String,
    pub name: String,
    pub status: Status,
    /// Compiling and running, wall time; of the first of identical programs.
    pub seconds: f64,
    /// What compiler or runtime had against it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Counts as solved, but did not reach the end of its tests when it could not interfere with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exploit: bool,
    /// Hash of judge and program: equal programs have one verdict, and a resumed run takes it over.
    pub program: String,
}

/// What a judged file amounts to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub statuses: Counts,
    /// Lines that are flagged, by their ids.
    pub exploits: Vec<String>,
    /// Different programs among the lines.
    pub programs: usize,
    /// Verdicts taken over from an earlier run.
    pub resumed: usize,
}

/// Judges every line of `completions` and writes `out`, one verdict a line in the same order. Interrupted, it goes on
/// where it was when called again. `progress` hears of each program: how many are decided, of how many.
///
/// # Errors
/// A line that cannot be read, or names no problem, is named with its file; a judge that fails ends the work.
pub fn judge_file(
    judge: &dyn Judge,
    problems: &[Problem],
    completions: &Path,
    out: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Summary> {
    let lines: Vec<Completion> = jsonl::read(completions)?;
    judge_all(judge, problems, &lines, out, progress).map_err(|e| e.at(completions.display().to_string()))
}

/// [`judge_file`] for completions in memory.
pub fn judge_all(
    judge: &dyn Judge,
    problems: &[Problem],
    completions: &[Completion],
    out: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Summary> {
    let programs = programs(judge, problems, completions)?;
    let rule = judge.describe();
    let keys: Vec<String> = programs.iter().map(|program| key(&rule, program)).collect();
    let partial = beside(out);
    let earlier = [out, &partial].into_iter().flat_map(jsonl::read_partial::<Verdict>);
    let mut decided: HashMap<String, Decision> =
        earlier.map(|v| (v.program.clone(), Decision::from(&v))).collect();

    let mut seen = HashSet::new();
    let distinct: Vec<usize> = (0..keys.len()).filter(|&i| seen.insert(&keys[i])).collect();
    let pending: Vec<usize> = distinct.iter().copied().filter(|&i| !decided.contains_key(&keys[i])).collect();
    let resumed = distinct.len() - pending.len();
    let log = (!pending.is_empty()).then(|| Log::open(&partial)).transpose()?;
    let done = AtomicUsize::new(resumed);
    progress(resumed, distinct.len());
    let share = pending.len().div_ceil(rayon::current_num_threads());
    let fresh: Result<Vec<Vec<_>>> = pending
        .par_chunks(judge.together().min(share).max(1))
        .map(|batch| {
            let together: Vec<&Program> = batch.iter().map(|&i| &programs[i]).collect();
            let mut decisions = Vec::with_capacity(batch.len());
            judge.judge_each(&together, &mut |at, judgement| {
                let i = batch[at];
                let decision = decide(judge, &programs[i], judgement)?;
                if let Some(log) = &log {
                    log.add(&decision.verdict(&completions[i], &keys[i]))?;
                }
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, distinct.len());
                decisions.push((keys[i].clone(), decision));
                Ok(())
            })?;
            Ok(decisions)
        })
        .collect();
    decided.extend(fresh?.into_iter().flatten());

    let verdicts: Vec<_> =
        completions.iter().zip(&keys).map(|(c, key)| decided[key].verdict(c, key)).collect();
    write_atomic(out, verdicts.iter().map(jsonl::line).collect::<String>().as_bytes())?;
    let _ = fs::remove_file(&partial);
    let mut summary = Summary { programs: distinct.len(), resumed, ..Summary::default() };
    for verdict in verdicts {
        *summary.statuses.entry(verdict.status).or_default() += 1;
        summary.exploits.extend(verdict.exploit.then_some(verdict.id));
    }
    Ok(summary)
}

/// What is known of a program.
#[derive(Clone)]
struct Decision {
    judgement: Judgement,
    exploit: bool,
}

impl From<&Verdict> for Decision {
    fn from(v: &Verdict) -> Self {
        let judgement = Judgement { status: v.status, message: v.message.clone(), seconds: v.seconds };
        Decision { judgement, exploit: v.exploit }
    }
}

impl Decision {
    fn verdict(&self, completion: &Completion, key: &str) -> Verdict {
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

fn decide(judge: &dyn Judge, program: &Program, judgement: Judgement) -> Result<Decision> {
    let exploit = judgement.status == Status::Ok && !judge.reaches_end(program)?;
    let seconds = (judgement.seconds * 1e3).round() / 1e3;
    Ok(Decision { judgement: Judgement { seconds, ..judgement }, exploit })
}

fn programs(judge: &dyn Judge, problems: &[Problem], completions: &[Completion]) -> Result<Vec<Program>> {
    let by_name: HashMap<&str, &Problem> = problems.iter().map(|p| (p.name.as_str(), p)).collect();
    let program = |(i, c): (usize, &Completion)| match by_name.get(c.name.as_str()) {
        None => Err(Error::new(format!("completion {} names no problem of the file: `{}`", i + 1, c.name))),
        Some(p) if !judge.languages().contains(&p.language.as_str()) => {
            let taken = judge.languages().join(", ");
            Err(Error::new(format!("problem `{}` is in `{}`; this judge takes {taken}", p.name, p.language)))
        }
        Some(p) => Ok(p.program(&c.completion)),
    };
    completions.iter().enumerate().map(program).collect()
}

fn key(rule: &str, program: &Program) -> String {
    let digest = Sha256::new().chain_update(rule).chain_update([0]).chain_update(&program.text).finalize();
    digest[..12].iter().map(|b| format!("{b:02x}")).collect()
}

fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    out.with_file_name(name)
}

/// Verdicts as they come, in any order, for the next run to take over.
struct Log {
    file: Mutex<File>,
    path: PathBuf,
}

impl Log {
    fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(io)?;
        }
        // What a killed run left may end in half a line.
        let kept: String = jsonl::read_partial::<Verdict>(path).iter().map(jsonl::line).collect();
        write_atomic(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(Log { file: Mutex::new(file), path: path.to_path_buf() })
    }

    fn add(&self, verdict: &Verdict) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.write_all(jsonl::line(verdict).as_bytes()).map_err(|e| Error::io(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Solves what contains "right", fails the rest, breaks down after some programs.
    struct Fake {
        calls: AtomicUsize,
        breaks_at: usize,
    }

    impl Judge for Fake {
        fn languages(&self) -> &'static [&'static str] {
            &["ts"]
        }

        fn describe(&self) -> String {
            "fake".into()
        }

        fn judge(&self, program: &Program) -> Result<Judgement> {
            if self.calls.fetch_add(1, Ordering::Relaxed) >= self.breaks_at {
                return Err(Error::new("broke down"));
            }
            let status = if program.text.contains("right") { Status::Ok } else { Status::AssertionError };
            Ok(Judgement { status, message: String::new(), seconds: 0.5 })
        }

        fn reaches_end(&self, program: &Program) -> Result<bool> {
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

    fn lines(completions: &[&str]) -> Vec<Completion> {
        let line = |(i, c): (usize, &&str)| Completion {
            id: format!("c{i}"),
            name: "p".into(),
            completion: c.to_string(),
        };
        completions.iter().enumerate().map(line).collect()
    }

    fn fake(breaks_at: usize) -> Fake {
        Fake { calls: AtomicUsize::new(0), breaks_at }
    }

    #[test]
    fn identical_programs_are_judged_once_and_lines_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("v.jsonl");
        let judge = fake(usize::MAX);
        let completions = lines(&["right", "wrong", "right#cut away", "right cheat"]);
        let summary = judge_all(&judge, &[problem()], &completions, &out, &|_, _| {}).unwrap();
        assert_eq!(judge.calls.load(Ordering::Relaxed), 3);
        assert_eq!(summary.statuses, Counts::from([(Status::Ok, 3), (Status::AssertionError, 1)]));
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
        let partial = beside(&out);
        let kept = fs::read_to_string(&partial).unwrap();
        assert_eq!(kept.lines().count(), 3);
        fs::write(&partial, &kept[..kept.len() - 9]).unwrap();
        let judge = fake(usize::MAX);
        let summary = judge_all(&judge, &[problem()], &completions, &out, &|_, _| {}).unwrap();
        assert_eq!((judge.calls.load(Ordering::Relaxed), summary.resumed), (3, 2));
        assert!(!partial.exists());
    }

    #[test]
    fn a_line_without_its_problem_and_a_malformed_line_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("c.jsonl"), dir.path().join("v.jsonl"));
        let judge = |text: &str| {
            fs::write(&file, text).unwrap();
            judge_file(&fake(0), &[problem()], &file, &out, &|_, _| {}).unwrap_err().to_string()
        };
        let e = judge("{\"id\":\"1\",\"name\":\"q\",\"completion\":\"\"}\n");
        assert!(e.contains("c.jsonl") && e.contains("completion 1") && e.contains("`q`"), "{e}");
        let e = judge("\n{\"id\":\"1\"\n");
        assert!(e.contains("c.jsonl") && e.contains("line 2"), "{e}");
        assert!(!out.exists());
    }
}
