//! The judges against programs with known verdicts, hostile ones included. The test binary is its own sandbox child,
//! so it has a `main`.
//!
//! By default every case goes through the embedded judge and a sample of 40 through `tsc`; `CODELSI_FULL=1` sends all
//! through both. `tsc` is found as `codelsi judge` finds it: name TypeScript 5.3.3 in `CODELSI_TSC`.

use codelsi_eval::judge::embedded::Embedded;
use codelsi_eval::judge::tsc::Tsc;
use codelsi_eval::judge::verdicts::{Completion, Verdict, judge_all};
use codelsi_eval::judge::{Judge, Judgement, Status};
use codelsi_eval::problem::{Problem, Program, read_problems};
use codelsi_eval::sandbox::{self, Isolation, Sandbox};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A line of `judge-cases/open.jsonl`; its README explains the fields.
#[derive(Clone, Deserialize)]
struct Case {
    id: String,
    name: String,
    completion: String,
    kind: String,
    expected: Status,
    #[serde(default)]
    also_accept: Vec<Status>,
    #[serde(default)]
    exploit: bool,
    /// Verdicts of other compilers, by version.
    #[serde(default)]
    differs: BTreeMap<String, Status>,
}

impl Case {
    /// The case as a compiler of this major version has it.
    fn for_compiler(mut self, major: &str) -> Case {
        let other = self.differs.iter().find(|(version, _)| version.split('.').next() == Some(major));
        self.expected = other.map_or(self.expected, |(_, status)| *status);
        self
    }
}

fn main() {
    sandbox::child_entry();
    let sandbox = Sandbox::checked().expect("the sandbox must hold where the tests run");
    println!("sandbox: {:?}", sandbox.isolation());
    let Some((problems, cases)) = shared() else { return };
    let full = std::env::var_os("CODELSI_FULL").is_some();
    let mut failed = 0;
    failed += embedded(sandbox, &problems, &cases);
    failed += tsc(sandbox, &problems, &cases, full);
    // Where namespaces are permitted, what is left without them must hold as well.
    match Sandbox::isolated_by(Isolation::Landlock) {
        Err(e) => skip(&format!("no isolation by Landlock: {e}")),
        Ok(weaker) => {
            let hostile: Vec<Case> = cases.iter().filter(|c| c.kind == "adversarial").cloned().collect();
            failed += embedded(weaker, &problems, &hostile);
            failed += if full { tsc(weaker, &problems, &hostile, true) } else { 0 };
        }
    }
    let escaped = Path::new("/tmp/judge-escape-test");
    assert!(!escaped.exists(), "a program wrote {}", escaped.display());
    assert_eq!(failed, 0, "{failed} verdicts are wrong");
}

/// Problems and cases beside the project; says so where they are absent.
fn shared() -> Option<(Vec<Problem>, Vec<Case>)> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let shared = std::env::var_os("CODELSI_SHARED").map_or(PathBuf::from(default), PathBuf::from);
    let (problems, cases) = ("data/multipl-e-humaneval/humaneval-ts.jsonl", "data/judge-cases/open.jsonl");
    let missing = [problems, cases].iter().any(|file| !shared.join(file).is_file());
    if missing {
        skip(&format!("no judge cases in {}", shared.display()));
        return None;
    }
    let cases = std::fs::read_to_string(shared.join(cases)).unwrap();
    let cases = cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Some((read_problems(shared.join(problems)).unwrap(), cases))
}

fn skip(why: &str) {
    assert_ne!(std::env::var("CODELSI_REQUIRE").as_deref(), Ok("all"), "required: {why}");
    println!("skipped: {why}");
}

/// Without a type checker a program that only the types forbid is run. Such a case is recognised by its verdict: the
/// rule says SyntaxError, and the embedded judge, which reports every error of syntax, found none.
fn only_types_forbid(case: &Case, verdict: &Verdict) -> bool {
    case.expected == Status::SyntaxError
        && verdict.status != Status::SyntaxError
        && TYPE_ERRORS.iter().any(|kind| case.kind == *kind)
}

/// The kinds of case whose SyntaxError may come from the type checker.
const TYPE_ERRORS: [&str; 6] =
    ["type-error", "undefined-helper", "helper-cut-away", "empty", "prose", "adversarial"];

fn embedded(sandbox: Sandbox, problems: &[Problem], cases: &[Case]) -> usize {
    let judge = Embedded::new(sandbox);
    let verdicts = judged(&judge, problems, cases);
    let typed = cases.iter().zip(&verdicts).filter(|(c, v)| only_types_forbid(c, v)).count();
    println!("embedded: {} cases, {typed} left to the type checker", cases.len());
    cases.iter().zip(&verdicts).filter(|(c, v)| !only_types_forbid(c, v) && wrong("embedded", c, v)).count()
}

fn tsc(sandbox: Sandbox, problems: &[Problem], cases: &[Case], full: bool) -> usize {
    let judge = match Tsc::find(sandbox, None, None) {
        Ok(judge) => judge,
        Err(e) => {
            skip(&e.to_string());
            return 0;
        }
    };
    let rule = judge.describe();
    let version = rule.split("TypeScript ").nth(1).unwrap_or_default();
    let major = version.split('.').next().unwrap_or_default();
    let cases = if full { cases.to_vec() } else { sample(cases) };
    let cases: Vec<Case> = cases.into_iter().map(|case| case.for_compiler(major)).collect();
    println!("{rule}: {} cases", cases.len());
    compiled_together_or_alone(&judge);
    let verdicts = judged(&judge, problems, &cases);
    cases.iter().zip(&verdicts).filter(|(c, v)| wrong("tsc", c, v)).count()
}

/// Programs that meddle with the library, with each other or with the compiler: what is said of them when they are compiled
/// in one process is what is said of each alone.
fn compiled_together_or_alone(judge: &Tsc) {
    let deep = format!("const deep = {}1{};", "[".repeat(20_000), "]".repeat(20_000));
    let texts = [
        "const a: number = 1; console.log(a);",
        "interface HTMLElement { align: number }",
        "interface Array<T> { length: string }",
        "type Partial<T> = T; const p: Partial<number> = 1;",
        "declare var name: number; class Node {}",
        "const name = 1;",
        "export {}; declare global { interface Window { self: number } } interface HTMLElement { align: number }",
        "export {}; declare global { interface HTMLElement { align: number } }",
        "import * as other from '../0/file'; console.log(other);",
        "/// <reference path=\"../0/file.ts\" />\nconst b = a;",
        "/// <reference lib=\"webworker\" />\nconst c = 1;",
        "const a: number = 'one';",
        "function f(: number) {}",
        "const fs = require('fs');",
        "namespace Intl { export const x: number = 'y'; }",
        "throw new Error('at run time');",
        &deep,
        "const last: string = 1;",
    ];
    let programs: Vec<Program> =
        texts.iter().map(|text| Program { text: text.to_string(), tests_at: text.len() }).collect();
    let programs: Vec<&Program> = programs.iter().collect();
    let done: Vec<bool> = judge.compile_together(&programs).unwrap().iter().map(Option::is_some).collect();
    let dies = texts.iter().position(|text| *text == deep).unwrap();
    assert!(done[..dies].iter().all(|done| *done) && !done[dies..].iter().any(|done| *done), "{done:?}");
    let mut together = Vec::new();
    let mut each = |_, judgement| {
        together.push(judgement);
        Ok(())
    };
    judge.judge_each(&programs, &mut each).unwrap();
    for (program, together) in programs.iter().zip(&together) {
        let alone = judge.judge(program).unwrap();
        let said = |j: &Judgement| (j.status, j.message.clone());
        assert_eq!(said(together), said(&alone), "{:.80}", program.text);
    }
    assert!(together[1].status == Status::SyntaxError && together[0].status == Status::Ok, "{together:?}");
}

/// Every exploit and a few of each kind; not the slow ones that only wait.
fn sample(cases: &[Case]) -> Vec<Case> {
    let mut of_kind = HashMap::new();
    let quick = cases.iter().filter(|c| c.expected != Status::Timeout || c.kind == "infinite-loop");
    quick
        .filter(|c| {
            let seen = of_kind.entry((c.kind.clone(), c.expected)).or_insert(0);
            *seen += 1;
            *seen == 1 || c.exploit || (*seen <= 3 && c.kind != "infinite-loop")
        })
        .take(40)
        .cloned()
        .collect()
}

fn judged(judge: &dyn Judge, problems: &[Problem], cases: &[Case]) -> Vec<Verdict> {
    let line =
        |c: &Case| Completion { id: c.id.clone(), name: c.name.clone(), completion: c.completion.clone() };
    let lines: Vec<Completion> = cases.iter().map(line).collect();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("verdicts.jsonl");
    judge_all(judge, problems, &lines, &out, &|_, _| {}).unwrap();
    let verdicts = std::fs::read_to_string(&out).unwrap();
    verdicts.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Prints and counts a verdict that is not the rule's, and a program that cheated its way to OK unflagged.
fn wrong(judge: &str, case: &Case, verdict: &Verdict) -> bool {
    let right = verdict.status == case.expected || case.also_accept.contains(&verdict.status);
    let flagged = verdict.exploit == (case.exploit && verdict.status == Status::Ok);
    if !right || !flagged {
        println!("{judge}: {} ({}): {verdict:?}, expected {:?}", case.id, case.kind, case.expected);
    }
    !right || !flagged
}
