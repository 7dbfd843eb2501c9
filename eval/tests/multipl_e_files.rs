//! An evaluation written as MultiPL-E's own files, counted by the rule of its `pass_k.py`.

use codelsi_engine::Result;
use codelsi_eval::evaluate::{ModelResult, evaluate};
use codelsi_eval::judge::verdicts::{Completions, judge_all};
use codelsi_eval::judge::{Judge, Judgement, Status};
use codelsi_eval::multipl_e::{write_results, write_run};
use codelsi_eval::problem::{CandidateProgram, Problem, read_problems};
use codelsi_eval::protocol::{PromptFormat, Protocol};
use codelsi_eval::sampling::{CompletionRequest, Generator};
use serde_json::Value;
use std::fs;
use std::path::Path;

const SAMPLES: usize = 12;

/// Answers with the number of the sample, and goes on past a stop token.
struct Counter;

impl Generator for Counter {
    fn generate(
        &mut self,
        requests: &[CompletionRequest],
        _: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<String>>> {
        let answers = |r: &CompletionRequest| (0..r.n).map(|i| format!("{i};\nfunction g() {{}}")).collect();
        Ok(requests.iter().map(answers).collect())
    }
}

/// Solves sample i of problem p where p divides i, in every way in which a program ends.
struct Divisors;

impl Judge for Divisors {
    fn languages(&self) -> &'static [&'static str] {
        &["ts"]
    }

    fn describe(&self) -> String {
        "divisors".into()
    }

    fn judge(&self, program: &CandidateProgram) -> Result<Judgement> {
        let numbers: Vec<usize> = program.text.split([' ', ';']).filter_map(|n| n.parse().ok()).collect();
        let [problem, sample] = numbers[..] else { panic!("{}", program.text) };
        let failures = [Status::Timeout, Status::NeedsNode, Status::SyntaxError, Status::AssertionError];
        let solved = sample.is_multiple_of(problem);
        let status = if solved { Status::Ok } else { failures[sample % failures.len()] };
        Ok(Judgement { status, message: if solved { "" } else { "failed" }.into(), seconds: 0.0 })
    }

    fn reaches_end(&self, _: &CandidateProgram) -> Result<bool> {
        Ok(true)
    }
}

fn problems() -> Vec<Problem> {
    let problem = |i: usize| Problem {
        name: format!("HumanEval_{i}"),
        language: "ts".into(),
        prompt: format!("problem {i} "),
        tests: "test".into(),
        stop_tokens: vec!["\nfunction ".into()],
    };
    (1..=9).map(problem).collect()
}

fn evaluated(folder: &Path) -> (ModelResult, Protocol) {
    let (problems, problems_hash) = Protocol::fingerprint_problems(&problems());
    let protocol = Protocol {
        format: PromptFormat::Completion,
        temperature: 0.2,
        top_p: 0.95,
        samples: SAMPLES,
        max_tokens: 9,
        seed: 3,
        judge: "divisors".into(),
        judge_choice: String::new(),
        problems,
        problems_hash,
        limited: Vec::new(),
    };
    let result = evaluate("m", &mut Counter, &self::problems(), &protocol, &Divisors, folder, &()).unwrap();
    (result, protocol)
}

fn unpacked(path: &Path) -> Value {
    let rows: Vec<Value> = codelsi_model::jsonl::read(path).unwrap();
    rows.into_iter().next().unwrap()
}

/// The results of a folder, as `pass_k.py` finds them.
fn results(folder: &Path) -> Vec<Value> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.to_string_lossy().ends_with(".results.json.gz")).collect();
    files.sort();
    files.iter().map(|path| unpacked(path)).collect()
}

/// The mean of `estimator(n, c, k)` of MultiPL-E's `pass_k.py` over problems: 1 − ∏ (1 − k / i), i from n − c + 1 to n, and 1
/// where n − c < k; n counts `results`, c those of them with `status` "OK" and `exit_code` 0.
fn pass_k(results: &[Value], k: usize) -> f64 {
    let estimate = |file: &Value| {
        let all = file["results"].as_array().unwrap();
        let (n, c) = (all.len(), all.iter().filter(|r| r["status"] == "OK" && r["exit_code"] == 0).count());
        if n - c < k {
            return 1.0;
        }
        1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
    };
    results.iter().map(estimate).sum::<f64>() / results.len() as f64
}

#[test]
fn pass_k_py_counts_the_files_of_an_evaluation_as_our_table_does() {
    let folder = tempfile::tempdir().unwrap();
    let (run, to) = (folder.path().join("run"), folder.path().join("multipl-e/m"));
    let (result, protocol) = evaluated(&run);
    write_run(&run, &problems(), &result.protocol, &to).unwrap();
    let all = results(&to);
    assert_eq!(all.len(), 9);
    assert!((pass_k(&all, 1) - result.pass_at_1).abs() < 1e-12, "{} {}", pass_k(&all, 1), result.pass_at_1);
    assert!((pass_k(&all, 10) - result.pass_at_10.unwrap()).abs() < 1e-12);
    // It compares the temperature with 0.2, which is no f32.
    assert!(
        all.iter().all(|file| file["temperature"] == 0.2 && file["top_p"] == 0.95 && file["max_tokens"] == 9)
    );
    assert_eq!(protocol.temperature, 0.2);

    let second = &all[1]["results"];
    assert_eq!(second[0]["program"], "problem 2 0;\ntest");
    let ends = |i: usize| (second[i]["status"].as_str().unwrap(), second[i]["exit_code"].as_i64().unwrap());
    assert_eq!([ends(0), ends(1), ends(3)], [("OK", 0), ("Exception", 1), ("AssertionError", 1)]);
    assert_eq!(
        (all[2]["results"][4]["status"].as_str(), all[2]["results"][4]["exit_code"].as_i64()),
        (Some("Timeout"), Some(-1))
    );
    assert!(
        second[1]["stderr"] == "failed"
            && second[1]["stdout"] == ""
            && second[1]["timestamp"].as_u64() > Some(1 << 30)
    );
}

#[test]
fn the_files_are_read_back_as_problems_and_completions_and_judged_to_the_same_results() {
    let folder = tempfile::tempdir().unwrap();
    let (run, first, second) = (folder.path().join("run"), folder.path().join("1"), folder.path().join("2"));
    let (result, _) = evaluated(&run);
    write_run(&run, &problems(), &result.protocol, &first).unwrap();
    let completions = Completions::read(&first).unwrap();
    let text = |problems: &[Problem]| serde_json::to_string(problems).unwrap();
    assert_eq!(text(&completions.problems().unwrap()), text(&problems()));
    assert_eq!(text(&read_problems(&first).unwrap()), text(&problems()));
    assert_eq!(completions.records.len(), 9 * SAMPLES);

    let verdicts = folder.path().join("verdicts.jsonl");
    judge_all(&Divisors, &problems(), &completions.records, &verdicts, &|_, _| ()).unwrap();
    let verdicts = codelsi_model::jsonl::read(&verdicts).unwrap();
    let object = |problem: &str| completions.object(problem);
    write_results(&second, &problems(), &completions.records, &verdicts, object).unwrap();
    let timeless = |folder: &Path| {
        let mut all = results(folder);
        let each = all.iter_mut().flat_map(|file| file["results"].as_array_mut().unwrap());
        each.for_each(|result| result["timestamp"] = 0.into());
        all
    };
    assert_eq!(timeless(&first), timeless(&second));
}

#[test]
fn completions_of_multipl_e_s_files_are_judged_as_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("HumanEval_1.json");
    let whole = "0;\nfunction g() {}";
    let mut object = serde_json::to_value(&problems()[0]).unwrap();
    object["completions"] = [whole].into();
    fs::write(&file, object.to_string()).unwrap();
    let program =
        |record: &codelsi_eval::judge::verdicts::CompletionRecord| record.program(&problems()[0]).text;
    assert_eq!(program(&Completions::read(&file).unwrap().records[0]), format!("problem 1 {whole}\ntest"));
    fs::write(&file, serde_json::json!({"id": "1", "name": "HumanEval_1", "completion": whole}).to_string())
        .unwrap();
    assert_eq!(program(&Completions::read(&file).unwrap().records[0]), "problem 1 0;\ntest");
}
