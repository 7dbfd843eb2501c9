//! `codelsi evaluate --endpoint`: a model on a server, in the same table and under the same protocol as our own.

mod common;

use common::{TestServer, choices};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Two sums, of which the server's model solves the first.
fn problems(folder: &Path) {
    let problem = |name: &str, sum: i32| {
        json!({
            "name": name, "language": "ts", "prompt": "// Adds.\nfunction add(a: number, b: number): number {\n",
            "tests": format!("declare var require: any;\nconst assert = require('node:assert');\nassert.deepEqual(add(2, 3), {sum});"),
            "stop_tokens": ["\nfunction "],
        })
    };
    let lines = [problem("first", 5), problem("second", 6)].map(|p| p.to_string() + "\n");
    fs::write(folder.join("problems.jsonl"), lines.concat()).unwrap();
}

fn evaluate(folder: &Path, address: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
    command.args(["evaluate", "--endpoint", address, "--endpoint-model", "there/gpt", "-n", "3", "--json"]);
    command.arg("--problems").arg(folder.join("problems.jsonl")).arg("--out").arg(folder.join("run"));
    command.args(more).env("CODELSI_API_KEY", "a secret").output().unwrap()
}

#[test]
fn a_server_s_model_is_measured_and_a_second_run_asks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    problems(folder.path());
    // Busy at first, then two choices at most.
    let server = TestServer::start(|(_, _, body), before| match before {
        0 => (429, json!({"error": "slow down"})),
        _ => (200, choices(body["n"].as_u64().unwrap().min(2), || json!({"text": "  return a + b;\n}"}))),
    });
    let run = || evaluate(folder.path(), &server.address, &[]);
    let output = run();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&result["models"][0]["name"], &result["models"][0]["pass_at_1"]),
        (&json!("there-gpt"), &json!(0.5))
    );
    let seen = server.seen();
    assert_eq!(seen.len(), 5, "one refused, and two for each problem");
    assert!(seen.iter().all(|(first, headers, body)| first == "POST /v1/completions HTTP/1.1"
        && headers.contains("authorization: bearer a secret")
        && body["model"] == "there/gpt"
        && body["prompt"].as_str().unwrap().starts_with("// Adds.")
        && body["stop"] == json!(["\nfunction "])));
    assert!(folder.path().join("run/report.html").exists());
    assert!(run().status.success());
    assert_eq!(server.seen().len(), 5, "samples are kept");
}

#[test]
fn a_model_that_chats_gets_a_message() {
    let folder = tempfile::tempdir().unwrap();
    problems(folder.path());
    let answer =
        "Sure:\n```typescript\nfunction add(a: number, b: number): number {\n  return a + b;\n}\n```";
    let server = TestServer::start(move |(_, _, body), _| {
        (200, choices(body["n"].as_u64().unwrap(), || json!({"message": {"content": answer}})))
    });
    let output = evaluate(folder.path(), &server.address, &["--prompt-format", "inst"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"pass_at_1\":0.5"));
    for (first, _, body) in server.seen() {
        assert_eq!(first, "POST /v1/chat/completions HTTP/1.1");
        let message = body["messages"][0]["content"].as_str().unwrap();
        assert!(
            message.starts_with("Write the TypeScript function `add(") && !message.contains("[INST]"),
            "{message}"
        );
    }
}

#[test]
fn what_a_server_refuses_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    problems(folder.path());
    let refused = |address: &str, words: &str| {
        let output = evaluate(folder.path(), address, &[]);
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.lines().last().unwrap().contains(words), "{errors}");
    };
    let with = |status: u16, body: Value| TestServer::start(move |_, _| (status, body.clone())).address;
    refused(&with(401, json!({"error": "bad key"})), "401: {\"error\":\"bad key\"}; set CODELSI_API_KEY");
    refused(&with(404, json!({})), "use --prompt-format inst");
    refused(&with(200, json!({"choices": [{}]})), "no choices with a text");
    refused("nowhere", "`nowhere` is no address");
}
