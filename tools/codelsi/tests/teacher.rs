//! `codelsi curate --teacher`: instructions and tasks by a model on a server, or by one of our own.

mod common;

use codelsi_model::synthetic;
use common::{TestServer, choices};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Functions in the source, more than a server is asked at once.
const FUNCTIONS: usize = 20;

/// A source of as many functions, and a problem that no row may repeat.
fn prepare(folder: &Path) {
    let function = |i: usize| {
        format!(
            "/** Computes the number {i} of something. */\nexport function compute{i}(a: number): number {{\n  \
             const b = a * {i};\n  return b * b + {i};\n}}\n"
        )
    };
    fs::create_dir(folder.join("src")).unwrap();
    fs::write(folder.join("src/a.ts"), (0..FUNCTIONS).map(function).collect::<String>()).unwrap();
    let problem = json!({
        "name": "20_median", "tests": "",
        "prompt": "//Return median of elements in the array l.\nfunction median(l: number[]): number {\n",
    });
    fs::write(folder.join("problems.jsonl"), format!("{problem}\n")).unwrap();
}

fn curate(folder: &Path, teacher: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
    command.arg("curate").arg(folder.join("src")).arg("--out").arg(folder.join("data.jsonl"));
    command.arg("--against").arg(folder.join("problems.jsonl")).args(["--resemblance", "0", "--json"]);
    command.args(["--teacher", teacher]).args(more).env("TEACHER_KEY", "a secret");
    command
}

const REMOTE: [&str; 4] = ["--teacher-model", "there/gpt", "--teacher-key-env", "TEACHER_KEY"];

fn result(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn rows(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("data.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The name of the function that a request is about, and whether it asks for its instruction.
fn about(body: &Value) -> (String, bool) {
    let message = body["messages"][1]["content"].as_str().unwrap();
    let code = message.rsplit("function ").next().unwrap();
    (code.split('(').next().unwrap().to_owned(), message.contains("first draft"))
}

/// A response that says `answer`.
fn says(answer: &Value) -> (u16, Value) {
    (200, choices(1, || json!({"message": {"content": answer.to_string()}})))
}

fn instruction(name: &str) -> (u16, Value) {
    says(&json!({"instruction": format!("Write {name}, which computes.")}))
}

/// A task whose solution adds up under `name`.
fn task(name: &str) -> (u16, Value) {
    let code = format!(
        "function {name}(list: number[]): number {{\n  let sum = 0;\n  for (const one of list) sum += one;\n  return sum;\n}}"
    );
    says(&json!({"instruction": format!("Write {name}, which adds up."), "code": code}))
}

#[test]
fn a_server_teaches_and_a_second_run_asks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    // Busy or broken at first; then good answers, but for some.
    let server = TestServer::start(|(_, _, body), before| match (before, about(body)) {
        (0, _) => (500, json!({"error": "not yet"})),
        (1, _) => (429, json!({"error": "slow down"})),
        (_, (name, true)) => match name.as_str() {
            "compute3" => (200, choices(1, || json!({"message": {"content": "I would rather not."}}))),
            "compute4" => says(&json!({"instruction": "Write to jane.doe@company.io about it."})),
            _ => instruction(&name),
        },
        (_, (name, false)) => match name.as_str() {
            "compute5" => task("median"),
            "compute6" => says(&json!({"instruction": "Write it in prose.", "code": "Let there be a sum."})),
            _ => task(&name.replace("compute", "total")),
        },
    });
    let run = || {
        let more = [&REMOTE[..], &["--evolve", "1"]].concat();
        result(&curate(folder.path(), &server.address, &more).output().unwrap())
    };
    let counts = run();
    let dropped = json!({"benchmark": 1, "secret": 1, "syntax": 1, "teacher-malformed": 1});
    let secret = json!({"path": "a.ts", "line": 22, "name": "compute4", "rule": "email-address"});
    let expected = json!({
        "read": 38, "kept": 34, "dropped": dropped, "repeats": [], "secrets": [secret], "unread": [],
        "ignored_secret_rules": [],
    });
    assert_eq!(counts, expected);
    let rows = rows(folder.path());
    assert_eq!(
        rows[0],
        json!({
            "instruction": "Write compute0, which computes.", "output": rows[0]["output"], "repo": "src", "path": "a.ts",
            "language": "typescript", "name": "compute0", "kind": "function", "lines": [2, 5], "teacher": "there/gpt",
        })
    );
    assert_eq!((&rows[18]["name"], &rows[18]["evolved"]), (&json!("total0"), &json!(1)));
    assert_eq!(rows.len(), 34);
    let seen = server.seen();
    assert_eq!(seen.len(), 2 + FUNCTIONS + 18, "two asked again, every function, and those that were taught");
    assert!(seen.iter().all(|(first, headers, body)| first == "POST /v1/chat/completions HTTP/1.1"
        && headers.contains("authorization: bearer a secret")
        && body["model"] == "there/gpt"
        && body["messages"][0]["role"] == "system"
        && body["seed"].is_u64()));
    let card = fs::read_to_string(folder.path().join("data.md")).unwrap();
    assert!(card.contains("Those of style `write` are written by `there/gpt` (prompts "), "{card}");
    assert_eq!(run(), counts);
    assert_eq!(server.seen().len(), seen.len(), "answers are kept");
}

#[test]
fn a_run_that_is_killed_goes_on_and_repeats_no_answered_request() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    const ANSWERED: usize = 9;
    // After some answers the server hangs, until it is asked by the second run.
    let hung = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let hangs = hung.clone();
    let server = TestServer::start(move |(_, _, body), before| {
        while before >= ANSWERED && hangs.load(std::sync::atomic::Ordering::SeqCst) {
            sleep(Duration::from_millis(10));
        }
        instruction(&about(body).0)
    });
    let mut first = curate(folder.path(), &server.address, &REMOTE).stdout(Stdio::null()).spawn().unwrap();
    let cache = folder.path().join("data.teacher.jsonl");
    let kept = || fs::read_to_string(&cache).unwrap_or_default().lines().count();
    let started = Instant::now();
    while kept() < ANSWERED {
        assert!(started.elapsed() < Duration::from_secs(60), "no answers");
        sleep(Duration::from_millis(10));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!folder.path().join("data.jsonl").exists());
    let before = server.seen().len();
    hung.store(false, std::sync::atomic::Ordering::SeqCst);
    let counts = result(&curate(folder.path(), &server.address, &REMOTE).output().unwrap());
    assert_eq!(counts["kept"], FUNCTIONS);
    assert_eq!(server.seen().len() - before, FUNCTIONS - ANSWERED);
    assert_eq!(kept(), FUNCTIONS);
}

#[test]
fn a_dead_server_ends_the_run_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let server = TestServer::start(|(_, _, body), before| match before {
        0..3 => instruction(&about(body).0),
        _ => (503, json!({"error": "gone"})),
    });
    let output = curate(folder.path(), &server.address, &REMOTE).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    let last = errors.lines().last().unwrap();
    let words = "no answer in 6 tries: 503: {\"error\":\"gone\"}; run the command again to go on; 3 answers are kept in ";
    assert!(last.contains(words) && last.ends_with("data.teacher.jsonl"), "{errors}");
    assert!(!folder.path().join("data.jsonl").exists());
}

#[test]
fn what_a_teacher_lacks_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let refused = |teacher: &str, more: &[&str], words: &str| {
        let output = curate(folder.path(), teacher, more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.lines().last().unwrap().contains(words), "{errors}");
    };
    let server = TestServer::start(|_, _| (401, json!({"error": "bad key"})));
    refused(&server.address, &REMOTE, "401: {\"error\":\"bad key\"}; set TEACHER_KEY");
    refused(&server.address, &[], "name the teacher with --teacher-model");
    let key = ["--teacher-model", "m", "--teacher-key-env", "NOT_SET_ANYWHERE"];
    refused(&server.address, &key, "NOT_SET_ANYWHERE holds no key");
    refused("/not/there", &[], "/not/there");
    refused("host/v1", &REMOTE, "`host/v1` is no address");
}

/// A model with random weights writes no JSON, but it is asked, heard and counted.
#[test]
fn a_model_folder_teaches_by_our_own_generation() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let model = folder.path().join("model");
    synthetic::write_random_model(&model, &synthetic::config("tiny").unwrap(), 7, &mut |_, _| {}).unwrap();
    let run = || {
        let place = ["--device", "cpu", "--compute", "f32"];
        result(&curate(folder.path(), model.to_str().unwrap(), &place).output().unwrap())
    };
    let counts = run();
    let dropped = json!({"teacher-malformed": FUNCTIONS});
    let expected = json!({
        "read": FUNCTIONS, "kept": 0, "dropped": dropped, "repeats": [], "secrets": [], "unread": [],
        "ignored_secret_rules": [],
    });
    assert_eq!(counts, expected);
    let kept = fs::read(folder.path().join("data.teacher.jsonl")).unwrap();
    assert_eq!(kept.iter().filter(|b| **b == b'\n').count(), FUNCTIONS);
    assert_eq!(run(), counts);
    assert_eq!(fs::read(folder.path().join("data.teacher.jsonl")).unwrap(), kept);
}
