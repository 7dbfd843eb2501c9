//! `codelsi chat`: questions from stdin, answers on stdout, everything else on stderr.

#[path = "common/binary.rs"]
mod binary;

use binary::{codelsi, make_model};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// A small random model in a temporary folder.
fn model() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = make_model(folder.path()).to_str().unwrap().to_owned();
    (folder, path)
}

fn start(model: &str, args: &[&str]) -> Child {
    let mut command = codelsi();
    command.args(["chat", "--model", model, "--device", "cpu"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Returns stdout and stderr of a conversation that succeeds.
fn chat(model: &str, args: &[&str], input: &str) -> (String, String) {
    let mut child = start(model, args);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success() && !stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

const GREEDY: [&str; 4] = ["--temperature", "0", "--max-tokens", "8"];

#[test]
fn a_conversation_remembers_and_forgets() {
    let (_folder, model) = model();
    let (first, stderr) = chat(&model, &GREEDY, "bana\n");
    assert!(!first.trim().is_empty() && first.ends_with('\n'), "{first:?}");
    assert!(stderr.contains("[INST] .. [/INST], for want of a chat template"), "{stderr}");
    // The second answer depends on what was said before, and after /reset it does not.
    let (both, _) = chat(&model, &GREEDY, "bana\nbana\n/exit\nnot asked\n");
    let (reset, stderr) = chat(&model, &GREEDY, "bana\n/reset\nbana\n");
    assert!(both.starts_with(&first) && both.len() > first.len(), "{first:?} {both:?}");
    assert_eq!(reset, first.repeat(2));
    assert_ne!(both, reset);
    assert!(stderr.contains("the conversation is forgotten"), "{stderr}");
    let (system, _) = chat(&model, &[&GREEDY[..], &["--system", "kalo"]].concat(), "bana\n");
    assert_ne!(system, first);
}

#[test]
fn the_model_s_own_template_is_used() {
    let (_folder, model) = model();
    let template = "{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}bana";
    std::fs::write(format!("{model}/chat_template.jinja"), template).unwrap();
    let (_, stderr) = chat(&model, &GREEDY, "hi\n");
    assert!(stderr.contains("the model's own chat template"), "{stderr}");
}

#[test]
fn the_oldest_turns_make_room_and_a_question_that_never_fits_is_refused() {
    let (_folder, model) = model();
    let args = [&GREEDY[..], &["--context-length", "64"]].concat();
    let input = "bana\n".repeat(6) + &"kalo ".repeat(100) + "\nbana\n";
    let (stdout, stderr) = chat(&model, &args, &input);
    assert!(stderr.contains("oldest 1 turns do not fit the context"), "{stderr}");
    assert!(stderr.contains("codelsi: the question has") && stderr.contains("room for 56"), "{stderr}");
    assert!(stdout.lines().count() >= 7, "the conversation goes on:\n{stdout}\n{stderr}");
}

#[test]
fn commands_and_questions_of_several_lines() {
    let (_folder, model) = model();
    let (stdout, stderr) = chat(&model, &GREEDY, "/help\n/nothing\n\n   \n");
    assert_eq!(stdout, "");
    assert!(stderr.contains("/reset forgets") && stderr.contains("/nothing is no command"), "{stderr}");
    let (one, _) = chat(&model, &GREEDY, "\"\"\"bana\nkalo\"\"\"\n");
    let (two, _) = chat(&model, &GREEDY, "\"\"\"\nbana\nkalo\n\"\"\"\n");
    let (split, _) = chat(&model, &GREEDY, "bana\nkalo\n");
    assert_eq!(one, two);
    assert_ne!(one, split);
}

#[test]
fn sigint_ends_the_answer_and_not_the_program() {
    let (_folder, model) = model();
    let args = ["--temperature", "0", "--max-tokens", "480"];
    let mut child = start(&model, &args);
    let mut stdin = child.stdin.take().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(stderr.any(|line| line.contains("/help")));
    let (id, answered) = (child.id().to_string(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Signals between answers do nothing; of so many answers, one meets a signal.
        scope.spawn(|| {
            while !answered.load(Ordering::Relaxed) {
                assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
            }
        });
        stdin.write_all("bana\n".repeat(20).as_bytes()).unwrap();
        stdin.write_all(b"/reset\nbana\n").unwrap();
        drop(stdin);
        let interrupted = stderr.any(|line| line == "(interrupted)");
        answered.store(true, Ordering::Relaxed);
        assert!(interrupted);
    });
    // The last one is whole.
    stderr.for_each(drop);
    let output = child.wait_with_output().unwrap();
    let (whole, _) = chat(&model, &args, "bana\n");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && stdout.ends_with(&whole), "{stdout:?} {whole:?}");
}
