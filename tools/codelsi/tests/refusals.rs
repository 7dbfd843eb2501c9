//! Refusals of measurements and plans that cannot be made name the wrong flag or what would help.

use std::path::Path;
use std::process::{Command, Output};

fn codelsi(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_codelsi")).args(args).output().unwrap()
}

/// Runs a command that must fail with exit status 1, and returns its line on stderr.
fn refused(args: &[&str]) -> String {
    let output = codelsi(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    text.lines().last().unwrap_or_default().to_owned()
}

/// Makes a tiny model and a file of one problem, and returns the arguments that evaluate the one on the other.
fn evaluation(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    assert!(codelsi(&["mkmodel", "--shape", "tiny", "--out", &path("model")]).status.success());
    let problem = r#"{"name": "a", "language": "ts", "prompt": "", "tests": "1;", "stop_tokens": []}"#;
    std::fs::write(folder.join("p.jsonl"), problem).unwrap();
    let args = ["evaluate", "--model", &path("model"), "--problems", &path("p.jsonl"), "--out", &path("out")];
    let rest = ["--judge", "embedded", "--device", "cpu"];
    args.into_iter().chain(rest).map(str::to_owned).collect()
}

#[test]
fn settings_that_measure_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluation(folder.path());
    for (flags, named) in [
        (["-n", "0"], "--samples"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--temperature", "nan"], "--temperature"),
        (["--temperature=-1", "--seed=1"], "--temperature"),
        (["--top-p", "0"], "top-p"),
        (["--top-p", "2"], "--top-p"),
        (["--limit", "0"], "--limit"),
    ] {
        let args: Vec<&str> = evaluation.iter().map(String::as_str).chain(flags).collect();
        let output = codelsi(&args);
        let text = String::from_utf8_lossy(&output.stderr);
        // 1 for input that is refused, 2 for a value out of its flag's range.
        assert!(matches!(output.status.code(), Some(1 | 2)), "{flags:?}: {text}");
        assert!(text.contains(named), "{flags:?}: {text}");
    }
}

#[test]
fn a_plan_that_does_not_fit_says_what_would_help() {
    let plan = ["plan", "--shape", "tiny", "--device", "cpu", "--memory", "65536"];
    let line = refused(&plan);
    assert!(line.contains("does not fit") && line.contains("--seq"), "{line}");
    let line = refused(&[&plan[..], &["--generate"]].concat());
    assert!(line.contains("--sequences") && line.contains("--context-length"), "{line}");
    let fits = codelsi(&["plan", "--shape", "tiny", "--device", "cpu", "--memory", "64GiB", "--seq", "64"]);
    assert!(fits.status.success(), "{}", String::from_utf8_lossy(&fits.stderr));
}

#[test]
fn more_tokens_than_the_model_has_positions_are_refused() {
    let line = refused(&["plan", "--shape", "tiny", "--device", "cpu", "--seq", "513"]);
    assert!(line.contains("--seq 513 exceeds the model's 512 positions"), "{line}");
}

#[test]
fn an_export_writes_a_file_and_a_modelfile_and_replaces_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, gguf) = (path("model"), path("out/tiny.gguf"));
    assert!(codelsi(&["mkmodel", "--shape", "tiny", "--out", &model]).status.success());
    let export = ["export", "--model", &model, "--gguf", &gguf, "--type", "q8_0", "--json"];
    let output = codelsi(&export);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json = String::from_utf8(output.stdout).unwrap();
    assert!(json.starts_with("{\"out\":") && json.contains("\"type\":\"q8_0\""), "{json}");
    assert!(std::fs::read(&gguf).unwrap().starts_with(b"GGUF"));
    let modelfile = path("out/Modelfile");
    assert!(std::fs::read_to_string(&modelfile).unwrap().contains("FROM ./tiny.gguf"));
    std::fs::write(&modelfile, "FROM mine\n").unwrap();
    std::fs::remove_file(&gguf).unwrap();
    assert!(refused(&export).contains("is not overwritten"));
    assert!(!Path::new(&gguf).exists());
    for args in [
        &["export", "--model", &model, "--gguf", &path("model/model.safetensors")][..],
        &["export", "--model", &model, "--gguf-adapter", &gguf],
        &["export", "--model", &model],
    ] {
        assert_eq!(codelsi(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_bare_command_prints_its_help_and_names_the_demo() {
    let output = codelsi(&[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("Usage: codelsi") && text.contains("codelsi demo"),
        "{text}"
    );
}

#[test]
fn a_recipe_that_is_none_is_refused_by_what_is_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recipe.json");
    let pipeline = |recipe: &str| {
        std::fs::write(&file, recipe).unwrap();
        let out = folder.path().join("run").to_str().unwrap().to_owned();
        refused(&["pipeline", "--recipe", file.to_str().unwrap(), "--out", &out])
    };
    for (recipe, named) in [
        ("{", "recipe.json"),
        ("[]", "a recipe is a JSON object"),
        (r#"{"recipe": "cake"}"#, r#"it is "demo" or "paper""#),
        (r#"{"recipe": "demo", "general": {"rank": -3}}"#, "general: rank: -3"),
        (r#"{"recipe": "demo", "specialized": {"flour": 1}}"#, "specialized: flour"),
        (r#"{"recipe": "demo", "evaluation": {"samples": 0}}"#, "samples"),
    ] {
        let line = pipeline(recipe);
        assert!(line.contains(named), "{recipe}: {line}");
    }
    let output = codelsi(&["pipeline", "--recipe", "cake"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
