//! Typed values, and the operations on them: English, TypeScript and Rust semantics.

use crate::rng::Rng;
use Semantics::*;

/// Type of an operation's input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    Nums,
    Words,
    Text,
    Num,
    Flag,
}

impl ValueType {
    /// Returns the TypeScript type.
    pub fn typescript(self) -> &'static str {
        match self {
            ValueType::Nums => "number[]",
            ValueType::Words => "string[]",
            ValueType::Text => "string",
            ValueType::Num => "number",
            ValueType::Flag => "boolean",
        }
    }

    /// Returns the parameter names that generated code uses for this type.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            ValueType::Nums => &["xs", "numbers", "values"],
            ValueType::Words => &["words", "names", "items"],
            _ => &["text", "line", "input"],
        }
    }
}

/// An input or output of an operation; numbers are integers.
#[derive(Clone, Debug, PartialEq)]
pub enum TypedValue {
    Nums(Vec<i64>),
    Words(Vec<String>),
    Text(String),
    Num(i64),
    Flag(bool),
}

impl TypedValue {
    /// Writes the value as a TypeScript literal.
    pub fn literal(&self) -> String {
        match self {
            TypedValue::Nums(xs) => {
                format!("[{}]", xs.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
            }
            TypedValue::Words(ws) => {
                format!("[{}]", ws.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "))
            }
            TypedValue::Text(s) => format!("{s:?}"),
            TypedValue::Num(x) => x.to_string(),
            TypedValue::Flag(b) => b.to_string(),
        }
    }

    /// Returns true if every number is small enough that any next operation on it is exact in JavaScript.
    pub(crate) fn is_exact_in_javascript(&self) -> bool {
        match self {
            TypedValue::Nums(xs) => xs.iter().all(|x| x.abs() <= 1_000_000),
            TypedValue::Num(x) => x.abs() <= 1_000_000,
            _ => true,
        }
    }

    /// Draws a random argument. Lists hold repeats, zeros, negative numbers, blank and padded words.
    pub fn random(value_type: ValueType, rng: &mut Rng) -> TypedValue {
        let length = 3 + rng.below(6);
        let word = |rng: &mut Rng| {
            let w: String = (0..rng.below(6)).map(|_| *rng.pick(b"abcdeAEst") as char).collect();
            if rng.chance(15) { format!(" {w}") } else { w }
        };
        match value_type {
            ValueType::Nums => TypedValue::Nums((0..length).map(|_| rng.below(25) as i64 - 10).collect()),
            ValueType::Words => TypedValue::Words((0..length).map(|_| word(rng)).collect()),
            _ => TypedValue::Text(
                (0..length).map(|_| word(rng)).collect::<Vec<_>>().join(*rng.pick(&[" ", ","])),
            ),
        }
    }
}

/// Semantics of an operation: as TypeScript on `x` (a number) or `s` (a word), then as a Rust function. The literal is
/// `#` in the code and the second argument in Rust.
#[derive(Clone, Copy)]
pub enum Semantics {
    /// Condition of a filter.
    FilterNums(&'static str, fn(i64, i64) -> bool),
    FilterWords(&'static str, fn(&str, i64) -> bool),
    /// Expression of a map.
    MapNums(&'static str, fn(i64, i64) -> i64),
    MapWords(&'static str, fn(&str) -> String),
    /// Method call that returns a list of the same type.
    TransformNums(&'static str, fn(&mut Vec<i64>, i64)),
    TransformWords(&'static str, fn(&mut Vec<String>, i64)),
    /// Method call that returns another type; `None` where it is undefined (the maximum of an empty list).
    FromNums(ValueType, &'static str, fn(&[i64], i64) -> Option<TypedValue>),
    FromWords(ValueType, &'static str, fn(&[String]) -> TypedValue),
    FromText(ValueType, &'static str, fn(&str) -> TypedValue),
}

/// An operation: an English phrase, a TypeScript method call and its semantics.
pub struct Operation {
    /// Unique name; also a part of function names.
    pub name: &'static str,
    /// Imperative phrases, all synonyms.
    pub phrases: &'static [&'static str],
    pub semantics: Semantics,
}

impl Operation {
    /// Returns the input type.
    pub fn from(&self) -> ValueType {
        match self.semantics {
            FilterNums(..) | MapNums(..) | TransformNums(..) | FromNums(..) => ValueType::Nums,
            FilterWords(..) | MapWords(..) | TransformWords(..) | FromWords(..) => ValueType::Words,
            FromText(..) => ValueType::Text,
        }
    }

    /// Returns the output type.
    pub fn to(&self) -> ValueType {
        match self.semantics {
            FromNums(to, ..) | FromWords(to, ..) | FromText(to, ..) => to,
            _ => self.from(),
        }
    }

    /// Writes the operation as a TypeScript method call, with `#` for the literal.
    pub fn call(&self) -> String {
        match self.semantics {
            FilterNums(condition, _) => format!(".filter((x) => {condition})"),
            FilterWords(condition, _) => format!(".filter((s) => {condition})"),
            MapNums(value, _) => format!(".map((x) => {value})"),
            MapWords(value, _) => format!(".map((s) => {value})"),
            TransformNums(call, _) | TransformWords(call, _) => call.to_string(),
            FromNums(_, call, _) | FromWords(_, call, _) | FromText(_, call, _) => call.to_string(),
        }
    }

    /// Applies the operation with literal `k`; `None` for a value of another type or where it is undefined.
    pub(crate) fn run(&self, value: TypedValue, k: i64) -> Option<TypedValue> {
        Some(match (self.semantics, value) {
            (FilterNums(_, keep), TypedValue::Nums(xs)) => {
                TypedValue::Nums(xs.into_iter().filter(|&x| keep(x, k)).collect())
            }
            (MapNums(_, map), TypedValue::Nums(xs)) => {
                TypedValue::Nums(xs.into_iter().map(|x| map(x, k)).collect())
            }
            (TransformNums(_, change), TypedValue::Nums(mut xs)) => {
                change(&mut xs, k);
                TypedValue::Nums(xs)
            }
            (FromNums(_, _, f), TypedValue::Nums(xs)) => f(&xs, k)?,
            (FilterWords(_, keep), TypedValue::Words(ws)) => {
                TypedValue::Words(ws.into_iter().filter(|s| keep(s, k)).collect())
            }
            (MapWords(_, map), TypedValue::Words(ws)) => {
                TypedValue::Words(ws.iter().map(|s| map(s)).collect())
            }
            (TransformWords(_, change), TypedValue::Words(mut ws)) => {
                change(&mut ws, k);
                TypedValue::Words(ws)
            }
            (FromWords(_, _, f), TypedValue::Words(ws)) => f(&ws),
            (FromText(_, _, f), TypedValue::Text(s)) => f(&s),
            _ => return None,
        })
    }
}

/// Makes an operation in a static table.
pub const fn operation(
    name: &'static str,
    phrases: &'static [&'static str],
    semantics: Semantics,
) -> Operation {
    Operation { name, phrases, semantics }
}
