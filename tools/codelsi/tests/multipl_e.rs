//! MultiPL-E's own files through `judge`: packed problems and completions in, results out.

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};

fn pack(path: &Path, text: &[u8]) {
    let mut packed = GzEncoder::new(File::create(path).unwrap(), Compression::default());
    packed.write_all(text).unwrap();
    packed.finish().unwrap();
}

fn problem(name: &str) -> Value {
    json!({
        "name": name, "language": "js", "prompt": format!("function {name}(n) {{\n"),
        "tests": format!("const assert = require('node:assert');\nassert.deepEqual({name}(2), 4);"),
        "stop_tokens": ["\nfunction "],
    })
}

/// MultiPL-E's file of a problem with these completions.
fn completions(name: &str, completions: &[&str]) -> String {
    let mut file = problem(name);
    let object = file.as_object_mut().unwrap();
    object.extend([("completions".into(), json!(completions)), ("temperature".into(), json!(0.2))]);
    file.to_string()
}

/// Judges by the embedded judge, with the paths in the folder.
fn judge(folder: &Path, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codelsi"));
    command.args(["judge", "--judge", "embedded", "--out", "verdicts.jsonl"]).args(words.split(' '));
    command.current_dir(folder).output().unwrap()
}

fn results(path: &Path) -> Value {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The status and the exit code of each result.
fn ends(file: &Value) -> Vec<(String, i64)> {
    let end = |r: &Value| (r["status"].as_str().unwrap().to_owned(), r["exit_code"].as_i64().unwrap());
    file["results"].as_array().unwrap().iter().map(end).collect()
}

#[test]
fn packed_completions_are_judged_with_and_without_a_file_of_problems() {
    let folder = tempfile::tempdir().unwrap();
    let all = folder.path().join("all");
    fs::create_dir(&all).unwrap();
    let solved = "return n * n;\n}";
    pack(
        &all.join("square.json.gz"),
        completions("square", &[solved, "return n;\n}", "return m;\n}"]).as_bytes(),
    );
    fs::write(all.join("twice.json"), completions("twice", &["return 2 * n;\n}", "return 2 *"])).unwrap();
    let set = [problem("square"), problem("twice")];
    pack(&folder.path().join("p.jsonl.gz"), set.map(|p| format!("{p}\n")).concat().as_bytes());
    let expected = [
        ("square", vec![("OK".into(), 0), ("AssertionError".into(), 1), ("ReferenceError".into(), 1)]),
        ("twice", vec![("OK".into(), 0), ("SyntaxError".into(), 1)]),
    ];
    for (to, problems) in [("own", ""), ("set", " --problems p.jsonl.gz"), ("folder", " --problems all")] {
        let output = judge(folder.path(), &format!("--completions all --multipl-e {to}{problems}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for (name, expected) in &expected {
            let file = results(&folder.path().join(to).join(format!("{name}.results.json.gz")));
            assert_eq!((&ends(&file), file["temperature"].as_f64()), (expected, Some(0.2)), "{to} {name}");
            assert_eq!((&file["name"], &file["completions"]), (&json!(name), &Value::Null));
        }
    }
    // As its evaluation does, beside the completions.
    let output = judge(folder.path(), "--completions all --multipl-e all --problems p.jsonl.gz");
    assert!(output.status.success() && all.join("square.json.gz").exists());
    let file = results(&all.join("square.results.json.gz"));
    assert_eq!(
        file["results"][0]["program"],
        json!(format!(
            "{}{solved}\n{}",
            problem("square")["prompt"].as_str().unwrap(),
            problem("square")["tests"].as_str().unwrap()
        ))
    );
}

#[test]
fn what_cannot_be_judged_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("ours.jsonl"), "{\"id\": \"1\", \"name\": \"square\", \"completion\": \"\"}\n").unwrap();
    pack(&path("bomb.json.gz"), &vec![b' '; 65 << 20]);
    pack(&path("cut.json.gz"), completions("square", &["return n;"]).as_bytes());
    let bytes = fs::read(path("cut.json.gz")).unwrap();
    fs::write(path("cut.json.gz"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(path("square.json"), completions("square", &["return n;"])).unwrap();
    fs::create_dir(path("used")).unwrap();
    fs::write(path("used/other.results.json.gz"), "").unwrap();
    for (words, expected) in [
        ("--completions ours.jsonl", "give their problems by --problems"),
        ("--completions bomb.json.gz", "bomb.json.gz: unpacks to more than 64 MiB"),
        ("--completions cut.json.gz", "cut.json.gz: "),
        ("--completions square.json --multipl-e used", "holds `other.results.json.gz`, of another run"),
    ] {
        let output = judge(folder.path(), words);
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{words}: {text}");
        assert!(text.contains(expected) && !path("verdicts.jsonl").exists(), "{words}: {text}");
    }
}
