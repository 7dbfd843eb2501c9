//! Held-out problems in MultiPL-E's format, with tests that reject near misses.

use crate::chain::{OperationChain, is_held_out_pair};
use crate::operation::{Operation, TypedValue};
use crate::rng::Rng;
use serde_json::{Value as Json, json};
use std::collections::HashSet;

/// A problem and its reference solution.
pub struct GeneratedProblem {
    pub name: String,
    /// MultiPL-E's code of the language.
    pub language: &'static str,
    pub prompt: String,
    /// Reference completion of the prompt.
    pub solution: String,
    pub tests: String,
    pub stop_tokens: &'static [&'static str],
    /// Names of the operations in their order.
    pub composition: String,
}

/// MultiPL-E's stop tokens for TypeScript.
pub const STOP_TOKENS: [&str; 4] = ["\nfunction ", "\n/*", "\n//", "\nclass"];

impl GeneratedProblem {
    /// Returns the problem as a line of a MultiPL-E file.
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

/// Generates problems over lists and texts. Each has an adjacent pair of operations that no training text holds, and no
/// two have the same composition.
pub fn general(seed: u64, count: usize) -> Vec<GeneratedProblem> {
    let mut rng = Rng::new(seed, "general problems");
    let mut seen = HashSet::new();
    let mut problems = Vec::with_capacity(count);
    while problems.len() < count {
        let (chain, cases) = draw_held_out(|_| true, &[2, 2, 3, 3, 3, 4], &mut seen, &mut rng);
        problems.push(general_problem(problems.len(), &chain, &cases, &mut rng));
    }
    problems
}

/// Draws a chain of `supported` operations, of one of the `lengths`, that contains a held-out pair and is not in
/// `seen`; returns it with its test cases.
pub fn draw_held_out(
    supported: impl Fn(&Operation) -> bool,
    lengths: &[usize],
    seen: &mut HashSet<String>,
    rng: &mut Rng,
) -> (OperationChain, Vec<(TypedValue, TypedValue)>) {
    loop {
        let length = *rng.pick(lengths);
        let Some(chain) = OperationChain::random_of(&supported, length, rng, |_, _| true) else { continue };
        let has_held_out_pair = chain
            .steps
            .windows(2)
            .any(|pair| is_held_out_pair(pair[0].operation.name, pair[1].operation.name));
        if !has_held_out_pair || seen.contains(&chain.composition()) {
            continue;
        }
        let Some(cases) = draw_cases(&chain, rng) else { continue };
        seen.insert(chain.composition());
        return (chain, cases);
    }
}

fn general_problem(
    index: usize,
    chain: &OperationChain,
    cases: &[(TypedValue, TypedValue)],
    rng: &mut Rng,
) -> GeneratedProblem {
    let parameter = rng.pick(chain.from().parameters());
    let name = format!("task{index}");
    GeneratedProblem {
        name: format!("General_{index}"),
        language: "ts",
        stop_tokens: &STOP_TOKENS,
        prompt: prompt(&chain.description(rng), &name, parameter, chain),
        solution: format!("    return {};\n}}", chain.expression(parameter)),
        tests: test_program(&name, "", cases),
        composition: chain.composition(),
    }
}

/// Writes the prompt: the description and the function's signature.
pub fn prompt(description: &str, name: &str, parameter: &str, chain: &OperationChain) -> String {
    format!("//{description}\nfunction {} {{\n", chain.signature(name, parameter))
}

/// Writes MultiPL-E's test program for `cases` of (argument, expected), after the source of `library`.
pub fn test_program(candidate: &str, library: &str, cases: &[(TypedValue, TypedValue)]) -> String {
    let asserts: String = cases
        .iter()
        .map(|(x, y)| format!("  assert.deepEqual(candidate({}),{});\n", x.literal(), y.literal()))
        .collect();
    format!(
        "declare var require: any;\nconst assert = require('node:assert');\n\n{library}\nfunction test() {{\n  let candidate = {candidate};\n{asserts}}}\n\ntest();"
    )
}

/// Draws eight arguments with their results on which every near miss of the chain fails; `None` if 20 draws give none.
pub fn draw_cases(chain: &OperationChain, rng: &mut Rng) -> Option<Vec<(TypedValue, TypedValue)>> {
    (0..20).find_map(|_| {
        let cases: Vec<(TypedValue, TypedValue)> = (0..200)
            .map(|_| TypedValue::random(chain.from(), rng))
            .filter_map(|x| chain.run(&x).map(|y| (x, y)))
            .take(8)
            .collect();
        let is_caught = |miss: OperationChain| cases.iter().any(|(x, y)| miss.run(x).as_ref() != Some(y));
        (cases.len() == 8 && chain.near_misses().all(is_caught)).then_some(cases)
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
            let Some(chain) = OperationChain::random(3, &mut rng, |_, _| true) else { continue };
            let Some(cases) = draw_cases(&chain, &mut rng) else { continue };
            for miss in chain.near_misses() {
                assert!(
                    cases.iter().any(|(x, y)| miss.run(x).as_ref() != Some(y)),
                    "{}",
                    chain.composition()
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
        assert!(!problem.prompt.contains(problem.solution.trim()), "the prompt contains its solution");
    }
}
