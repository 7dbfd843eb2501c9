//! The demo's problems in other languages pass their judges with reference solutions that use every operation, and fail
//! with wrong ones. The test binary is its own sandbox child, so it has a `main`.
//!
//! A language without its tools is skipped with a message; with `CODELSI_REQUIRE=all` that is a failure.

use codelsi_demo::languages::{LANGUAGES, LanguageTemplates};
use codelsi_demo::problems::GeneratedProblem;
use codelsi_eval::judge::{self, Judge, Status, open_default};
use codelsi_eval::problem::Problem;
use codelsi_eval::sandbox::Sandbox;
use codelsi_testing::or_skip;
use rayon::prelude::*;
use std::collections::HashSet;

fn main() {
    judge::child_entry();
    Sandbox::checked().expect("the sandbox must hold where the tests run");
    let wrong: usize = LANGUAGES.par_iter().map(wrong_verdicts).sum();
    assert_eq!(wrong, 0, "{wrong} verdicts are wrong");
}

/// Counts the wrong verdicts on a language's problems.
fn wrong_verdicts(language: &LanguageTemplates) -> usize {
    let judge = open_default(language.multipl_e_code(), None, None);
    let Some(judge) = or_skip(judge) else { return 0 };
    let problems = cover_operations(language.problems(1, 120));
    let numbers =
        |p: &&GeneratedProblem| ["sum", "largest", "count"].iter().any(|end| p.composition.ends_with(end));
    let number = problems.iter().find(numbers).expect("a problem that gives a number");
    let wrong = format!("{}return -1;\n{}", language.indent, language.close);
    let unsolved = problems.par_iter().filter(|p| !is_judged_right(&*judge, p, &p.solution, true)).count();
    unsolved + usize::from(!is_judged_right(&*judge, number, &wrong, false))
}

/// Returns problems that together use every operation of the languages.
fn cover_operations(problems: Vec<GeneratedProblem>) -> Vec<GeneratedProblem> {
    let mut shown: HashSet<String> = HashSet::new();
    let is_new = |p: &GeneratedProblem| {
        let mut operations: Vec<&str> = p.composition.split(' ').collect();
        // A sum hides errors in the list before it: extra zeros, another order.
        let last = operations.len() - 1;
        if ["sum", "largest", "count"].contains(&operations[last]) {
            operations.drain(..last);
        }
        operations.into_iter().filter(|op| shown.insert(op.to_string())).count() > 0
    };
    let chosen = problems.into_iter().filter(is_new).collect();
    assert_eq!(shown.len(), 17, "{shown:?}");
    chosen
}

/// Returns true if the judge accepts `completion`, run to its end, exactly if it is right.
fn is_judged_right(judge: &dyn Judge, problem: &GeneratedProblem, completion: &str, right: bool) -> bool {
    let parsed: Problem = serde_json::from_value(problem.json()).unwrap();
    let program = parsed.program(completion);
    let result = judge.judge(&program).unwrap();
    let solved = result.status == Status::Ok && judge.reaches_end(&program).unwrap();
    // A program that does not compile is not the wrong answer that the test means.
    let expected = solved == right && result.status != Status::SyntaxError;
    let message = if expected { String::new() } else { format!("{}\n{}", result.message, program.text) };
    println!(
        "{} {} {:?}, {:.1} s {message}",
        problem.name, problem.composition, result.status, result.seconds
    );
    expected
}
