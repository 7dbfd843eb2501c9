//! Runs in MultiPL-E's own files, a problem each: its completions in `NAME.json.gz`, and in `NAME.results.json.gz` the results
//! that its `pass_k.py` counts.

use crate::jsonl;
use crate::judge::Status;
use crate::judge::verdicts::{CompletionRecord, Verdict};
use crate::problem::Problem;
use crate::protocol::Protocol;
use crate::sampling::Sample;
use codelsi_engine::files::write_atomic_with;
use codelsi_engine::{Error, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The end of the name of a file of results.
const RESULTS: &str = ".results.json.gz";

/// Refuses a folder with results of other problems than these, which `pass_k.py` would count too. A folder that is not there yet
/// has none.
///
/// # Errors
/// Names the first such file.
pub fn check_folder(folder: &Path, problems: &[Problem]) -> Result<()> {
    let ours: BTreeSet<String> = problems.iter().map(|problem| file_name(&problem.name, RESULTS)).collect();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_result = |name: &String| [RESULTS, ".results.json"].iter().any(|end| name.ends_with(end));
    match names.filter(|name| is_result(name) && !ours.contains(name)).min() {
        None => Ok(()),
        Some(other) => {
            let message = format!(
                "holds `{other}`, of another run, which pass_k.py would count; choose another folder"
            );
            Err(Error::io(folder, message))
        }
    }
}

/// Writes the completions and the results of an evaluated model, whose samples and verdicts are in the folder `run`, to the
/// folder `to`.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write_run(run: &Path, problems: &[Problem], protocol: &Protocol, to: &Path) -> Result<()> {
    let samples: Vec<Sample> = jsonl::read(run.join("samples.jsonl"))?;
    let verdicts: Vec<Verdict> = jsonl::read(run.join("verdicts.jsonl"))?;
    let by_name: HashMap<&str, &Problem> = problems.iter().map(|p| (p.name.as_str(), p)).collect();
    let record = |sample: Sample| {
        let completion =
            by_name.get(sample.name.as_str()).map_or("", |p| p.truncate_at_stop_token(&sample.completion));
        CompletionRecord {
            id: sample.id,
            completion: completion.to_owned(),
            name: sample.name,
            truncated: true,
        }
    };
    let completions: Vec<CompletionRecord> = samples.into_iter().map(record).collect();
    let settings = sampling_settings(protocol);
    let of_problem = group(&completions);
    for problem in problems {
        let texts: Vec<&str> = of_problem
            .get(problem.name.as_str())
            .into_iter()
            .flatten()
            .map(|&i| &completions[i].completion[..])
            .collect();
        let mut file = header(problem, Some(&settings));
        file.insert("completions".into(), texts.into());
        write(&to.join(file_name(&problem.name, ".json.gz")), &file)?;
    }
    write_results(to, problems, &completions, &verdicts, |_| Some(&settings))
}

/// Writes the results of each problem that has completions to a folder. `verdicts` are those of `completions`, in their order;
/// `object` returns what the problem's file says beside the problem: how its completions were sampled, of which `pass_k.py`
/// reads `temperature`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_results<'a>(
    folder: &Path,
    problems: &[Problem],
    completions: &[CompletionRecord],
    verdicts: &[Verdict],
    object: impl Fn(&str) -> Option<&'a Map<String, Value>>,
) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let of_problem = group(completions);
    for problem in problems {
        let Some(indices) = of_problem.get(problem.name.as_str()) else { continue };
        let result = |&i: &usize| result(&completions[i].program(problem).text, &verdicts[i], now);
        let mut file = header(problem, object(&problem.name));
        file.insert("results".into(), indices.iter().map(result).collect());
        write(&folder.join(file_name(&problem.name, RESULTS)), &file)?;
    }
    Ok(())
}

/// The indices of the completions of each problem.
fn group(completions: &[CompletionRecord]) -> HashMap<&str, Vec<usize>> {
    let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
    completions.iter().enumerate().for_each(|(i, c)| groups.entry(&c.name).or_default().push(i));
    groups
}

/// Returns the sampling settings of a run, by the keys of MultiPL-E's completions.
fn sampling_settings(protocol: &Protocol) -> Map<String, Value> {
    // By its decimal form: `pass_k.py` compares with 0.2.
    let decimal = |x: f32| x.to_string().parse::<f64>().unwrap_or(x.into());
    let settings = [
        ("temperature", decimal(protocol.temperature).into()),
        ("top_p", decimal(protocol.top_p).into()),
        ("max_tokens", protocol.max_tokens.into()),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}

/// Returns the beginning of a file, before its completions or results: the problem as it was judged, and the other keys of `object`.
fn header(problem: &Problem, object: Option<&Map<String, Value>>) -> Map<String, Value> {
    let mut header = Map::new();
    header.insert("name".into(), problem.name.as_str().into());
    header.insert("language".into(), problem.language.as_str().into());
    header.extend(object.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    let judged = serde_json::to_value(problem).expect("plain data serializes");
    header.extend(judged.as_object().cloned().unwrap_or_default());
    header
}

/// A result as MultiPL-E's evaluation writes it. The judge keeps no output but its diagnosis.
fn result(program: &str, verdict: &Verdict, timestamp: u64) -> Value {
    let (status, exit_code) = match verdict.status {
        Status::Ok => (Status::Ok, 0),
        Status::Timeout => (Status::Timeout, -1),
        // Unknown to MultiPL-E: the judge lacks what the program used, and it failed.
        Status::NeedsNode => (Status::Exception, 1),
        failed => (failed, 1),
    };
    json!({
        "program": program, "stdout": "", "stderr": verdict.message, "exit_code": exit_code, "status": status,
        "timestamp": timestamp,
    })
}

/// The name of a problem's file: the problem's name, with `%` and the number of each byte that no file name may hold.
fn file_name(problem: &str, end: &str) -> String {
    let escaped = |c: char| match c {
        '/' | '%' | '\0'..='\x1f' | '\x7f' => format!("%{:02X}", c as u32),
        _ => c.to_string(),
    };
    problem.chars().map(escaped).collect::<String>() + end
}

fn write(path: &Path, file: &Map<String, Value>) -> Result<()> {
    write_atomic_with(path, |out| {
        let mut packed = GzEncoder::new(out, Compression::default());
        serde_json::to_writer(&mut packed, file)?;
        packed.finish().map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_s_name_leads_out_of_no_folder() {
        assert_eq!(file_name("HumanEval_0_f", RESULTS), "HumanEval_0_f.results.json.gz");
        assert_eq!(file_name("../src/a.ts: f%2F\n", ".json.gz"), "..%2Fsrc%2Fa.ts: f%252F%0A.json.gz");
    }

    #[test]
    fn results_of_another_run_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let problem = |name: &str| Problem {
            name: name.into(),
            language: "ts".into(),
            prompt: "".into(),
            tests: "".into(),
            stop_tokens: Vec::new(),
        };
        for name in ["a.results.json.gz", "b.json.gz"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        check_folder(folder.path(), &[problem("a"), problem("c")]).unwrap();
        check_folder(&folder.path().join("absent"), &[]).unwrap();
        let message = check_folder(folder.path(), &[problem("b")]).unwrap_err().to_string();
        assert!(message.contains("`a.results.json.gz`"), "{message}");
    }
}
