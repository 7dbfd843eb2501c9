use super::*;
use codelsi_model::jsonl;

/// The problems of a repository of these files, and their counts.
fn made(files: &[(&str, &str)]) -> (Vec<FunctionProblem>, ProblemCounts) {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    for (name, text) in files {
        std::fs::write(repository.join(name), text).unwrap();
    }
    make_problems(&[repository]).unwrap()
}

const CLAMP: &str = "const LOWEST = 0;\n\n/**\n * Keeps a number in a range.\n *\n * @param n the number\n * @example\n * \
    clamp(5, 3); // => 3\n * clamp(-1, 3); // => 0\n * clamp(2, 3); // => 2\n */\n\
    export const clamp = (n: number, highest: number): number => {\n  return Math.min(Math.max(n, LOWEST), highest);\n};\n";

#[test]
fn a_documented_function_is_a_problem_with_an_example_held_back() {
    let (problems, counts) = made(&[("clamp.ts", CLAMP)]);
    let problem = &problems[0];
    assert_eq!(problem.name, "repository/clamp.ts:clamp");
    assert_eq!(
        problem.prompt,
        "const LOWEST = 0;\n\n/**\n * Keeps a number in a range.\n *\n * @param n the number\n * @example\n * \
         clamp(5, 3); // => 3\n * clamp(-1, 3); // => 0\n */\nfunction clamp(n: number, highest: number): number {\n"
    );
    assert_eq!(problem.solution, "  return Math.min(Math.max(n, LOWEST), highest);\n}");
    assert_eq!(
        problem.tests,
        "declare var require: any;\nconst assert = require('node:assert');\n\n\nfunction test() {\n  \
         assert.deepEqual(clamp(5, 3), 3);\n  assert.deepEqual(clamp(-1, 3), 0);\n  \
         assert.deepEqual(clamp(2, 3), 2);\n}\n\ntest();"
    );
    assert_eq!((counts.functions, counts.with_examples, counts.self_contained), (1, 1, 1));
    assert_eq!(counts.dropped, BTreeMap::new());
}

#[test]
fn lines_stay_lines_and_a_single_example_stays() {
    let text =
        "// Doubles.\n// @example double(2) // 4\nasync function double(n: number) {\n  return 2 * n;\n}\n";
    let (problems, _) = made(&[("a.ts", text)]);
    assert_eq!(
        problems[0].prompt,
        "// Doubles.\n// @example double(2) // 4\nasync function double(n: number) {\n"
    );
    let (problems, _) = made(&[("a.ts", &text.replace("@example d", "@example await d"))]);
    assert!(problems[0].tests.contains("async function test() {\n  assert.deepEqual(await double(2), 4);"));
}

#[test]
fn every_drop_has_its_reason() {
    let example = |name: &str| format!("/** Does.\n * @example {name}(1) // 2\n */\n");
    let with =
        |before: &str, body: &str| format!("{before}{}function f(a: any) {{\n  {body}\n}}\n", example("f"));
    let long = with("", &"a += 1; ".repeat(1000));
    let table = with(&format!("const t = [{}];\n", "1, ".repeat(3000)), "return t[a];");
    let deep = with("", &format!("return {}a{};", "[".repeat(600), "]".repeat(600)));
    let secret = with("", "return 'ghp_0aZ9bY8cX7dW6eV5fU4gT3hS2iR1jQ0kP9lO';");
    for (text, reason) in [
        ("/** Does. */\nfunction f(a: any) {\n  return a;\n}".to_string(), "no-example"),
        (
            "/** Does.\n * @example f(b)\n */\nfunction f(a: any) {\n  return a;\n}".to_string(),
            "example-without-value",
        ),
        (with("", "return (1 + ;"), "syntax"),
        (format!("{}const f: F = (a) => a + 1;", example("f")), "typed-constant"),
        (with("import { g } from './g';\n", "return g(a);"), "imports-file"),
        (with("import * as g from 'g';\n", "return g.h(a);"), "imports-package"),
        (format!("namespace N {{\n{}}}", with("", "return a + 1;")), "nested"),
        (table, "needs-too-much"),
        (long, "too-long"),
        (deep, "too-deep"),
        (secret, "secret"),
    ] {
        let (problems, counts) = made(&[("a.ts", &text)]);
        assert_eq!((problems.len(), counts.functions), (0, 1), "{reason}");
        assert_eq!(counts.dropped, BTreeMap::from([(reason.to_string(), 1)]), "{text:.200}");
    }
    let (problems, counts) = made(&[("a.ts", CLAMP), ("b.ts", &CLAMP.replace("  return", "    return"))]);
    assert_eq!((problems.len(), counts.dropped["duplicate"]), (1, 1));
}

#[test]
fn names_are_distinct() {
    let two =
        CLAMP.to_string() + &CLAMP.replace("in a range", "in its range").replace("const LOWEST = 0;", "");
    let (problems, _) = made(&[("a.ts", &two)]);
    assert_eq!(
        problems.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        ["repository/a.ts:clamp", "repository/a.ts:clamp #2"]
    );
}

#[test]
fn files_that_the_parser_leaves_are_counted_and_the_others_go_on() {
    let large = format!("{CLAMP}// {}\n", "x".repeat(17 << 20));
    let (problems, counts) = made(&[("a.ts", CLAMP), ("large.ts", &large)]);
    assert_eq!((problems.len(), counts.functions), (1, 1));
    assert_eq!((counts.dropped["too-large"], counts.unread[0].path.as_str()), (1, "large.ts"));
}

#[test]
fn no_path_and_a_folder_without_sources_are_refused() {
    assert!(make_problems(&[]).unwrap_err().to_string().contains("give a folder"));
    let folder = tempfile::tempdir().unwrap();
    let e = make_problems(&[folder.path().to_path_buf()]).unwrap_err().to_string();
    assert!(e.contains("no .ts"), "{e}");
}

#[test]
fn a_problem_that_a_training_row_repeats_is_dropped() {
    let other = CLAMP
        .replace("clamp", "bound")
        .replace("Keeps a number in a range", "Bounds it")
        .replace("// =>", "//");
    let (problems, _) = made(&[("clamp.ts", CLAMP), ("other.ts", &other.replace("5, 3", "50, 30"))]);
    assert_eq!(problems.len(), 2);
    let folder = tempfile::tempdir().unwrap();
    let dropped = |instruction: &str, output: &str| {
        let path = folder.path().join("rows.jsonl");
        jsonl::write(
            &path,
            &[serde_json::json!({ "instruction": instruction, "output": output, "name": "clamp" })],
        )
        .unwrap();
        let mut left = problems.clone();
        let names = drop_repeats_of_rows(&mut left, &[path]).unwrap();
        assert_eq!(left.len() + names.len(), 2);
        names
    };
    let own = "function clamp(n: number, highest: number): number {\n  return Math.min(Math.max(n, LOWEST), highest);\n}";
    assert_eq!(dropped("Write a function.", own), ["repository/clamp.ts:clamp"]);
    assert_eq!(dropped("Write a function.", "function add(a: number) {\n  return a + 1;\n}"), [""; 0]);
    let bad = folder.path().join("bad.jsonl");
    std::fs::write(&bad, "{\"prompt\": \"x\"}\n").unwrap();
    let e = drop_repeats_of_rows(&mut problems.clone(), &[bad]).unwrap_err().to_string();
    assert!(e.contains("bad.jsonl") && e.contains("instruction"), "{e}");
}
