//! Held-out problems in MultiPL-E's form, with tests that tell right from nearly right.

use crate::op::{Op, Value};
use crate::program::{Program, held_out};
use crate::rng::Rng;
use serde_json::{Value as Json, json};
use std::collections::HashSet;

/// A problem and the answer it was made from.
pub struct Problem {
    pub name: String,
    /// As MultiPL-E has it.
    pub language: &'static str,
    pub prompt: String,
    /// What follows the prompt in a right program.
    pub solution: String,
    pub tests: String,
    pub stop_tokens: &'static [&'static str],
    /// The operations in their order.
    pub composition: String,
}

/// Where a completion ends: MultiPL-E's for TypeScript.
pub const STOP_TOKENS: [&str; 4] = ["\nfunction ", "\n/*", "\n//", "\nclass"];

impl Problem {
    /// The line of a MultiPL-E file.
    pub fn json(&self) -> Json {
        json!({
            "name": self.name,
            "language": self.language,
            "prompt": self.prompt,
            "tests": self.tests,
            "stop_tokens": self.stop_tokens,
        })
    }
}

/// Problems over lists and texts; every one has an adjacent pair of operations that no training text holds, and no
/// two have the same composition.
pub fn general(seed: u64, count: usize) -> Vec<Problem> {
    let mut rng = Rng::new(seed, "general problems");
    let mut seen = HashSet::new();
    let mut problems = Vec::with_capacity(count);
    while problems.len() < count {
        let (program, cases) = novel(|_| true, &[2, 2, 3, 3, 3, 4], &mut seen, &mut rng);
        problems.push(problem(problems.len(), &program, &cases, &mut rng));
    }
    problems
}

/// A program of `known` operations and one of the `lengths` that holds a held-out pair and is not among those `seen`, with
/// its cases.
pub fn novel(
    known: impl Fn(&Op) -> bool,
    lengths: &[usize],
    seen: &mut HashSet<String>,
    rng: &mut Rng,
) -> (Program, Vec<(Value, Value)>) {
    loop {
        let length = *rng.pick(lengths);
        let Some(program) = Program::random_of(&known, length, rng, |_, _| true) else { continue };
        let novel = program.steps.windows(2).any(|pair| held_out(pair[0].op.name, pair[1].op.name));
        if !novel || seen.contains(&program.composition()) {
            continue;
        }
        let Some(cases) = cases(&program, rng) else { continue };
        seen.insert(program.composition());
        return (program, cases);
    }
}

fn problem(index: usize, program: &Program, cases: &[(Value, Value)], rng: &mut Rng) -> Problem {
    let parameter = rng.pick(program.from().parameters());
    let name = format!("task{index}");
    Problem {
        name: format!("General_{index}"),
        language: "ts",
        stop_tokens: &STOP_TOKENS,
        prompt: prompt(&program.description(rng), &name, parameter, program),
        solution: format!("    return {};\n}}", program.expression(parameter)),
        tests: tests(&name, "", cases),
        composition: program.composition(),
    }
}

/// The description, the types, and the head of the function.
pub fn prompt(description: &str, name: &str, parameter: &str, program: &Program) -> String {
    let types = format!("{} => {}", program.from().typescript(), program.to().typescript());
    format!("//{description}\n// {types}\nfunction {} {{\n", program.signature(name, parameter))
}

/// MultiPL-E's test text for `cases` of (argument, expected); `library` stands before it.
pub fn tests(candidate: &str, library: &str, cases: &[(Value, Value)]) -> String {
    let asserts: String = cases
        .iter()
        .map(|(x, y)| format!("  assert.deepEqual(candidate({}),{});\n", x.literal(), y.literal()))
        .collect();
    format!(
        "declare var require: any;\nconst assert = require('node:assert');\n\n{library}\nfunction test() {{\n  let candidate = {candidate};\n{asserts}}}\n\ntest();"
    )
}

/// Eight arguments with their results, on which every near miss of the program fails; `None` if the dice give none.
pub fn cases(program: &Program, rng: &mut Rng) -> Option<Vec<(Value, Value)>> {
    (0..20).find_map(|_| {
        let cases: Vec<(Value, Value)> = (0..200)
            .map(|_| Value::random(program.from(), rng))
            .filter_map(|x| program.run(&x).map(|y| (x, y)))
            .take(8)
            .collect();
        let caught = |miss: Program| cases.iter().any(|(x, y)| miss.run(x).as_ref() != Some(y));
        (cases.len() == 8 && program.near_misses().all(caught)).then_some(cases)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_catch_every_near_miss() {
        let mut rng = Rng::new(2, "test");
        let mut checked = 0;
        while checked < 50 {
            let Some(program) = Program::random(3, &mut rng, |_, _| true) else { continue };
            let Some(cases) = cases(&program, &mut rng) else { continue };
            for miss in program.near_misses() {
                assert!(
                    cases.iter().any(|(x, y)| miss.run(x).as_ref() != Some(y)),
                    "{}",
                    program.composition()
                );
            }
            checked += 1;
        }
    }

    #[test]
    fn a_problem_is_a_line_of_multipl_e() {
        let problem = &general(1, 1)[0];
        let line = problem.json();
        assert!(problem.prompt.starts_with("//") && problem.prompt.ends_with(" {\n"));
        assert_eq!(line["language"], "ts");
        assert_eq!(line["stop_tokens"][3], "\nclass");
        assert!(problem.tests.contains("let candidate = task0;") && problem.tests.ends_with("\ntest();"));
        assert!(!problem.prompt.contains(problem.solution.trim()), "the answer is not in the question");
    }
}
