use super::*;

/// Returns whether TypeScript code repeats a problem.
fn repeats(benchmark: Benchmark, name: &str, text: &str, code: &str) -> bool {
    benchmark.find(Language::TypeScript, name, text, code).is_some()
}

fn problem(name: &str, prose: &str, rest: &str) -> BenchmarkProblem {
    BenchmarkProblem {
        name: name.into(),
        prompt: format!("//{prose}\n{rest}"),
        ..BenchmarkProblem::default()
    }
}

fn benchmark() -> Benchmark {
    Benchmark::new(&[
        problem(
            "1_intersperse",
            "Insert a number 'delimeter' between every two consecutive elements of input array `numbers`",
            "// >>> intersperse([1, 2, 3], 4)\n// [1, 4, 2, 4, 3]\n\
             function intersperse(numbers: number[], delimeter: number): number[] {\n",
        ),
        problem("2_median", "Return median of elements in the array l.", "function median(l: number[]): number {\n"),
        BenchmarkProblem {
            tests: "assert.deepEqual(candidate([3, 1, 2, 4, 5], \"a\"), 3); assert.deepEqual(candidate([-10, 4]), 6);"
                .into(),
            ..problem("3_third", "Sums.", "function third(a: string): string {\n")
        },
    ])
}

const BODY: &str = "function other(q: string) { return q; }";

#[test]
fn prose_is_found_in_any_comment_format_and_with_renamed_identifiers() {
    let copy = "/**\n * insert a number 'delimeter' between every two\n * consecutive elements of input array `numbers`.\n */";
    assert!(repeats(benchmark(), "other", copy, BODY));
    let renamed = "Insert a number `gap` between every two consecutive elements of input array `list`";
    let code = "function weave(list: number[], gap: number) {}";
    assert!(repeats(benchmark(), "weave", renamed, code));
    assert!(!repeats(
        benchmark(),
        "weave",
        "Insert a gap between any two neighbours of a list of numbers",
        code
    ));
}

#[test]
fn a_short_description_is_indexed_as_a_whole() {
    assert!(repeats(
        benchmark(),
        "other",
        "// Return the median: return median of elements in the array l",
        BODY
    ));
    assert!(!repeats(benchmark(), "other", "// Return median of elements in the list l", BODY));
}

#[test]
fn a_function_is_found_by_its_signature() {
    assert!(repeats(benchmark(), "Stats.Median", "", "Median(values: number[]) { return values[0]; }"));
    assert!(!repeats(benchmark(), "median", "", "function median(values: Date[]) { return values[0]; }"));
}

#[test]
fn examples_and_tests_are_found_by_their_values() {
    let doctest = "@example weave([1, 2, 3], 4) [1, 4, 2, 4, 3] // so it goes";
    assert!(repeats(benchmark(), "weave", doctest, BODY));
    let test = "function check() { check.equal(f([3,1,2,4,5], 'a'), 3); check.equal(f([-10, 4]), 6); }";
    assert!(repeats(benchmark(), "check", "", test));
    assert!(!repeats(benchmark(), "check", "", &test.replace('3', "7")));
}

#[test]
fn ngrams_shared_by_many_problems_identify_none() {
    let prose = "Write a function that takes an array of numbers and returns one number";
    let many: Vec<BenchmarkProblem> =
        (0..3).map(|i| problem("p", &format!("{prose} {i}"), &format!("function f{i}() {{\n"))).collect();
    assert!(!repeats(Benchmark::new(&many), "other", prose, BODY));
    assert!(repeats(Benchmark::new(&many[..2]), "other", prose, BODY));
}

/// A match names its evidence; a problem in HumanEval's format is found by its solution.
#[test]
fn a_match_names_the_problem_and_the_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("humaneval.jsonl");
    let body = "    out = []\n    for x in xs:\n        if x > limit and len(out) < 10:\n            out.append(x - limit)\n    return out\n";
    let prompt = "from typing import List\n\ndef gaps(xs: List[int], limit: int) -> List[int]:\n    \"\"\" How far above the limit each of the first ten numbers is.\n    \
                  >>> gaps([5, 16, 7], 3)\n    [2, 13, 4]\n    >>> gaps([], 3)\n    []\n    \"\"\"\n";
    let test = "def check(candidate):\n    assert candidate([21, 8, 15], 6) == [15, 2, 9]\n";
    let line = serde_json::json!({"task_id": "HumanEval/900", "prompt": prompt, "canonical_solution": body, "test": test, "entry_point": "gaps"});
    std::fs::write(&file, format!("{line}\n")).unwrap();
    let benchmark = Benchmark::read(&[file]).unwrap();
    let found = |language, name: &str, text: &str, code: &str| {
        let found = benchmark.find(language, name, text, code);
        found.map(|found| (found.problem, found.reason))
    };
    let renamed = "def take(values, most):\n    found = []  # so far\n    for v in values:\n        if v > most and len(found) < 99:\n            \
                   found.append(v - most)\n    return found\n";
    let prose = "How far above the limit each of the first ten numbers is.";
    let doctest = "assertEquals(List.of(2, 13, 4), take(List.of(5, 16, 7), 3)); assertEquals(List.of(15, 2, 9), take(List.of(21, 8, 15), 6));";
    for (language, name, text, code, sign) in [
        (Language::Python, "take", "", renamed, MatchReason::Tree),
        (
            Language::Python,
            "A.gaps",
            "",
            "def gaps(self, xs, limit):\n    return 1\n",
            MatchReason::Signature,
        ),
        (Language::Rust, "take", prose, "fn take() {}", MatchReason::Words),
        (Language::Java, "take", doctest, "void take() {}", MatchReason::Tree),
        (Language::Python, "take", test, "def take(): pass", MatchReason::Examples),
    ] {
        assert_eq!(found(language, name, text, code), Some(("HumanEval/900".to_string(), sign)), "{sign:?}");
    }
    assert_eq!(found(Language::Python, "take", "", &renamed.replace("v - most", "most - v")), None);
    assert_eq!(found(Language::Python, "gaps", "", "def gaps(a, b):\n    return 1\n"), None);
}
