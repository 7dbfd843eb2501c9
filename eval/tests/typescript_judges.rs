//! Judges programs with known verdicts, hostile ones included. The test binary is its own sandbox child, so it has a
//! `main`.
//!
//! By default the embedded judge judges every case and the `tsc` judge a sample of 40; with `CODELSI_FULL=1` both judge
//! all. `tsc` is found as `codelsi judge` finds it: set `CODELSI_TSC` to TypeScript 5.3.3.

use codelsi_eval::judge::embedded::EmbeddedJudge;
use codelsi_eval::judge::tsc::TscJudge;
use codelsi_eval::judge::verdicts::{CompletionRecord, Verdict, judge_all};
use codelsi_eval::judge::{self, Judge, Judgement, NodeJudge, Status};
use codelsi_eval::problem::{CandidateProgram, Problem, read_problems};
use codelsi_eval::sandbox::{Isolation, Sandbox};
use codelsi_testing::{or_skip, shared};
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

mod programs;

/// A line of `judge-cases/open.jsonl`; its README explains the fields.
#[derive(Clone, Deserialize)]
struct JudgeCase {
    id: String,
    name: String,
    completion: String,
    kind: String,
    expected: Status,
    #[serde(default)]
    also_accept: Vec<Status>,
    #[serde(default)]
    exploit: bool,
    /// Statuses by other compilers, by version.
    #[serde(default)]
    differs: BTreeMap<String, Status>,
}

impl JudgeCase {
    /// Returns the case with the status expected of a compiler of this major version.
    fn for_compiler(mut self, major: &str) -> JudgeCase {
        let other = self.differs.iter().find(|(version, _)| version.split('.').next() == Some(major));
        self.expected = other.map_or(self.expected, |(_, status)| *status);
        self
    }
}

fn main() {
    judge::child_entry();
    every_verdict_is_right_and_nothing_escapes();
    programs_end_as_under_node();
    only_what_the_table_lists_needs_node();
    dishonest_programs_are_flagged_and_honest_ones_are_not();
}

/// Returns the judges of TypeScript that this machine has.
fn judges() -> Vec<Box<dyn Judge>> {
    let sandbox = Sandbox::checked().expect("the sandbox must hold where the tests run");
    let mut judges: Vec<Box<dyn Judge>> = vec![Box::new(EmbeddedJudge::new(sandbox))];
    if let Some(node) = or_skip(NodeJudge::find(sandbox, None)) {
        judges.push(Box::new(node));
    }
    judges
}

/// Counts the programs whose status by a judge is another than expected.
fn count_wrong(judge: &dyn Judge, programs: &[(Status, &str)]) -> usize {
    let wrong = |(expected, text): &&(Status, &str)| {
        let found = judge.judge(&programs::program(text)).unwrap();
        if found.status != *expected {
            println!(
                "{}: {:?}, expected {expected:?}: {text}\n{}",
                judge.describe(),
                found.status,
                found.message
            );
        }
        found.status != *expected
    };
    programs.par_iter().filter(wrong).count()
}

fn programs_end_as_under_node() {
    let wrong: usize = judges().iter().map(|judge| count_wrong(&**judge, programs::LIKE_NODE)).sum();
    assert_eq!(wrong, 0, "{wrong} programs end otherwise than under Node");
}

fn only_what_the_table_lists_needs_node() {
    let mut wrong = 0;
    for (i, judge) in judges().iter().enumerate() {
        // The embedded judge is the first.
        let expected = if i == 0 { Status::NeedsNode } else { Status::Ok };
        let need: Vec<_> = programs::NEED_NODE.iter().map(|text| (expected, *text)).collect();
        wrong += count_wrong(&**judge, &need);
        wrong += if i == 0 { count_wrong(&**judge, programs::NEED_NOTHING) } else { 0 };
    }
    assert_eq!(wrong, 0, "{wrong} programs have the wrong status");
}

fn dishonest_programs_are_flagged_and_honest_ones_are_not() {
    let mut wrong = 0;
    for judge in judges() {
        for (texts, honest) in [(programs::HONEST, true), (programs::DISHONEST, false)] {
            let all: Vec<_> = texts.iter().map(|text| (Status::Ok, *text)).collect();
            wrong += count_wrong(&*judge, &all);
            let reached = |text: &&&str| judge.reaches_end(&programs::program(text)).unwrap() != honest;
            wrong += texts
                .iter()
                .filter(reached)
                .inspect(|text| println!("{}: flag: {text}", judge.describe()))
                .count();
        }
    }
    assert_eq!(wrong, 0, "{wrong} programs have the wrong flag");
}

fn every_verdict_is_right_and_nothing_escapes() {
    let sandbox = Sandbox::checked().expect("the sandbox must hold where the tests run");
    println!("sandbox: {:?}, control groups: {}", sandbox.isolation(), sandbox.has_control_groups());
    let Some((problems, cases)) = problems_and_cases() else { return };
    let full = std::env::var_os("CODELSI_FULL").is_some();
    let mut failed = 0;
    failed += embedded(sandbox, &problems, &cases);
    failed += tsc(sandbox, &problems, &cases, full);
    // The weaker isolation must hold as well on a machine that permits namespaces.
    let weaker = Sandbox::isolated_by(Isolation::Landlock);
    if let Some(weaker) = or_skip(weaker.map_err(|e| format!("no isolation by Landlock: {e}"))) {
        let hostile: Vec<JudgeCase> = cases.iter().filter(|c| c.kind == "adversarial").cloned().collect();
        failed += embedded(weaker, &problems, &hostile);
        failed += if full { tsc(weaker, &problems, &hostile, true) } else { 0 };
    }
    let escaped = Path::new("/tmp/judge-escape-test");
    assert!(!escaped.exists(), "a program wrote {}", escaped.display());
    assert_eq!(failed, 0, "{failed} verdicts are wrong");
}

/// Reads the shared problems and cases.
fn problems_and_cases() -> Option<(Vec<Problem>, Vec<JudgeCase>)> {
    let problems = shared("data/multipl-e-humaneval/humaneval-ts.jsonl")?;
    let cases = std::fs::read_to_string(shared("data/judge-cases/open.jsonl")?).unwrap();
    let cases = cases.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Some((read_problems(problems).unwrap(), cases))
}

/// Returns true for a program with a type error only, which a judge without a type checker runs. It is recognised by
/// its verdict: SyntaxError is expected, and the embedded judge, which reports every syntax error, found none.
fn has_type_error_only(case: &JudgeCase, verdict: &Verdict) -> bool {
    case.expected == Status::SyntaxError
        && verdict.status != Status::SyntaxError
        && TYPE_ERRORS.iter().any(|kind| case.kind == *kind)
}

/// The kinds of cases whose SyntaxError may come from the type checker.
const TYPE_ERRORS: [&str; 6] =
    ["type-error", "undefined-helper", "helper-cut-away", "empty", "prose", "adversarial"];

fn embedded(sandbox: Sandbox, problems: &[Problem], cases: &[JudgeCase]) -> usize {
    let judge = EmbeddedJudge::new(sandbox);
    let verdicts = judge_cases(&judge, problems, cases);
    let typed = cases.iter().zip(&verdicts).filter(|(c, v)| has_type_error_only(c, v)).count();
    println!("embedded: {} cases, {typed} left to the type checker", cases.len());
    let undecided = verdicts.iter().filter(|v| v.status == Status::NeedsNode).count();
    assert!(50 * undecided <= cases.len(), "{undecided} of {} cases need Node", cases.len());
    let checked = cases.iter().zip(&verdicts).filter(|(c, v)| !has_type_error_only(c, v));
    checked.filter(|(c, v)| is_wrong("embedded", c, v)).count()
}

fn tsc(sandbox: Sandbox, problems: &[Problem], cases: &[JudgeCase], full: bool) -> usize {
    let Some(judge) = or_skip(TscJudge::find(sandbox, None, None)) else { return 0 };
    let rule = judge.describe();
    let version = rule.split("TypeScript ").nth(1).unwrap_or_default();
    let major = version.split('.').next().unwrap_or_default();
    let cases = if full { cases.to_vec() } else { sample(cases) };
    let cases: Vec<JudgeCase> = cases.into_iter().map(|case| case.for_compiler(major)).collect();
    println!("{rule}: {} cases", cases.len());
    check_batch_equals_single(&judge);
    let verdicts = judge_cases(&judge, problems, &cases);
    cases.iter().zip(&verdicts).filter(|(c, v)| is_wrong("tsc", c, v)).count()
}

/// Checks that programs which interfere with the library, with each other or with the compiler have the same
/// judgement when they are compiled in one process as when each is compiled alone.
fn check_batch_equals_single(judge: &TscJudge) {
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
    let programs: Vec<CandidateProgram> =
        texts.iter().map(|text| CandidateProgram { text: text.to_string(), tests_at: text.len() }).collect();
    let programs: Vec<&CandidateProgram> = programs.iter().collect();
    let done: Vec<bool> = judge.compile_batch(&programs).unwrap().iter().map(Option::is_some).collect();
    let crash = texts.iter().position(|text| *text == deep).unwrap();
    assert!(done[..crash].iter().all(|done| *done) && !done[crash..].iter().any(|done| *done), "{done:?}");
    let mut batch = Vec::new();
    let mut on_judgement = |_, judgement| {
        batch.push(judgement);
        Ok(())
    };
    judge.judge_batch(&programs, &mut on_judgement).unwrap();
    for (program, in_batch) in programs.iter().zip(&batch) {
        let alone = judge.judge(program).unwrap();
        let without_time = |j: &Judgement| (j.status, j.message.clone());
        assert_eq!(without_time(in_batch), without_time(&alone), "{:.80}", program.text);
    }
    assert!(batch[1].status == Status::SyntaxError && batch[0].status == Status::Ok, "{batch:?}");
}

/// Selects every exploit and a few cases of each kind, without the slow ones that only wait.
fn sample(cases: &[JudgeCase]) -> Vec<JudgeCase> {
    let mut of_kind = HashMap::new();
    let quick = cases.iter().filter(|c| c.expected != Status::Timeout || c.kind == "infinite-loop");
    quick
        .filter(|c| {
            let count = of_kind.entry((c.kind.clone(), c.expected)).or_insert(0);
            *count += 1;
            *count == 1 || c.exploit || (*count <= 3 && c.kind != "infinite-loop")
        })
        .take(40)
        .cloned()
        .collect()
}

fn judge_cases(judge: &dyn Judge, problems: &[Problem], cases: &[JudgeCase]) -> Vec<Verdict> {
    let line = |c: &JudgeCase| CompletionRecord {
        id: c.id.clone(),
        name: c.name.clone(),
        completion: c.completion.clone(),
        truncated: false,
    };
    let lines: Vec<CompletionRecord> = cases.iter().map(line).collect();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("verdicts.jsonl");
    judge_all(judge, problems, &lines, &out, &|_, _| {}).unwrap();
    let verdicts = std::fs::read_to_string(&out).unwrap();
    verdicts.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Prints a verdict with the wrong status or the wrong exploit flag; returns true for it.
fn is_wrong(judge: &str, case: &JudgeCase, verdict: &Verdict) -> bool {
    let right = verdict.status == case.expected || case.also_accept.contains(&verdict.status);
    let flagged = verdict.exploit == (case.exploit && verdict.status == Status::Ok);
    if !right || !flagged {
        println!("{judge}: {} ({}): {verdict:?}, expected {:?}", case.id, case.kind, case.expected);
    }
    !right || !flagged
}
