use super::*;
use std::fs;

const SOURCE: &str = "
/**
 * Adds two numbers and returns the sum of both.
 * @param a the first
 */
export function add(a: number, b: number): number {
  return a + b;
}

/** Adds two numbers, once more. */
export function add(a: number,  b: number): number {
    return a + b;
}

function quiet(a: number): number {
  return a * a * a * a * a * a * a * a;
}

/** Returns the median of all the values. */
function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

/** Is gone soon, do not use. @deprecated
 * @deprecated
 */
function old(a: number): number {
  return a + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1;
}

/** One is too short. */
const one = () => 1;

/** Holds a rather long line of data. */
function data(): string {
  return 'LINE';
}

/** Is broken beyond repair. */
function broken(a: number): number {
  return a +* ;
}
";

/// A folder with [`SOURCE`] and a problem, and the options that read them.
fn prepare(folder: &std::path::Path) -> Options {
    fs::create_dir(folder.join("src")).unwrap();
    fs::write(folder.join("src/math.ts"), SOURCE.replace("LINE", &"x".repeat(500))).unwrap();
    fs::write(folder.join("src/video.ts"), [0x47, 0xff]).unwrap();
    let problem = Problem {
        name: "20_median".into(),
        prompt: "//Return median of elements in the array l.\nfunction median(l: number[]): number {\n"
            .into(),
        tests: String::new(),
    };
    jsonl::write(folder.join("problems.jsonl"), &[problem]).unwrap();
    Options {
        paths: vec![folder.join("src")],
        against: vec![folder.join("problems.jsonl")],
        ..Options::default()
    }
}

#[test]
fn every_item_is_kept_or_counted_by_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, counts) = run(&prepare(folder.path()), &|_, _| ()).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["add"]);
    assert!(
        rows[0].instruction.contains("Adds two numbers and returns the sum")
            && rows[0].output.starts_with("function add")
    );
    let reasons =
        ["benchmark", "deprecated", "duplicate", "no-comment", "not-utf8", "syntax", "too-long", "too-short"];
    assert_eq!(counts.dropped, reasons.into_iter().map(|r| (r, 1)).collect());
    assert_eq!((counts.read, counts.kept), (9, 1));
}

#[test]
fn a_corpus_gives_what_its_folder_gives_with_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = prepare(folder.path());
    let from_folder = run(&options, &|_, _| ()).unwrap().0;
    let corpus = folder.path().join("corpus.jsonl");
    let content = fs::read_to_string(folder.path().join("src/math.ts")).unwrap().replace('\n', "\r\n");
    let line = serde_json::json!({"path": "math.ts", "content": content, "repo": "a/b", "license": "MIT"});
    fs::write(&corpus, format!("{line}\n{{\"path\": \"a.js\", \"content\": \"\"}}\n")).unwrap();
    options.paths = vec![corpus];
    let from_corpus = run(&options, &|_, _| ()).unwrap().0;
    let origin = |row: &Row| Row { repo: Some("a/b".into()), license: Some("MIT".into()), ..row.clone() };
    assert_eq!(from_corpus, from_folder.iter().map(origin).collect::<Vec<_>>());
}

#[test]
fn threads_do_not_change_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = prepare(folder.path());
    for i in 0..40 {
        let source = SOURCE.replace("add", &format!("add{i}"));
        fs::write(folder.path().join(format!("src/{i}.ts")), source).unwrap();
    }
    options.against.clear();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&options, &|_, _| ())).unwrap()
    };
    let one = with(1);
    assert!(one.0.len() > 40);
    assert_eq!(with(7), one);
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = prepare(folder.path());
    fs::write(folder.path().join("problems.jsonl"), "{\"name\": \"x\"}\n").unwrap();
    let message = run(&options, &|_, _| ()).unwrap_err().to_string();
    assert!(
        message.contains("problems.jsonl: line 1") && message.contains("missing field `prompt`"),
        "{message}"
    );
    options.paths.clear();
    assert!(run(&options, &|_, _| ()).unwrap_err().to_string().contains("nothing to curate"));
}
