//! A small repository's own functions become problems: verified, kept out of training, and run by the pipeline.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn codelsi(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_codelsi")).args(args).output().unwrap()
}

/// Runs a command that must succeed, and returns its standard output.
fn succeeds(args: &[&str]) -> String {
    let output = codelsi(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with exit status 1, and returns its last line on stderr.
fn refused(args: &[&str]) -> String {
    let output = codelsi(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    text.lines().last().unwrap_or_default().to_owned()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Functions with examples: name, description, parameters, two statements, and a call with its value.
const FUNCTIONS: [[&str; 6]; 18] = [
    [
        "clamp",
        "Keeps a measurement between two bounds",
        "n: number, low: number, high: number",
        "const raised = Math.max(n, low);",
        "Math.min(raised, high)",
        "clamp(7, 1, 5) // => 5",
    ],
    [
        "initials",
        "Takes the first letter of every word of a name",
        "name: string",
        "const words = name.split(' ');",
        "words.map(word => word[0]).join('')",
        "initials('Ada Lovelace') // => 'AL'",
    ],
    [
        "chunk",
        "Cuts a list into pieces of equal length",
        "xs: number[], size: number",
        "const count = Math.ceil(xs.length / size);",
        "Array.from({ length: count }, (_, i) => xs.slice(i * size, (i + 1) * size))",
        "chunk([1, 2, 3], 2) // => [[1, 2], [3]]",
    ],
    [
        "mean",
        "Averages the scores that a jury gave",
        "scores: number[]",
        "const total = scores.reduce((a, b) => a + b, 0);",
        "total / scores.length",
        "mean([2, 4, 9]) // => 5",
    ],
    [
        "slug",
        "Turns a headline into an address for browsers",
        "headline: string",
        "const small = headline.toLowerCase();",
        "small.replace(/[^a-z]+/g, '-')",
        "slug('Big News') // => 'big-news'",
    ],
    [
        "unique",
        "Removes repeated entries while order stays",
        "entries: string[]",
        "const known = new Set(entries);",
        "Array.from(known)",
        "unique(['a', 'b', 'a']) // => ['a', 'b']",
    ],
    [
        "celsius",
        "Converts degrees that American thermometers show",
        "fahrenheit: number",
        "const shifted = fahrenheit - 32;",
        "shifted * 5 / 9",
        "celsius(212) // => 100",
    ],
    [
        "palindrome",
        "Says if letters read alike backwards",
        "text: string",
        "const turned = text.split('').reverse().join('');",
        "turned === text",
        "palindrome('level') // => true",
    ],
    [
        "invert",
        "Swaps keys with values of a dictionary",
        "table: Record<string, string>",
        "const pairs = Object.entries(table);",
        "Object.fromEntries(pairs.map(([key, value]) => [value, key]))",
        "invert({ a: 'x' }) // => { x: 'a' }",
    ],
    [
        "vowels",
        "Counts how many vowels some sentence has",
        "sentence: string",
        "const found = sentence.match(/[aeiou]/g);",
        "(found || []).length",
        "vowels('banana') // => 3",
    ],
    [
        "factorial",
        "Multiplies all whole numbers up to one",
        "n: number",
        "let product = 1; for (let i = 2; i <= n; i++) product *= i;",
        "product",
        "factorial(5) // => 120",
    ],
    [
        "zip",
        "Pairs up elements of two equally long rows",
        "left: number[], right: string[]",
        "const pair = (x: number, i: number) => [x, right[i]];",
        "left.map(pair)",
        "zip([1], ['a']) // => [[1, 'a']]",
    ],
    [
        "truncate",
        "Shortens paragraphs and marks where text was cut",
        "text: string, most: number",
        "const cut = text.slice(0, most);",
        "text.length > most ? cut + '...' : cut",
        "truncate('abcdef', 3) // => 'abc...'",
    ],
    [
        "binary",
        "Writes an integer by powers of two",
        "value: number",
        "const digits = value.toString(2);",
        "digits.padStart(8, '0')",
        "binary(5) // => '00000101'",
    ],
    [
        "median",
        "Finds which observation lies in the middle",
        "samples: number[]",
        "const sorted = [...samples].sort((a, b) => a - b);",
        "sorted[Math.floor(sorted.length / 2)]",
        "median([9, 1, 5]) // => 5",
    ],
    [
        "capitalize",
        "Begins each title with an uppercase character",
        "title: string",
        "const first = title.charAt(0).toUpperCase();",
        "first + title.slice(1)",
        "capitalize('paris') // => 'Paris'",
    ],
    [
        "range",
        "Lists consecutive integers from zero upwards",
        "end: number",
        "const blank = new Array(end).fill(0);",
        "blank.map((_, i) => i)",
        "range(3) // => [0, 1, 2]",
    ],
    [
        "gcd",
        "Computes what divides both operands without remainder",
        "a: number, b: number",
        "while (b) [a, b] = [b, a % b];",
        "a",
        "gcd(12, 18) // => 6",
    ],
];

/// Functions whose examples are no tests, in the same form.
const BAD_FUNCTIONS: [[&str; 6]; 4] = [
    [
        "wrong",
        "States an outcome that never occurs",
        "a: number",
        "const twice = 2 * a;",
        "twice",
        "wrong(1) // => 3",
    ],
    [
        "nothing",
        "Gives nothing at all to anybody",
        "a: number",
        "let b = a; b += 1;",
        "undefined",
        "nothing(1) // => undefined",
    ],
    [
        "endless",
        "Waits for what will never arrive",
        "a: number",
        "while (true) a += 1;",
        "a",
        "endless(1) // => 1",
    ],
    [
        "foreign",
        "Calls some platform that is elsewhere",
        "a: number",
        "const b = a;",
        "somewhereElse(b)",
        "foreign(1) // => 1",
    ],
];

/// A documented function.
fn source([name, text, parameters, statement, result, example]: [&str; 6]) -> String {
    format!(
        "/**\n * {text}.\n *\n * @example\n * {example}\n */\nexport function {name}({parameters}) {{\n  {statement}\n  return {result};\n}}\n\n"
    )
}

/// Writes a repository of these functions.
fn repository(folder: &Path) -> PathBuf {
    let repository = folder.join("own");
    fs::create_dir_all(&repository).unwrap();
    fs::write(repository.join("good.ts"), FUNCTIONS.map(source).concat()).unwrap();
    repository
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_repository_s_functions_are_verified_problems_that_no_training_row_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let own = repository(folder.path());
    fs::write(own.join("bad.ts"), BAD_FUNCTIONS.map(source).concat()).unwrap();
    let file = folder.path().join("problems.jsonl");
    let make = ["problems", text(&own), "--out", text(&file), "--judge", "embedded"];
    let report: Value = serde_json::from_str(&succeeds(&[&make[..], &["--json"]].concat())).unwrap();
    assert_eq!(report["problems"], 18);
    let counts = &report["counts"];
    assert_eq!((&counts["functions"], &counts["self_contained"]), (&22.into(), &22.into()));
    for reason in ["examples-do-not-hold", "empty-body-passes", "times-out", "unknown-name"] {
        assert_eq!(counts["dropped"][reason], 1, "{counts}");
    }
    let printed = succeeds(&make);
    for line in ["22  functions", "18  verified", "dropped    1  times-out", "18 problems in"] {
        assert!(printed.contains(line), "{printed}");
    }

    // The references solve the problems, and empty bodies none.
    let problems = lines(&file);
    let completions = folder.path().join("completions.jsonl");
    let completion = |p: &Value, id: &str, text: &str| {
        let name = p["name"].as_str().unwrap();
        serde_json::json!({ "id": format!("{name} {id}"), "name": name, "completion": text }).to_string()
            + "\n"
    };
    let both =
        |p: &Value| completion(p, "own", p["solution"].as_str().unwrap()) + &completion(p, "none", "}");
    fs::write(&completions, problems.iter().map(both).collect::<String>()).unwrap();
    let verdicts = folder.path().join("verdicts.jsonl");
    let judge =
        ["judge", "--problems", text(&file), "--completions", text(&completions), "--out", text(&verdicts)];
    succeeds(&[&judge[..], &["--judge", "embedded"]].concat());
    for verdict in lines(&verdicts) {
        let own = verdict["id"].as_str().unwrap().ends_with("own");
        assert_eq!(verdict["status"] == "OK", own, "{verdict}");
    }

    // A row of a problem's function is dropped, and a problem of a row's function too.
    let rows = folder.path().join("rows.jsonl");
    let curate = ["curate", text(&own), "--out", text(&rows)];
    succeeds(&curate);
    assert_eq!(lines(&rows).len(), 22);
    let line = refused(&[&make[..], &["--against", text(&rows)]].concat());
    assert!(line.contains("no problem was made: all 22 functions with examples are dropped"), "{line}");
    succeeds(&[&curate[..], &["--against", text(&file)]].concat());
    let left: Vec<String> = lines(&rows).iter().map(|row| row["name"].to_string()).collect();
    assert_eq!(left, ["\"wrong\"", "\"nothing\"", "\"endless\"", "\"foreign\""]);
    succeeds(&[&make[..], &["--against", text(&rows)]].concat());
    assert_eq!(lines(&file).len(), 18, "the rows that are left repeat no problem");
}

#[test]
fn input_without_problems_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, plain) = (folder.path().join("empty"), folder.path().join("plain"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("a.ts"), "export const a = 1;\n/** Adds. */\nfunction f(a: number) { return a; }\n")
        .unwrap();
    let out = folder.path().join("p.jsonl");
    let make = |path: &Path| refused(&["problems", text(path), "--out", text(&out), "--judge", "embedded"]);
    for (path, named) in [
        (&empty, "no .ts"),
        (&folder.path().join("absent"), "absent"),
        (&plain, "no problem was made: none of 1 functions has an example"),
    ] {
        let line = make(path);
        assert!(line.contains(named), "{line}");
        assert!(!out.exists());
    }
    let output = codelsi(&["problems", "--out", text(&out)]);
    assert_eq!(output.status.code(), Some(2));
    let own = repository(folder.path());
    refused(&["problems", text(&own), "--out", text(&out), "--judge", "javascript"]);
}

#[test]
fn a_pipeline_holds_functions_out_as_private_problems() {
    let folder = tempfile::tempdir().unwrap();
    let own = repository(folder.path());
    let run = folder.path().join("run");
    let small =
        ["--steps", "1", "--specialized-steps", "1", "--seq", "64", "--batch", "1", "--replay-rows", "0"];
    let measured = ["--samples", "1", "--max-tokens", "8", "--limit", "2", "--device", "cpu", "--json"];
    let pipeline = ["pipeline", "--recipe", "demo", "--private", text(&own), "--out", text(&run)];
    succeeds(&[&pipeline[..], &small, &measured].concat());
    let held_out = lines(&run.join("private-problems.jsonl"));
    assert_eq!(held_out.len(), 9, "half of the functions");
    let names: Vec<&str> = held_out.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let trained = lines(&run.join("specialized.jsonl"));
    assert_eq!(trained.len(), 18, "the other half, in two styles");
    for row in &trained {
        let name = row["name"].as_str().unwrap();
        assert!(
            !names.iter().any(|held_out| held_out.ends_with(&format!(":{name}"))),
            "{name} is trained on"
        );
    }
    let report: Value = serde_json::from_slice(&fs::read(run.join("report.json")).unwrap()).unwrap();
    let sets: Vec<&Value> = report["sets"].as_array().unwrap().iter().map(|set| &set["name"]).collect();
    assert_eq!(sets, ["general problems", "private problems"]);
    let notes = report["notes"].to_string();
    for part in ["18 verified", "9 are held out"] {
        assert!(notes.contains(part), "{notes}");
    }
}
