//! Typed values of the little world, and the operations on them: English, TypeScript and meaning.

use crate::rng::Rng;
use Meaning::*;

/// The type of a value between two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Nums,
    Words,
    Text,
    Num,
    Flag,
}

impl Kind {
    /// The TypeScript type.
    pub fn typescript(self) -> &'static str {
        match self {
            Kind::Nums => "number[]",
            Kind::Words => "string[]",
            Kind::Text => "string",
            Kind::Num => "number",
            Kind::Flag => "boolean",
        }
    }

    /// Names that a parameter of this type goes by.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Kind::Nums => &["xs", "numbers", "values"],
            Kind::Words => &["words", "names", "items"],
            _ => &["text", "line", "input"],
        }
    }
}

/// A value of the little world. Numbers are whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nums(Vec<i64>),
    Words(Vec<String>),
    Text(String),
    Num(i64),
    Flag(bool),
}

impl Value {
    /// The value as a TypeScript literal.
    pub fn literal(&self) -> String {
        match self {
            Value::Nums(xs) => format!("[{}]", xs.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")),
            Value::Words(ws) => {
                format!("[{}]", ws.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "))
            }
            Value::Text(s) => format!("{s:?}"),
            Value::Num(x) => x.to_string(),
            Value::Flag(b) => b.to_string(),
        }
    }

    /// True when every number in it is small enough to be exact in JavaScript whatever the next step does.
    pub(crate) fn is_small(&self) -> bool {
        match self {
            Value::Nums(xs) => xs.iter().all(|x| x.abs() <= 1_000_000),
            Value::Num(x) => x.abs() <= 1_000_000,
            _ => true,
        }
    }

    /// A random argument. Lists hold repeats, zeros, negative numbers, blank and padded words.
    pub fn random(kind: Kind, rng: &mut Rng) -> Value {
        let length = 3 + rng.below(6);
        let word = |rng: &mut Rng| {
            let w: String = (0..rng.below(6)).map(|_| *rng.pick(b"abcdeAEst") as char).collect();
            if rng.chance(15) { format!(" {w}") } else { w }
        };
        match kind {
            Kind::Nums => Value::Nums((0..length).map(|_| rng.below(25) as i64 - 10).collect()),
            Kind::Words => Value::Words((0..length).map(|_| word(rng)).collect()),
            _ => Value::Text((0..length).map(|_| word(rng)).collect::<Vec<_>>().join(*rng.pick(&[" ", ","]))),
        }
    }
}

/// What an operation does: first as TypeScript on `x` (a number) or `s` (a word), then in Rust. `#` in the code and
/// the second argument in Rust are the literal.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// A filter's condition.
    KeepNums(&'static str, fn(i64, i64) -> bool),
    KeepWords(&'static str, fn(&str, i64) -> bool),
    /// A map's expression.
    EachNum(&'static str, fn(i64, i64) -> i64),
    EachWord(&'static str, fn(&str) -> String),
    /// A method of the list that gives such a list.
    OnNums(&'static str, fn(&mut Vec<i64>, i64)),
    OnWords(&'static str, fn(&mut Vec<String>, i64)),
    /// A method that gives another type; `None` where it is undefined (the largest of nothing).
    FromNums(Kind, &'static str, fn(&[i64], i64) -> Option<Value>),
    FromWords(Kind, &'static str, fn(&[String]) -> Value),
    FromText(Kind, &'static str, fn(&str) -> Value),
}

/// One operation.
pub struct Op {
    /// Unique; also a part of function names.
    pub name: &'static str,
    /// Imperative phrases that all say the same.
    pub phrases: &'static [&'static str],
    pub meaning: Meaning,
}

impl Op {
    /// The type it takes.
    pub fn from(&self) -> Kind {
        match self.meaning {
            KeepNums(..) | EachNum(..) | OnNums(..) | FromNums(..) => Kind::Nums,
            KeepWords(..) | EachWord(..) | OnWords(..) | FromWords(..) => Kind::Words,
            FromText(..) => Kind::Text,
        }
    }

    /// The type it gives.
    pub fn to(&self) -> Kind {
        match self.meaning {
            FromNums(to, ..) | FromWords(to, ..) | FromText(to, ..) => to,
            _ => self.from(),
        }
    }

    /// Its code as a method call, `#` for the literal.
    pub fn call(&self) -> String {
        match self.meaning {
            KeepNums(condition, _) => format!(".filter((x) => {condition})"),
            KeepWords(condition, _) => format!(".filter((s) => {condition})"),
            EachNum(value, _) => format!(".map((x) => {value})"),
            EachWord(value, _) => format!(".map((s) => {value})"),
            OnNums(call, _) | OnWords(call, _) => call.to_string(),
            FromNums(_, call, _) | FromWords(_, call, _) | FromText(_, call, _) => call.to_string(),
        }
    }

    pub(crate) fn run(&self, value: Value, k: i64) -> Option<Value> {
        Some(match (self.meaning, value) {
            (KeepNums(_, keep), Value::Nums(xs)) => {
                Value::Nums(xs.into_iter().filter(|&x| keep(x, k)).collect())
            }
            (EachNum(_, map), Value::Nums(xs)) => Value::Nums(xs.into_iter().map(|x| map(x, k)).collect()),
            (OnNums(_, change), Value::Nums(mut xs)) => {
                change(&mut xs, k);
                Value::Nums(xs)
            }
            (FromNums(_, _, f), Value::Nums(xs)) => f(&xs, k)?,
            (KeepWords(_, keep), Value::Words(ws)) => {
                Value::Words(ws.into_iter().filter(|s| keep(s, k)).collect())
            }
            (EachWord(_, map), Value::Words(ws)) => Value::Words(ws.iter().map(|s| map(s)).collect()),
            (OnWords(_, change), Value::Words(mut ws)) => {
                change(&mut ws, k);
                Value::Words(ws)
            }
            (FromWords(_, _, f), Value::Words(ws)) => f(&ws),
            (FromText(_, _, f), Value::Text(s)) => f(&s),
            _ => return None,
        })
    }
}

/// A row of a table.
pub const fn op(name: &'static str, phrases: &'static [&'static str], meaning: Meaning) -> Op {
    Op { name, phrases, meaning }
}
