use super::*;
use codelsi_model::jsonl;
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

/// Writes [`SOURCE`] and a benchmark problem to a folder; returns options that read them.
fn prepare(folder: &std::path::Path) -> CurateOptions {
    fs::create_dir(folder.join("src")).unwrap();
    fs::write(folder.join("src/math.ts"), SOURCE.replace("LINE", &"x".repeat(500))).unwrap();
    fs::write(folder.join("src/video.ts"), [0x47, 0xff]).unwrap();
    let problem = BenchmarkProblem {
        name: "20_median".into(),
        prompt: "//Return median of elements in the array l.\nfunction median(l: number[]): number {\n"
            .into(),
        ..BenchmarkProblem::default()
    };
    jsonl::write(folder.join("problems.jsonl"), &[problem]).unwrap();
    CurateOptions {
        paths: vec![folder.join("src")],
        against: vec![folder.join("problems.jsonl")],
        ..CurateOptions::default()
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
    let repeats: Vec<_> = counts
        .repeats
        .iter()
        .map(|r| (r.name.as_str(), r.matched.problem.as_str(), r.matched.reason))
        .collect();
    assert_eq!(repeats, [("median", "20_median", MatchReason::Signature)]);
    let card = dataset_card(&CurateOptions::default(), &rows, &counts);
    assert!(card.contains("| 20_median by its signature | 1 |"), "{card}");
}

#[test]
fn a_class_whose_method_repeats_a_problem_is_dropped_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = prepare(folder.path());
    let class = |name: &str, method: &str| {
        format!(
            "/** Holds some numbers for all. */\nclass {name} {{\n  {method}(values: number[]): number {{\n    return values[values.length >> 1] + 0;\n  }}\n}}\n"
        )
    };
    fs::write(folder.path().join("src/math.ts"), class("Good", "middle") + &class("Bad", "median")).unwrap();
    let (rows, counts) = run(&options, &|_, _| ()).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["Good"]);
    let repeats: Vec<&str> = counts.repeats.iter().map(|repeat| repeat.name.as_str()).collect();
    assert_eq!(repeats, ["Bad"]);
}

#[test]
fn a_corpus_gives_the_rows_of_its_folder_with_their_provenance() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = prepare(folder.path());
    let from_folder = run(&options, &|_, _| ()).unwrap().0;
    let corpus = folder.path().join("corpus.jsonl");
    let content = fs::read_to_string(folder.path().join("src/math.ts")).unwrap().replace('\n', "\r\n");
    let line = serde_json::json!({"path": "math.ts", "content": content, "repo": "a/b", "license": "MIT"});
    fs::write(&corpus, format!("{line}\n{{\"path\": \"a.js\", \"content\": \"\"}}\n")).unwrap();
    options.paths = vec![corpus];
    let from_corpus = run(&options, &|_, _| ()).unwrap().0;
    let origin = |row: &CuratedRow| CuratedRow {
        repo: Some("a/b".into()),
        license: Some("MIT".into()),
        ..row.clone()
    };
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
    options.styles = InstructionStyle::ALL.to_vec();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&options, &|_, _| ())).unwrap()
    };
    let one = with(1);
    assert!(one.0.len() > 40);
    assert_eq!(with(7), one);
}

#[test]
fn every_style_gives_a_row_or_a_count_and_leaves_style_write_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = prepare(folder.path());
    let (written, alone) = run(&options, &|_, _| ()).unwrap();
    options.styles = InstructionStyle::ALL.to_vec();
    let (rows, counts) = run(&options, &|_, _| ()).unwrap();
    let styles: Vec<InstructionStyle> = rows.iter().map(|row| row.style).collect();
    use InstructionStyle::{Continue, Explain, Fix, Infill, Write};
    assert_eq!(styles, [Write, Explain, Fix, Continue, Infill]);
    assert_eq!(rows[..1], written);
    let missing_reason = [InstructionStyle::Complete, InstructionStyle::Refactor, InstructionStyle::Test]
        .map(|style| (style.missing_reason(), 1));
    let mut dropped = alone.dropped.clone();
    dropped.extend(missing_reason);
    assert_eq!((counts.dropped, counts.read, counts.kept), (dropped, alone.read + 7, 5));
    let line = |row: &CuratedRow| serde_json::to_string(row).unwrap();
    assert!(!line(&rows[0]).contains("style") && line(&rows[2]).ends_with(",\"style\":\"fix\"}"));
    options.seed += 1;
    assert_eq!(run(&options, &|_, _| ()).unwrap().0.len(), 5);
    assert_eq!(rows[3].template.as_deref(), Some("plain"));
    assert!(
        rows[3].instruction.starts_with("//") && rows[3].instruction.ends_with('{'),
        "{}",
        rows[3].instruction
    );
    let head = rows[3].instruction.lines().last().unwrap();
    assert_eq!(format!("{head}\n{}", rows[3].output), rows[0].output);
}

/// The raw comment is part of an instruction of style `complete`, but not of style `write`.
#[test]
fn each_style_is_filtered_by_its_own_text() {
    let folder = tempfile::tempdir().unwrap();
    let code = "export function name(a: number): number {\n  const b = a * a;\n  g(b);\n  return b + 1;\n}\n";
    let source = format!("/**\n * Squares it, and one more.\n * @author jane.doe@company.io\n */\n{code}");
    fs::write(folder.path().join("a.ts"), source).unwrap();
    let styles = vec![InstructionStyle::Write, InstructionStyle::Complete];
    let options = CurateOptions { paths: vec![folder.path().into()], styles, ..CurateOptions::default() };
    let (rows, counts) = run(&options, &|_, _| ()).unwrap();
    assert_eq!((rows.len(), rows[0].style), (1, InstructionStyle::Write));
    assert_eq!(counts.dropped, [("secret", 1)].into());
}

/// A tokenizer of words separated by white space.
const WORDS: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
    "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
    "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}"#;

#[test]
fn a_tokenizer_measures_rows_and_drops_long_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = prepare(folder.path());
    options.styles = vec![InstructionStyle::Write, InstructionStyle::Fix];
    options.tokenizer = Some(folder.path().join("tokenizer.json"));
    assert!(run(&options, &|_, _| ()).unwrap_err().to_string().contains("tokenizer.json"));
    fs::write(folder.path().join("tokenizer.json"), WORDS).unwrap();
    let (rows, counts) = run(&options, &|_, _| ()).unwrap();
    let words =
        |row: &CuratedRow| row.instruction.split_whitespace().chain(row.output.split_whitespace()).count();
    assert_eq!(counts.lengths, rows.iter().map(words).collect::<Vec<_>>());
    assert_eq!(rows.len(), 2);
    assert!(
        dataset_card(&options, &rows, &counts)
            .contains("tokenizer.json`:\n\n```\n   to 32       0 \n   to 64       2 #")
    );
    options.limits.max_tokens = counts.lengths[0];
    let (fitting, counts) = run(&options, &|_, _| ()).unwrap();
    assert_eq!((&fitting[..], counts.dropped["too-many-tokens"]), (&rows[..1], 1));
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
    options.styles = vec![InstructionStyle::Fix, InstructionStyle::Write, InstructionStyle::Fix];
    assert!(run(&options, &|_, _| ()).unwrap_err().to_string().contains("style fix is asked for twice"));
    options.paths.clear();
    assert!(run(&options, &|_, _| ()).unwrap_err().to_string().contains("nothing to curate"));
}

/// Files of one function each, with the expected reason for each.
#[test]
fn generated_code_licences_secrets_and_near_duplicates_are_dropped_with_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let body = |step: usize| -> String {
        (0..9).map(|i| format!("  total += values[{}] * {step};\n", i * step)).collect()
    };
    let function = |name: &str, comment: &str, line: &str, step: usize| {
        let code = format!(
            "export function {name}(values: number[], total = 0) {{\n{line}{}  return total;\n}}\n",
            body(step)
        );
        format!("/** {comment} */\n{code}")
    };
    let comment = "Adds up some of the values given.";
    let token = ["ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"].concat();
    let files = [
        ("a.ts", function("plain", comment, "", 2)),
        ("b.ts", function("renamed", comment, "", 2)),
        ("c.ts", format!("// Code generated by a tool. DO NOT EDIT.\n{}", function("made", comment, "", 3))),
        ("d.ts", function("keyed", comment, &format!("  const key = '{token}';\n"), 5)),
        ("e.ts", function("mailed", "Adds up what jane.doe@company.io has sent to us.", "", 7)),
        ("f.ts", function("legal", "Copyright (c) somebody, all rights reserved, and so on.", "", 11)),
        ("g.ts", function("other", comment, "", 13)),
    ];
    for (name, text) in &files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let curated = |resemblance| {
        let options = CurateOptions {
            paths: vec![folder.path().into()],
            near_duplicate_threshold: resemblance,
            ..CurateOptions::default()
        };
        let (rows, counts) = run(&options, &|_, _| {}).unwrap();
        let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
        let card = dataset_card(&options, &rows, &counts);
        (names, counts, card)
    };
    let (names, counts, card) = curated(Some(0.85));
    assert_eq!(names, ["plain", "other"]);
    let reasons = [("generated", 1), ("licence", 1), ("near-duplicate", 1), ("secret", 2)];
    assert_eq!(counts.dropped, reasons.into_iter().collect());
    assert_eq!((counts.read, counts.kept), (7, 2));
    for line in ["2 of 7 items are kept", "| secret | 2 |", "| unknown | 2 |", "rows may repeat one"] {
        assert!(card.contains(line), "no `{line}` in {card}");
    }
    assert_eq!(curated(None).0, ["plain", "renamed", "other"]);
}

/// One language at a time, or several at once.
#[test]
fn only_the_requested_languages_give_rows() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let body = "return a * a + a * a - a * a + a * a - a * a * a * a + a * a * a";
    put("a.ts", &format!("/** Squares it, in TypeScript. */\nfunction f(a: number) {{\n  {body};\n}}\n"));
    put("a.js", &format!("/** Squares it, in JavaScript. */\nfunction f(a) {{\n  {body};\n}}\n"));
    put("a.py", &format!("def f(a):\n    \"\"\"Squares it, in Python.\"\"\"\n    b = a\n    {body}\n"));
    put(
        "A.java",
        &format!("class A {{\n  /** Squares it, in Java. */\n  int f(int a) {{\n    {body};\n  }}\n}}\n"),
    );
    put("a.cpp", &format!("/// Squares it, in C++.\nlong f(long a) {{\n  {body};\n}}\n"));
    put("a.rs", &format!("/// Squares it, in Rust.\nfn f(a: i64) -> i64 {{\n    {body}\n}}\n"));
    let first_lines = |languages: &[Language]| {
        let options = CurateOptions {
            paths: vec![folder.path().into()],
            languages: languages.to_vec(),
            ..CurateOptions::default()
        };
        let (rows, _) = run(&options, &|_, _| ()).unwrap();
        assert!(
            rows.iter().all(|row| row.instruction.contains(&format!("in {}.", row.language.table().name)))
        );
        rows.iter().map(|row| row.instruction.lines().next().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        first_lines(&CurateOptions::default().languages),
        ["Write the TypeScript function `f(a: number)`."]
    );
    assert_eq!(first_lines(&[Language::Python]), ["Write the Python function `f(a)`."]);
    let all = [
        "Write the method `int f(int a)` of the Java class `A`.",
        "Write the C++ function `long f(long a)`.",
        "Write the JavaScript function `f(a)`.",
        "Write the Python function `f(a)`.",
        "Write the Rust function `f(a: i64) -> i64`.",
        "Write the TypeScript function `f(a: number)`.",
    ];
    assert_eq!(first_lines(&Language::ALL), all);
}

#[test]
fn code_that_is_mostly_comments_or_minified_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let code = "  const b = a * a + a * a;\n  return b * b;\n";
    let comment =
        "  // All that follows here was thought of long ago by somebody else, and is told at length.\n";
    put("a.ts", &format!("/** Squares it and more. */\nfunction f(a: number) {{\n{comment}{code}}}\n"));
    put(
        "b.ts",
        &format!("/** Squares it and more. */\nfunction g(a: number) {{\n{comment}{comment}{code}}}\n"),
    );
    let long = "a*a+".repeat(60);
    put(
        "c.ts",
        &format!(
            "/** Squares it and more. */\nfunction h(a: number) {{\n  const b = {long}1;\n  return {long}b;\n}}\n"
        ),
    );
    let python = |comments: &str| {
        format!(
            "class A:\n    \"\"\"Squares it and more.\"\"\"\n\n    def f(self, a):\n        \"\"\"{comments}\"\"\"\n        return a * a * a\n"
        )
    };
    put("a.py", &python("Squares."));
    put("b.py", &python(&comment.repeat(2)).replace("class A", "class B"));
    let options = CurateOptions {
        paths: vec![folder.path().into()],
        languages: vec![Language::TypeScript, Language::Python],
        ..CurateOptions::default()
    };
    let (rows, counts) = run(&options, &|_, _| ()).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["A", "f"], "{counts:?}");
    assert_eq!((counts.dropped["comment-heavy"], counts.dropped["minified"]), (2, 1), "{counts:?}");
}

/// A file with a function to cut a hole from, and another part beside it. Returns the rows to infill and the counts.
fn infilled(beside: &str) -> (Vec<CuratedRow>, CurationCounts) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = prepare(folder.path());
    options.styles = vec![InstructionStyle::Write, InstructionStyle::Infill];
    let good = "/** Doubles the number and adds one. */\nexport function odd(n: number): number {\n  const twice = n * 2;\n  \
                return twice + 1;\n}\n";
    fs::write(folder.path().join("src/math.ts"), format!("{good}\n{beside}")).unwrap();
    let (mut rows, counts) = run(&options, &|_, _| ()).unwrap();
    rows.retain(|row| row.style == InstructionStyle::Infill);
    for CuratedRow { hole, output, instruction, .. } in &rows {
        let Hole { prefix, suffix } = hole.as_ref().unwrap();
        assert!(
            format!("{good}\n{beside}").starts_with(&format!("{prefix}{output}{suffix}")),
            "{prefix}{output}{suffix}"
        );
        assert!(instruction.is_empty() && good.contains(output.as_str()));
    }
    (rows, counts)
}

#[test]
fn the_text_around_a_hole_shows_no_benchmark_problem_and_no_secret() {
    // Without a comment it is dropped for that reason, and still is no context.
    let problem =
        "function median(l: number[]): number {\n  return l.sort((a, b) => a - b)[l.length >> 1];\n}\n";
    let (rows, counts) = infilled(problem);
    assert_eq!((rows.len(), counts.dropped.get("no-comment")), (1, Some(&1)));
    let shown = rows[0].hole.as_ref().unwrap();
    assert!(shown.suffix.contains("}\n") && !shown.suffix.contains("median"), "{}", shown.suffix);
    // Words of a problem outside of all items.
    let (rows, counts) = infilled("// Return median of elements in the array l.\nconst l = median;\n");
    assert_eq!((rows.len(), counts.dropped.get("benchmark")), (0, Some(&1)), "{:?}", counts.dropped);
    let token = ["ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"].concat();
    let (rows, counts) = infilled(&format!("const key = '{token}';\n"));
    assert_eq!((rows.len(), counts.secrets.len()), (0, 1));
    assert_eq!((counts.secrets[0].line, counts.secrets[0].rule.as_str()), (7, "github-token"));
    let (rows, _) = infilled("const key = 1;\n");
    assert!(rows[0].hole.as_ref().unwrap().suffix.ends_with("const key = 1;\n"));
}

#[test]
fn a_row_to_infill_reads_back_as_it_was_written() {
    let (rows, counts) = infilled(
        "/** One more class of them. */\nexport class Holder {\n  a = 1;\n  b = 2;\n  c = 3;\n  d = 'some text';\n}\n",
    );
    assert_eq!((rows.len(), counts.dropped.get("no-hole")), (1, Some(&1)), "a class has no hole");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    write_rows(&file, &rows).unwrap();
    assert_eq!(jsonl::read::<CuratedRow>(&file).unwrap(), rows);
    let line = fs::read_to_string(&file).unwrap();
    assert!(line.starts_with("{\"prefix\":") && !line.contains("instruction"), "{line}");
}
