//! Text in, text out: `tokenize`, and what `generate` says of a sample.

use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

/// A small random model in a temporary folder.
struct Model {
    folder: tempfile::TempDir,
}

impl Model {
    fn new() -> Self {
        let model = Model { folder: tempfile::tempdir().unwrap() };
        let made = model.run(&["mkmodel", "--shape", "tiny", "--out", &model.path("m")], "");
        assert!(made.0, "{}", made.2);
        model
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs the program; returns success, stdout and stderr.
    fn run(&self, args: &[&str], input: &str) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
        let command = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// Runs a command on the model; returns its JSON.
    fn json(&self, command: &str, args: &[&str]) -> Value {
        let model = self.path("m");
        let (ok, stdout, stderr) = self.run(&[&[command, "--model", &model, "--json"], args].concat(), "");
        assert!(ok, "{stderr}");
        serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
    }

    /// Runs a command that fails; returns its one line.
    fn error(&self, command: &str, args: &[&str]) -> String {
        let model = self.path("m");
        let (ok, _, stderr) = self.run(&[&[command, "--model", &model], args].concat(), "");
        assert!(!ok, "{stderr}");
        let line = stderr.lines().last().unwrap().to_owned();
        assert!(line.starts_with("codelsi: ") && !stderr.contains("panicked"), "{stderr}");
        line
    }
}

#[test]
fn a_text_s_tokens_are_shown_wherever_it_comes_from() {
    let model = Model::new();
    let (text, folder) = ("- item bana\n", model.path("m"));
    let shown = model.json("tokenize", &["--text", text]);
    let ids = shown["token_ids"].as_array().unwrap();
    assert_eq!((ids[0].as_u64(), shown["pieces"][0].as_str()), (Some(1), Some("<s>")));
    assert_eq!((shown["pieces"].as_array().unwrap().len(), shown.get("in_loss")), (ids.len(), None));
    let file = model.write("text.txt", text);
    assert_eq!(model.json("tokenize", &["--file", &file]), shown);
    let (ok, stdout, _) = model.run(&["tokenize", "--model", &folder], text);
    assert!(ok && stdout.lines().count() == ids.len() && stdout.starts_with("      1  <s>\n"), "{stdout}");
}

#[test]
fn a_row_s_tokens_are_shown_with_its_loss_mask() {
    let model = Model::new();
    let rows = [r#"{"instruction": "a", "output": "b"}"#, r#"{"instruction": "add", "output": "let a;"}"#];
    let data = model.write("rows.jsonl", &rows.join("\n"));
    let shown = model.json("tokenize", &["--data", &data, "--row", "1", "--template", "plain"]);
    let in_loss: Vec<bool> = serde_json::from_value(shown["in_loss"].clone()).unwrap();
    let answer = in_loss.iter().position(|&in_loss| in_loss).unwrap();
    assert!(answer > 3 && in_loss[answer..].iter().all(|&in_loss| in_loss), "{shown}");
    let pieces = shown["pieces"].as_array().unwrap();
    assert_eq!((&pieces[answer - 1], pieces.last().unwrap()), (&json!("<0x0A>"), &json!("</s>")));
    let error = model.error("tokenize", &["--data", &data, "--row", "2"]);
    assert!(error.contains("no row 2"), "{error}");
}

#[test]
fn a_sample_carries_its_log_probabilities_and_goes_on_past_the_end_if_asked() {
    let model = Model::new();
    let greedy = ["--prompt", "- one", "--temperature", "0", "--max-tokens", "8"];
    let generate =
        |more: &[&str]| model.json("generate", &[&greedy[..], more].concat())["completions"][0].clone();
    let sample = generate(&[]);
    let logprobs: Vec<f64> = serde_json::from_value(sample["logprobs"].clone()).unwrap();
    assert_eq!(logprobs.len(), sample["token_ids"].as_array().unwrap().len());
    assert!(logprobs.iter().all(|&p| p < 0.0 && p > -30.0), "{logprobs:?}");
    // The token that comes second is declared to end a text.
    let second = &sample["token_ids"][1];
    model.write("m/generation_config.json", &json!({ "eos_token_id": [2, second] }).to_string());
    let ended = generate(&[]);
    assert_eq!(
        (ended["token_ids"].as_array().unwrap().last(), &ended["finish_reason"]),
        (Some(second), &json!("stop"))
    );
    assert_eq!(generate(&["--ignore-eos"])["token_ids"], sample["token_ids"]);
    let (_, _, stderr) = model.run(&[&["generate", "--model", &model.path("m")], &greedy[..]].concat(), "");
    assert!(stderr.contains("text ends at </s> (2), "), "{stderr}");
}

#[test]
fn a_prompt_may_come_from_stdin() {
    let model = Model::new();
    let path = model.path("m");
    let generate = |prompt: &str, input: &str| {
        let args =
            ["generate", "--model", &path, "--temperature", "0", "--max-tokens", "8", "--prompt", prompt];
        let (ok, stdout, stderr) = model.run(&args, input);
        assert!(ok, "{stderr}");
        stdout
    };
    let text = "bana\n  kalo\n";
    assert_eq!(generate("-", text), generate(text, ""), "to the last newline");
    assert_ne!(generate("-", text), generate("-", "bana"));
}

#[test]
fn a_prompt_is_written_by_the_model_s_chat_template() {
    let model = Model::new();
    let message = model.error("generate", &["--prompt", "hi", "--template", "chat"]);
    assert!(message.contains("has no chat template"), "{message}");
    model.write(
        "m/chat_template.jinja",
        "{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}bana",
    );
    let shown = model.json("tokenize", &["--text", "hi</s>", "--template", "chat"]);
    let ends = shown["pieces"].as_array().unwrap().iter().filter(|piece| **piece == "</s>").count();
    assert_eq!((ends, &shown["token_ids"][0] == 1), (1, false), "{shown}");
    model.json("generate", &["--prompt", "hi", "--template", "chat", "--max-tokens", "2"]);
}

#[test]
fn too_many_tokens_are_refused_in_one_line() {
    let model = Model::new();
    let message = model.error("generate", &["--prompt", "hi", "--max-tokens", "100000"]);
    assert!(message.contains("exceed the model's 512 positions"), "{message}");
    let args =
        ["generate", "--model", &model.path("m"), "--prompt", "hi", "--max-tokens", "18446744073709551615"];
    let (ok, _, stderr) = model.run(&args, "");
    assert!(
        !ok && stderr.starts_with("error: invalid value") && stderr.contains("is not in 1..="),
        "{stderr}"
    );
}
