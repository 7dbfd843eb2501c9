//! The demo's little world: list operations that compose into TypeScript functions with an English description.
//!
//! An [`Op`] knows its English, its TypeScript and its meaning; a [`Program`] is a chain of them. The meaning, run
//! here in Rust, gives the expected values of the tests, so a generated problem never trusts the code it checks.

use crate::op::{Kind, Op, Value};
use crate::operations::OPS;
use crate::rng::Rng;

/// An operation with its literal.
#[derive(Clone, Copy)]
pub struct Step {
    pub op: &'static Op,
    pub literal: i64,
}

impl Step {
    /// The step as a method call on whatever stands before it, the literal in digits.
    pub fn call(&self) -> String {
        self.fill(&self.op.call())
    }

    /// TypeScript of the operation with the literal in its place, in digits.
    pub fn fill(&self, code: &str) -> String {
        code.replace('#', &self.literal.to_string())
    }

    /// The step in English, the literal as a word.
    fn say(&self, rng: &mut Rng) -> String {
        rng.pick::<&str>(self.op.phrases).replace('#', NUMERALS[self.literal as usize])
    }
}

/// Literals in English.
pub const NUMERALS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Whether no training text may hold `first` directly followed by `then`: one pair in four, by a hash of the names.
/// A held-out problem has such a pair, so it is new in which operations it composes, not merely in its literals.
pub fn held_out(first: &str, then: &str) -> bool {
    Rng::new(0, &format!("{first} {then}")).below(4) == 0
}

/// Operations in the order in which they are applied, each taking what the one before gives.
#[derive(Clone)]
pub struct Program {
    pub steps: Vec<Step>,
}

impl Program {
    /// A random well-typed program of `length` operations in which every operation matters and, for every adjacent
    /// pair, `allowed` holds. `None` if the dice give none.
    pub fn random(length: usize, rng: &mut Rng, allowed: impl Fn(&str, &str) -> bool) -> Option<Program> {
        Program::random_of(|_| true, length, rng, allowed)
    }

    /// The same of those operations that are `known`.
    pub fn random_of(
        known: impl Fn(&Op) -> bool,
        length: usize,
        rng: &mut Rng,
        allowed: impl Fn(&str, &str) -> bool,
    ) -> Option<Program> {
        let mut steps: Vec<Step> = Vec::with_capacity(length);
        for i in 0..length {
            let last = i + 1 == length;
            let fits = |op: &Op| match steps.last() {
                None => true,
                Some(before) => op.from() == before.op.to() && allowed(before.op.name, op.name),
            };
            // No way back to a type once left, as in joining words only to split them again.
            let onward = |op: &Op| op.to() == op.from() || steps.iter().all(|s| s.op.from() != op.to());
            let continues = |op: &Op| onward(op) && (last || !matches!(op.to(), Kind::Num | Kind::Flag));
            let choices: Vec<&'static Op> =
                OPS.iter().filter(|op| known(op) && fits(op) && continues(op)).collect();
            if choices.is_empty() {
                return None;
            }
            let op: &'static Op = rng.pick::<&Op>(&choices);
            steps.push(Step { op, literal: 2 + rng.below(8) as i64 });
        }
        let program = Program { steps };
        program.every_step_matters(rng).then_some(program)
    }

    pub fn from(&self) -> Kind {
        self.steps[0].op.from()
    }

    pub fn to(&self) -> Kind {
        self.steps[self.steps.len() - 1].op.to()
    }

    /// What the program makes of `input`; `None` where that is undefined or too large.
    pub fn run(&self, input: &Value) -> Option<Value> {
        self.steps
            .iter()
            .try_fold(input.clone(), |value, step| step.op.run(value, step.literal).filter(Value::is_small))
    }

    /// Which operations, in which order: what "the same composition" means. Literals do not count.
    pub fn composition(&self) -> String {
        self.steps.iter().map(|s| s.op.name).collect::<Vec<_>>().join(" ")
    }

    /// Programs of the same type that leave out one step, or have one literal one off.
    pub fn near_misses(&self) -> impl Iterator<Item = Program> + '_ {
        let shorter = (0..self.steps.len()).filter(|_| self.steps.len() > 1).filter_map(|i| {
            let mut steps = self.steps.clone();
            let gone = steps.remove(i).op;
            (gone.from() == gone.to()).then_some(Program { steps })
        });
        let literals = (0..self.steps.len()).filter(|&i| self.steps[i].op.call().contains('#'));
        let off = literals.flat_map(|i| [-1, 1].map(|by| (i, by))).map(|(i, by)| {
            let mut steps = self.steps.clone();
            steps[i].literal += by;
            Program { steps }
        });
        shorter.chain(off)
    }

    /// Whether every near miss shows on random inputs.
    pub fn every_step_matters(&self, rng: &mut Rng) -> bool {
        let inputs: Vec<Value> = (0..16).map(|_| Value::random(self.from(), rng)).collect();
        let results: Vec<_> = inputs.iter().map(|x| self.run(x)).collect();
        let varies = results.iter().flatten().any(|y| Some(y) != results.iter().flatten().next());
        let tells =
            |miss: Program| inputs.iter().zip(&results).any(|(x, y)| y.is_some() && miss.run(x) != *y);
        varies && self.near_misses().all(tells)
    }

    /// `name`, the types and a parameter: `evensSum(xs: number[]): number`.
    pub fn signature(&self, name: &str, parameter: &str) -> String {
        format!("{name}({parameter}: {}): {}", self.from().typescript(), self.to().typescript())
    }

    /// The program as one expression on `receiver`.
    pub fn expression(&self, receiver: &str) -> String {
        self.steps.iter().fold(receiver.to_string(), |code, step| code + &step.call())
    }

    /// A sentence that says what the program does, in one of many ways.
    pub fn description(&self, rng: &mut Rng) -> String {
        let phrases: Vec<String> = self.steps.iter().map(|s| s.say(rng)).collect();
        sentence(&phrases, rng)
    }

    /// A function name made of its operations' names.
    pub fn name(&self) -> String {
        let first = self.steps[0].op.name;
        match self.steps.len() {
            1 => first.to_string(),
            n => first.to_string() + &capitalized(self.steps[n - 1].op.name),
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

/// `text` with its first letter in upper case.
pub fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_ascii_uppercase().to_string() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(names: &[&str]) -> Program {
        let op = |name: &&str| OPS.iter().find(|op| op.name == *name).unwrap();
        Program { steps: names.iter().map(|n| Step { op: op(n), literal: 3 }).collect() }
    }

    #[test]
    fn a_program_says_writes_and_does_the_same() {
        let program = program(&["evens", "times", "sum"]);
        assert_eq!(program.signature("f", "xs"), "f(xs: number[]): number");
        assert_eq!(
            program.expression("xs"),
            "xs.filter((x) => x % 2 === 0).map((x) => x * 3).reduce((a, b) => a + b, 0)"
        );
        assert_eq!(program.run(&Value::Nums(vec![1, 2, -4])), Some(Value::Num(-6)));
        let description = program.description(&mut Rng::new(1, "test"));
        assert!(description.contains("three") && description.ends_with('.'), "{description}");
    }

    #[test]
    fn what_javascript_leaves_undefined_or_inexact_has_no_value() {
        assert_eq!(program(&["evens", "largest"]).run(&Value::Nums(vec![1, 3])), None);
        assert_eq!(program(&["cubed", "cubed", "cubed"]).run(&Value::Nums(vec![9])), None);
        assert_eq!(program(&["evens"]).run(&Value::Text("2".into())), None);
    }

    #[test]
    fn random_programs_fit_together_and_waste_no_step() {
        let mut rng = Rng::new(3, "test");
        let programs: Vec<Program> =
            (0..2000).filter_map(|_| Program::random(3, &mut rng, |_, _| true)).collect();
        assert!(programs.len() > 500);
        for p in &programs {
            assert!(p.steps.windows(2).all(|s| s[0].op.to() == s[1].op.from()), "{}", p.composition());
            assert_ne!(p.composition(), "ascending reversed sum", "sorting before a sum changes nothing");
        }
    }

    #[test]
    fn one_pair_in_four_is_held_out() {
        let pairs = OPS.iter().flat_map(|a| OPS.iter().map(move |b| held_out(a.name, b.name)));
        let (held, all) = pairs.fold((0, 0), |(held, all), h| (held + h as usize, all + 1));
        assert!((20..30).contains(&(100 * held / all)), "{held} of {all}");
    }
}
