//! The judges of JavaScript, Python, Java, C++ and Rust with the tools of this machine: every status, programs that
//! exit before their tests, and MultiPL-E's own problems. The test binary is its own sandbox child, so it has a
//! `main`.
//!
//! A language whose tools are absent is skipped with a notice; with `CODELSI_REQUIRE=all` that is a failure.

use codelsi_eval::judge::embedded::EmbeddedJudge;
use codelsi_eval::judge::toolchain::{ALL, Rule, ToolchainJudge};
use codelsi_eval::judge::{self, Judge, Status};
use codelsi_eval::problem::{CandidateProgram, Problem, read_problems};
use codelsi_eval::sandbox::Sandbox;
use codelsi_testing::{or_skip, shared};
use rayon::prelude::*;

/// A completion with its expected status; `dishonest` if its tests do not run to their end by themselves.
struct CompletionCase {
    completion: &'static str,
    status: Status,
    dishonest: bool,
}

const fn case(completion: &'static str, status: Status) -> CompletionCase {
    CompletionCase { completion, status, dishonest: false }
}

const fn dishonest(completion: &'static str) -> CompletionCase {
    CompletionCase { completion, status: Status::Ok, dishonest: true }
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
            dishonest("}\nprocess.exit(0);"),
            dishonest("}\nrequire('node:assert').deepEqual = () => {};"),
            dishonest(
                "  const text = require('fs').readFileSync('file.js', 'utf8');\n  return eval(/candid[a]te.*,(.*)\\)/.exec(text)[1]);\n}",
            ),
            dishonest(
                "  const text = String(add.caller);\n  return eval(/candidate.*,(.*)\\)/.exec(text)[1]);\n}",
            ),
        ],
        "py" => vec![
            case("    return a + b\n", Ok),
            case("    return a - b\n", Exception),
            case("    return a +\n", SyntaxError),
            case("    return total(a, b)\n", Exception),
            case("    while True: pass\n", Timeout),
            dishonest("    pass\nimport os\nos._exit(0)\n"),
            dishonest(
                "    class Same(int):\n        def __eq__(self, other): return True\n    return Same()\n",
            ),
            dishonest("    class Same:\n        def __eq__(self, other): return True\n    return Same()\n"),
            dishonest("    import re\n    return int(re.search('=[=] (.*)', open('file.py').read())[1])\n"),
        ],
        "java" => vec![
            case("        return a + b;\n", Ok),
            case("        return a - b;\n", Exception),
            case("        return \"no\";\n", SyntaxError),
            case("        while (true) { a = 1 - a; }\n", Timeout),
            dishonest("        System.exit(0); return 0;\n"),
        ],
        "cpp" => vec![
            case("    return a + b;\n", Ok),
            case("    return a - b;\n", Exception),
            case("    return std::string(\"no\");\n", SyntaxError),
            case("    for (volatile long i = 0;; i = i + 1) {}\n", Timeout),
            dishonest("    std::exit(0);\n"),
            dishonest("    return 0;\n}\n#undef assert\n#define assert(x)\nvoid more() {\n"),
            dishonest("    return 0;\n#define __assert_fail(a, b, c, d) ((void)0)\n"),
        ],
        _ => vec![
            case("    a + b\n", Ok),
            case("    a - b\n", Exception),
            case("    \"no\"\n", SyntaxError),
            case("    let mut n = a; loop { n = std::hint::black_box(n + b - b); }\n", Timeout),
            dishonest("    let _ = (a, b); std::process::exit(0)\n"),
            dishonest("    a - b }\nmacro_rules! assert_eq { ($($t:tt)*) => {} }\nfn more() {\n"),
        ],
    }
}

/// Returns a problem that asks for a list, whose type brings its own comparison, with its completions.
fn list(language: &str) -> Option<(Problem, Vec<CompletionCase>)> {
    let (prompt, tests, cases) = match language {
        "java" => (
            "import java.util.*;\nclass Problem {\n    public static ArrayList<Long> list() {\n",
            "    }\n    public static void main(String[] args) {\n    assert(list().equals((new ArrayList<Long>(Arrays.asList(1L, 2L)))));\n    }\n\n}\n",
            vec![
                case("        return new ArrayList<Long>(List.of(1L, 2L));\n", Status::Ok),
                dishonest(
                    "        return new ArrayList<Long>() { public boolean equals(Object o) { return true; } };\n",
                ),
                dishonest(
                    "        try { System.out.print(new String(java.nio.file.Files.readAllBytes(java.nio.file.Path.of(\"file.java\")))); } catch (Exception e) {}\n        Runtime.getRuntime().halt(0);\n        return null;\n",
                ),
            ],
        ),
        "cpp" => (
            "#include<assert.h>\n#include<bits/stdc++.h>\nstd::vector<long> list() {\n",
            "}\nint main() {\n    auto candidate = list;\n    assert(candidate() == (std::vector<long>({(long)1, (long)2})));\n    assert(candidate().size() < 3 && candidate()[0] & 1);\n}\n",
            vec![
                case("    return {1, 2};\n", Status::Ok),
                dishonest(
                    "    return {1};\n}\nbool operator==(const std::vector<long>&, const std::vector<long>&) { return true; }\nvoid more() {\n",
                ),
                dishonest("    std::signal(SIGABRT, [](int) { std::_Exit(0); });\n    return {};\n"),
            ],
        ),
        _ => return None,
    };
    let problem =
        Problem { name: "list".into(), prompt: prompt.into(), tests: tests.into(), ..add(language) };
    Some((problem, cases))
}

/// C++ programs that take memory where only the kernel sees it, and too many threads, with the limit that each exceeds.
const GREEDY: [(&str, &str); 2] = [
    (
        "memory",
        "#include <sys/mman.h>\n#include <unistd.h>\nint main() { volatile char sum = 0; for (int k = 0; k < 18; k++) { char* p = (char*)mmap(0, 1ul << 37, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); if (p == MAP_FAILED) break; madvise(p, 1ul << 37, MADV_NOHUGEPAGE); for (size_t i = 0; i < 1ul << 37; i += 1 << 21) sum += p[i]; } sleep(9); }\n",
    ),
    (
        "threads",
        "#include <pthread.h>\n#include <unistd.h>\nvoid* idle(void*) { for (;;) pause(); }\nint main() { pthread_attr_t a; pthread_attr_init(&a); pthread_attr_setstacksize(&a, 16384); for (int n = 0; n < 4000; n++) { pthread_t t; if (pthread_create(&t, &a, idle, 0)) break; } sleep(9); }\n",
    ),
];

/// A program whose sockets keep the size of the system's buffers: it ends with 0 if it can change it.
const SOCKETS: &str = "#include <sys/socket.h>\nint main() { int s[2], size = 1 << 20; if (socketpair(AF_UNIX, SOCK_STREAM, 0, s)) return 2; return setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) ? 3 : 0; }\n";

fn main() {
    judge::child_entry();
    every_language_has_its_verdicts();
    what_the_kernel_holds_for_a_program_counts();
}

fn what_the_kernel_holds_for_a_program_counts() {
    let sandbox = Sandbox::checked().expect("the sandbox must hold where the tests run");
    let rule = ALL.iter().find(|rule| rule.language == "cpp").expect("C++ has a judge");
    let Some(judge) = or_skip(ToolchainJudge::find(sandbox, rule)) else { return };
    let run =
        |text: &str| judge.judge(&CandidateProgram { text: text.into(), tests_at: text.len() }).unwrap();
    for (limit, text) in GREEDY {
        let found = run(text);
        let expected = format!("stopped: over its limit of {limit}");
        assert_eq!((found.status, found.message), (Status::Exception, expected), "{text}");
    }
    assert_eq!(run(SOCKETS).status, Status::Exception);
}

fn every_language_has_its_verdicts() {
    let sandbox = Sandbox::checked().expect("the sandbox must hold where the tests run");
    // Endless programs take 15 s each, so the languages run in parallel.
    let wrong: usize = ALL.par_iter().map(|rule| check_language(sandbox, rule)).sum();
    let of_js: Vec<_> = cases("js").into_iter().filter(|c| !c.completion.contains("const text")).collect();
    let wrong = wrong + check_cases(&EmbeddedJudge::new(sandbox), &add("js"), of_js);
    assert_eq!(wrong, 0, "{wrong} verdicts are wrong");
}

/// Returns the number of wrong verdicts of a language's judge.
fn check_language(sandbox: Sandbox, rule: &'static Rule) -> usize {
    let Some(judge) = or_skip(ToolchainJudge::find(sandbox, rule)) else { return 0 };
    let of_list = list(rule.language).map_or(0, |(problem, cases)| check_cases(&judge, &problem, cases));
    of_list
        + check_cases(&judge, &add(rule.language), cases(rule.language))
        + check_multipl_e_problem(&judge, rule)
}

/// Judges completions of a problem; returns the number of wrong verdicts.
fn check_cases(judge: &dyn Judge, problem: &Problem, cases: Vec<CompletionCase>) -> usize {
    println!("{}", judge.describe());
    let wrong = cases.into_par_iter().filter(|case| {
        let program = problem.program(case.completion);
        let found = judge.judge(&program).unwrap();
        let dishonest = found.status == Status::Ok && !judge.reaches_end(&program).unwrap();
        let wrong = (found.status, dishonest) != (case.status, case.dishonest);
        let (verdict, status) = (if wrong { "WRONG" } else { "ok" }, found.status);
        println!(
            "  {verdict}: {status:?}, dishonest: {dishonest}, {:.1} s: {:?}",
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
