//! The judges of JavaScript, Python, Java, C++ and Rust with the tools of this machine: every status, programs that
//! exit before their tests, and MultiPL-E's own problems. The test binary is its own sandbox child, so it has a
//! `main`.
//!
//! A language whose tools are absent is skipped with a notice; with `CODELSI_REQUIRE=all` that is a failure.

use codelsi_eval::judge::embedded::EmbeddedJudge;
use codelsi_eval::judge::toolchain::{ALL, Rule, ToolchainJudge};
use codelsi_eval::judge::{self, Judge, Status};
use codelsi_eval::problem::{Problem, read_problems};
use codelsi_eval::sandbox::Sandbox;
use codelsi_testing::{or_skip, shared};
use rayon::prelude::*;

/// A completion of `add` with its expected status; `exits_early` if it exits before its tests.
struct CompletionCase {
    completion: &'static str,
    status: Status,
    exits_early: bool,
}

const fn case(completion: &'static str, status: Status) -> CompletionCase {
    CompletionCase { completion, status, exits_early: false }
}

const fn early_exit(completion: &'static str) -> CompletionCase {
    CompletionCase { completion, status: Status::Ok, exits_early: true }
}

/// Returns a problem that asks for a sum, in MultiPL-E's form.
fn add(language: &str) -> Problem {
    let (prompt, tests) = match language {
        "js" => (
            "function add(a, b){\n",
            "const assert = require('node:assert');\nfunction test() {\n  let candidate = add;\n  assert.deepEqual(candidate(2, 3),5);\n}\n\ntest();",
        ),
        "py" => (
            "def add(a: int, b: int) -> int:\n",
            "def check(candidate):\n    assert candidate(2, 3) == 5\n\ndef test_check():\n    check(add)\n\ntest_check()\n",
        ),
        "java" => (
            "import java.util.*;\nimport org.javatuples.*;\nclass Problem {\n    static Pair<Long, Long> pair = Pair.with(2L, 3L);\n    public static long add(long a, long b) {\n",
            "    }\n    public static void main(String[] args) {\n    assert(add(pair.getValue0(), pair.getValue1()) == (5L));\n    assert(pair.equals(Pair.with(2L, 3L)));\n    }\n\n}\n",
        ),
        "cpp" => (
            "#include<assert.h>\n#include<bits/stdc++.h>\nlong add(long a, long b) {\n",
            "}\nint main() {\n    auto candidate = add;\n    assert(candidate((2), (3)) == (5));\n}\n",
        ),
        _ => (
            "fn add(a: isize, b: isize) -> isize {\n",
            "}\n\nfn main() {\n    let candidate = add;\n    assert_eq!(candidate(2, 3), 5);\n}\n",
        ),
    };
    Problem {
        name: "add".into(),
        language: language.into(),
        prompt: prompt.into(),
        tests: tests.into(),
        stop_tokens: Vec::new(),
    }
}

fn cases(language: &str) -> Vec<CompletionCase> {
    use Status::{AssertionError, Exception, Ok, ReferenceError, SyntaxError, Timeout};
    match language {
        "js" => vec![
            case("  return a + b;\n}", Ok),
            case("  return a - b;\n}", AssertionError),
            case("  return a +;\n}", SyntaxError),
            case("  return sum(a, b);\n}", ReferenceError),
            case("  throw new Error('no');\n}", Exception),
            case("  for (;;) {}\n}", Timeout),
            early_exit("}\nprocess.exit(0);"),
        ],
        "py" => vec![
            case("    return a + b\n", Ok),
            case("    return a - b\n", Exception),
            case("    return a +\n", SyntaxError),
            case("    return total(a, b)\n", Exception),
            case("    while True: pass\n", Timeout),
            early_exit("    pass\nimport os\nos._exit(0)\n"),
        ],
        "java" => vec![
            case("        return a + b;\n", Ok),
            case("        return a - b;\n", Exception),
            case("        return \"no\";\n", SyntaxError),
            case("        while (true) { a = 1 - a; }\n", Timeout),
            early_exit("        System.exit(0); return 0;\n"),
        ],
        "cpp" => vec![
            case("    return a + b;\n", Ok),
            case("    return a - b;\n", Exception),
            case("    return std::string(\"no\");\n", SyntaxError),
            case("    for (volatile long i = 0;; i = i + 1) {}\n", Timeout),
            early_exit("    std::exit(0);\n"),
            early_exit("    return 0;\n}\n#undef assert\n#define assert(x)\nvoid more() {\n"),
        ],
        _ => vec![
            case("    a + b\n", Ok),
            case("    a - b\n", Exception),
            case("    \"no\"\n", SyntaxError),
            case("    let mut n = a; loop { n = std::hint::black_box(n + b - b); }\n", Timeout),
            early_exit("    let _ = (a, b); std::process::exit(0)\n"),
        ],
    }
}

fn main() {
    judge::child_entry();
    every_language_has_its_verdicts();
}

fn every_language_has_its_verdicts() {
    let sandbox = Sandbox::checked().expect("the sandbox must hold where the tests run");
    // Endless programs take 15 s each, so the languages run in parallel.
    let wrong: usize = ALL.par_iter().map(|rule| check_language(sandbox, rule)).sum();
    let wrong = wrong + check_cases(&EmbeddedJudge::new(sandbox), "js");
    assert_eq!(wrong, 0, "{wrong} verdicts are wrong");
}

/// Returns the number of wrong verdicts of a language's judge.
fn check_language(sandbox: Sandbox, rule: &'static Rule) -> usize {
    let Some(judge) = or_skip(ToolchainJudge::find(sandbox, rule)) else { return 0 };
    check_cases(&judge, rule.language) + check_multipl_e_problem(&judge, rule)
}

/// Judges every case of a language; returns the number of wrong verdicts.
fn check_cases(judge: &dyn Judge, language: &str) -> usize {
    let problem = add(language);
    println!("{}", judge.describe());
    let wrong = cases(language).into_par_iter().filter(|case| {
        let program = problem.program(case.completion);
        let found = judge.judge(&program).unwrap();
        let exits_early = found.status == Status::Ok && !judge.reaches_end(&program).unwrap();
        let wrong = (found.status, exits_early) != (case.status, case.exits_early);
        let (verdict, status) = (if wrong { "WRONG" } else { "ok" }, found.status);
        println!(
            "  {verdict}: {status:?}, exits early: {exits_early}, {:.1} s: {:?}",
            found.seconds, case.completion
        );
        wrong
    });
    wrong.count()
}

/// Judges a right and a wrong completion of MultiPL-E's own problem of a sum; returns the number of wrong verdicts.
fn check_multipl_e_problem(judge: &dyn Judge, rule: &Rule) -> usize {
    let Some(file) = shared(format!("data/multipl-e-humaneval/humaneval-{}.jsonl", rule.language)) else {
        return 0;
    };
    let problems = read_problems(file).unwrap();
    let problem = problems.iter().find(|p| p.name == "HumanEval_53_add").unwrap();
    let right = match rule.language {
        "rs" => "    x + y\n}",
        "py" => "    return x + y\n",
        _ => "    return x + y;\n}",
    };
    let wrong = right.replace('+', "-");
    let status = |completion: &str| judge.judge(&problem.program(completion)).unwrap().status;
    let closed = if rule.language == "java" { "    return x + y;\n    }\n" } else { right };
    usize::from(status(closed) != Status::Ok) + usize::from(status(&wrong) == Status::Ok)
}
