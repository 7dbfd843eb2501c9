//! Judges two completions of one problem with the embedded judge:
//! `cargo run --release -p codelsi-eval --example judge_completion`.

use codelsi_engine::Result;
use codelsi_eval::judge::embedded::EmbeddedJudge;
use codelsi_eval::judge::{self, Judge};
use codelsi_eval::problem::Problem;
use codelsi_eval::sandbox::Sandbox;

fn main() -> Result<()> {
    // Judged programs run in re-executions of this binary.
    judge::child_entry();
    let problem = Problem {
        name: "add".into(),
        language: "ts".into(),
        prompt: "//Adds two numbers.\nfunction add(a: number, b: number): number {\n".into(),
        tests: "require('node:assert').deepEqual(add(2, 3), 5);".into(),
        stop_tokens: vec!["\nfunction ".into()],
    };
    let judge = EmbeddedJudge::new(Sandbox::checked()?);
    for completion in ["  return a + b;\n}", "  return a - b;\n}"] {
        let judgement = judge.judge(&problem.program(completion))?;
        println!("{completion:?}: {:?} after {:.1} s", judgement.status, judgement.seconds);
    }
    Ok(())
}
