//! Chains of list operations, which become TypeScript functions with an English description.
//!
//! An [`Operation`] has English phrases, TypeScript code and Rust semantics; an [`OperationChain`] composes several.
//! The Rust semantics give the expected values of the tests, so that a generated problem never trusts the code that it
//! checks.

use crate::catalog::OPERATIONS;
use crate::operation::{Operation, TypedValue, ValueType};
use crate::rng::Rng;

/// An operation with its literal.
#[derive(Clone, Copy)]
pub struct ChainStep {
    pub operation: &'static Operation,
    pub literal: i64,
}

impl ChainStep {
    /// Writes the step as a TypeScript method call.
    pub fn call(&self) -> String {
        self.with_literal(&self.operation.call())
    }

    /// Replaces `#` in `code` with the literal in digits.
    pub fn with_literal(&self, code: &str) -> String {
        code.replace('#', &self.literal.to_string())
    }

    /// Describes the step in English, with the literal as a word.
    fn phrase(&self, rng: &mut Rng) -> String {
        rng.pick::<&str>(self.operation.phrases).replace('#', NUMERALS[self.literal as usize])
    }
}

/// Literals in English.
pub const NUMERALS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Returns true if no training text may hold `first` directly followed by `second`: one pair in ten, by a hash of the
/// names. A held-out problem has such a pair, so its composition is new, not only its literals. Were many pairs held out,
/// text without them would teach that they do not occur.
pub fn is_held_out_pair(first: &str, second: &str) -> bool {
    Rng::new(0, &format!("{first} {second}")).below(10) == 0
}

/// Operations in the order of their application, each on the output of the one before.
#[derive(Clone)]
pub struct OperationChain {
    pub steps: Vec<ChainStep>,
}

impl OperationChain {
    /// Draws a well-typed chain of `length` operations in which every operation matters and `allowed` holds for every
    /// adjacent pair; `None` if this draw gives none.
    pub fn random(
        length: usize,
        rng: &mut Rng,
        allowed: impl Fn(&str, &str) -> bool,
    ) -> Option<OperationChain> {
        OperationChain::random_of(|_| true, length, rng, allowed)
    }

    /// Draws a chain as [`OperationChain::random`] does, from the operations that `supported` accepts.
    pub fn random_of(
        supported: impl Fn(&Operation) -> bool,
        length: usize,
        rng: &mut Rng,
        allowed: impl Fn(&str, &str) -> bool,
    ) -> Option<OperationChain> {
        let mut steps: Vec<ChainStep> = Vec::with_capacity(length);
        for i in 0..length {
            let last = i + 1 == length;
            let fits = |op: &Operation| match steps.last() {
                None => true,
                Some(before) => op.from() == before.operation.to() && allowed(before.operation.name, op.name),
            };
            // A chain never returns to an earlier type, as joining words and splitting them again would.
            let is_new_type =
                |op: &Operation| op.to() == op.from() || steps.iter().all(|s| s.operation.from() != op.to());
            let continues = |op: &Operation| {
                is_new_type(op) && (last || !matches!(op.to(), ValueType::Num | ValueType::Flag))
            };
            let choices: Vec<&'static Operation> =
                OPERATIONS.iter().filter(|op| supported(op) && fits(op) && continues(op)).collect();
            if choices.is_empty() {
                return None;
            }
            let operation: &'static Operation = rng.pick::<&Operation>(&choices);
            steps.push(ChainStep { operation, literal: 2 + rng.below(8) as i64 });
        }
        let chain = OperationChain { steps };
        chain.every_step_matters(rng).then_some(chain)
    }

    /// Returns the input type.
    pub fn from(&self) -> ValueType {
        self.steps[0].operation.from()
    }

    /// Returns the output type.
    pub fn to(&self) -> ValueType {
        self.steps[self.steps.len() - 1].operation.to()
    }

    /// Evaluates the chain on `input`; `None` where the result is undefined or too large.
    pub fn run(&self, input: &TypedValue) -> Option<TypedValue> {
        self.steps.iter().try_fold(input.clone(), |value, step| {
            step.operation.run(value, step.literal).filter(TypedValue::is_exact_in_javascript)
        })
    }

    /// Returns the names of the operations in their order, without literals: the key by which compositions are
    /// compared.
    pub fn composition(&self) -> String {
        self.steps.iter().map(|s| s.operation.name).collect::<Vec<_>>().join(" ")
    }

    /// Returns the chains of the same type that leave out one step, or whose literal differs by one in one step.
    pub fn near_misses(&self) -> impl Iterator<Item = OperationChain> + '_ {
        let shorter = (0..self.steps.len()).filter(|_| self.steps.len() > 1).filter_map(|i| {
            let mut steps = self.steps.clone();
            let removed = steps.remove(i).operation;
            (removed.from() == removed.to()).then_some(OperationChain { steps })
        });
        let literals = (0..self.steps.len()).filter(|&i| self.steps[i].operation.call().contains('#'));
        let off = literals.flat_map(|i| [-1, 1].map(|by| (i, by))).map(|(i, by)| {
            let mut steps = self.steps.clone();
            steps[i].literal += by;
            OperationChain { steps }
        });
        shorter.chain(off)
    }

    /// Returns true if every near miss gives another result on some random input.
    pub fn every_step_matters(&self, rng: &mut Rng) -> bool {
        let inputs: Vec<TypedValue> = (0..16).map(|_| TypedValue::random(self.from(), rng)).collect();
        let results: Vec<_> = inputs.iter().map(|x| self.run(x)).collect();
        let varies = results.iter().flatten().any(|y| Some(y) != results.iter().flatten().next());
        let differs =
            |miss: OperationChain| inputs.iter().zip(&results).any(|(x, y)| y.is_some() && miss.run(x) != *y);
        varies && self.near_misses().all(differs)
    }

    /// Writes the TypeScript signature, as in `evensSum(xs: number[]): number`.
    pub fn signature(&self, name: &str, parameter: &str) -> String {
        format!("{name}({parameter}: {}): {}", self.from().typescript(), self.to().typescript())
    }

    /// Writes the chain as one TypeScript expression on `receiver`.
    pub fn expression(&self, receiver: &str) -> String {
        self.steps.iter().fold(receiver.to_string(), |code, step| code + &step.call())
    }

    /// Describes the chain in an English sentence, in one of many random wordings.
    pub fn description(&self, rng: &mut Rng) -> String {
        let phrases: Vec<String> = self.steps.iter().map(|s| s.phrase(rng)).collect();
        sentence(&phrases, rng)
    }

    /// Returns a function name from the first and last operations' names.
    pub fn name(&self) -> String {
        let first = self.steps[0].operation.name;
        match self.steps.len() {
            1 => first.to_string(),
            n => first.to_string() + &capitalized(self.steps[n - 1].operation.name),
        }
    }
}

/// Joins imperative phrases into a sentence.
pub fn sentence(phrases: &[String], rng: &mut Rng) -> String {
    let last = phrases.len() - 1;
    let joined = match rng.below(4) {
        _ if last == 0 => phrases[0].clone(),
        0 => phrases.join(", then "),
        1 => format!("{} and {}", phrases[..last].join(", "), phrases[last]),
        2 => format!("{}, and finally {}", phrases[..last].join(", then "), phrases[last]),
        _ => phrases.iter().map(|p| capitalized(p)).collect::<Vec<_>>().join(". "),
    };
    capitalized(&joined) + "."
}

/// Returns `text` with its first letter in upper case.
pub fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_ascii_uppercase().to_string() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain_of(names: &[&str]) -> OperationChain {
        let by_name = |name: &&str| OPERATIONS.iter().find(|operation| operation.name == *name).unwrap();
        OperationChain {
            steps: names.iter().map(|n| ChainStep { operation: by_name(n), literal: 3 }).collect(),
        }
    }

    #[test]
    fn description_code_and_result_of_a_chain_agree() {
        let chain = chain_of(&["evens", "times", "sum"]);
        assert_eq!(chain.signature("f", "xs"), "f(xs: number[]): number");
        assert_eq!(
            chain.expression("xs"),
            "xs.filter((x) => x % 2 === 0).map((x) => x * 3).reduce((a, b) => a + b, 0)"
        );
        assert_eq!(chain.run(&TypedValue::Nums(vec![1, 2, -4])), Some(TypedValue::Num(-6)));
        let description = chain.description(&mut Rng::new(1, "test"));
        assert!(description.contains("three") && description.ends_with('.'), "{description}");
    }

    #[test]
    fn what_javascript_leaves_undefined_or_inexact_has_no_value() {
        assert_eq!(chain_of(&["evens", "largest"]).run(&TypedValue::Nums(vec![1, 3])), None);
        assert_eq!(chain_of(&["cubed", "cubed", "cubed"]).run(&TypedValue::Nums(vec![9])), None);
        assert_eq!(chain_of(&["evens"]).run(&TypedValue::Text("2".into())), None);
    }

    #[test]
    fn random_chains_are_well_typed_and_waste_no_step() {
        let mut rng = Rng::new(3, "test");
        let chains: Vec<OperationChain> =
            (0..2000).filter_map(|_| OperationChain::random(3, &mut rng, |_, _| true)).collect();
        assert!(chains.len() > 500);
        for p in &chains {
            assert!(
                p.steps.windows(2).all(|s| s[0].operation.to() == s[1].operation.from()),
                "{}",
                p.composition()
            );
            assert_ne!(p.composition(), "ascending reversed sum", "sorting before a sum changes nothing");
        }
    }

    #[test]
    fn one_pair_in_ten_is_held_out() {
        let pairs =
            OPERATIONS.iter().flat_map(|a| OPERATIONS.iter().map(move |b| is_held_out_pair(a.name, b.name)));
        let (held, all) = pairs.fold((0, 0), |(held, all), h| (held + h as usize, all + 1));
        assert!((8..12).contains(&(100 * held / all)), "{held} of {all}");
    }
}
