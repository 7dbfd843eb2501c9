//! The demo's problems in other languages, through the judges of these languages: right solutions that use every operation,
//! and wrong ones. The test binary is its own sandbox child, so it has a `main`.
//!
//! A language whose tools are absent is skipped, and said so; with `CODELSI_REQUIRE=all` that is a failure.

use codelsi_demo::languages::{LANGUAGES, LanguageTemplates};
use codelsi_demo::problems::Problem;
use codelsi_eval::judge::{self, Judge, JudgeKind, Status};
use codelsi_eval::problem::Problem as Asked;
use codelsi_eval::sandbox::Sandbox;
use rayon::prelude::*;
use std::collections::HashSet;

fn main() {
    judge::child_entry();
    Sandbox::checked().expect("the sandbox must hold where the tests run");
    let wrong: usize = LANGUAGES.par_iter().map(wrong_verdicts).sum();
    assert_eq!(wrong, 0, "{wrong} verdicts are wrong");
}

/// The number of wrong verdicts on a language's problems.
fn wrong_verdicts(language: &LanguageTemplates) -> usize {
    let judge = match JudgeKind::of_language(language.code()).unwrap().open(None, None) {
        Ok(judge) => judge,
        Err(e) => {
            assert!(std::env::var("CODELSI_REQUIRE").as_deref() != Ok("all"), "{e}");
            println!("skipped: {e}");
            return 0;
        }
    };
    let problems = covering(language.problems(1, 120));
    let numbers = |p: &&Problem| ["sum", "largest", "count"].iter().any(|end| p.composition.ends_with(end));
    let number = problems.iter().find(numbers).expect("a problem that gives a number");
    let unlike = format!("{}return -1;\n{}", language.indent, language.close);
    let unsolved = problems.par_iter().filter(|p| !verdict(&*judge, p, &p.solution, true)).count();
    unsolved + usize::from(!verdict(&*judge, number, &unlike, false))
}

/// Problems that together show every operation of the languages.
fn covering(problems: Vec<Problem>) -> Vec<Problem> {
    let mut shown: HashSet<String> = HashSet::new();
    let is_new = |p: &Problem| {
        let mut operations: Vec<&str> = p.composition.split(' ').collect();
        // A sum does not show what became of the list: zeros too many, another order.
        let last = operations.len() - 1;
        if ["sum", "largest", "count"].contains(&operations[last]) {
            operations.drain(..last);
        }
        operations.into_iter().filter(|op| shown.insert(op.to_string())).count() > 0
    };
    let covering = problems.into_iter().filter(is_new).collect();
    assert_eq!(shown.len(), 17, "{shown:?}");
    covering
}

/// Whether `completion` is found solved, to its end, where it should be.
fn verdict(judge: &dyn Judge, problem: &Problem, completion: &str, right: bool) -> bool {
    let asked: Asked = serde_json::from_value(problem.json()).unwrap();
    let program = asked.program(completion);
    let found = judge.judge(&program).unwrap();
    let solved = found.status == Status::Ok && judge.reaches_end(&program).unwrap();
    // A program that does not compile is no wrong answer.
    let fair = solved == right && found.status != Status::SyntaxError;
    let said = if fair { String::new() } else { format!("{}\n{}", found.message, program.text) };
    println!("{} {} {:?}, {:.1} s {said}", problem.name, problem.composition, found.status, found.seconds);
    fair
}
