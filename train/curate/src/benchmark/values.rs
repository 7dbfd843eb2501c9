//! Examples and tests as trees of values: the arguments of a call and the expected result.
//!
//! `candidate([1.0, 2.0], 0.5) == True`, `assertEquals(true, f(List.of(1f, 2f), 0.5f))` and a doctest over two lines
//! are the same example. Only brackets and literals of the text are kept; names, types, casts and other punctuation are
//! removed, numbers are normalized, and brackets around a single value are removed. An example is then the arguments of
//! a call and an adjacent value in the same bracket, in either order.

use crate::fingerprint::{SyntaxToken, tokenize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// (examples, total weight of distinct literals) that identify a problem: the more examples, the less specific each may
/// be.
const SUFFICIENT: [(usize, usize); 3] = [(1, 8), (2, 6), (3, 4)];

/// Minimum characters of a specific example, quotes around each value included.
const MIN_EXAMPLE_CHARS: usize = 7;

/// Maximum brackets around a value; those inside are left out, their values are kept.
const MAX_BRACKETS: usize = 64;

/// A name, a literal, the arguments of a call of a name, or the content of other brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ValueTree<'a> {
    Name(&'a str),
    Literal(String),
    Arguments(&'a str, Vec<ValueTree<'a>>),
    List(Vec<ValueTree<'a>>),
}

/// An index of the examples of all problems.
#[derive(Default)]
pub struct Examples {
    /// The problems with an example and its literals, by the hash of the example.
    by_hash: HashMap<u64, (BTreeSet<usize>, HashSet<String>)>,
}

impl Examples {
    /// Adds the expected results of the calls of `names` in `text`.
    pub fn insert(&mut self, problem: usize, text: &str, names: &[&str]) {
        let mut found = Vec::new();
        expectations(&read(text), names, &mut found);
        for (example, literals) in found {
            self.by_hash.entry(example).or_insert((BTreeSet::new(), literals)).0.insert(problem);
        }
    }

    /// Finds the first problem of which `text` has sufficient examples.
    pub fn find(&self, text: &str) -> Option<usize> {
        if self.by_hash.is_empty() {
            return None;
        }
        let mut examples = HashSet::new();
        adjacent_pairs(&read(text), &mut examples);
        // The examples must be calls of one function, under any name.
        let mut shared: HashMap<(usize, &str), Vec<&HashSet<String>>> = HashMap::new();
        for (example, name) in examples {
            if let Some((problems, literals)) = self.by_hash.get(&example) {
                problems
                    .iter()
                    .for_each(|problem| shared.entry((*problem, name)).or_default().push(literals));
            }
        }
        let sufficient = |examples: &[&HashSet<String>]| {
            let all: HashSet<&String> = examples.iter().copied().flatten().collect();
            let total: usize = all.into_iter().map(|literal| weight(literal)).sum();
            SUFFICIENT.iter().any(|&(n, min_weight)| examples.len() >= n && total >= min_weight)
        };
        shared.into_iter().filter(|(_, examples)| sufficient(examples)).map(|((problem, _), _)| problem).min()
    }
}

/// Parses text as values. An unclosed bracket extends to the end; an unopened one is ignored.
fn read(text: &str) -> Vec<ValueTree<'_>> {
    let mut open: Vec<Vec<ValueTree>> = vec![Vec::new()];
    let (mut negative, mut ignored) = (false, 0usize);
    for token in tokenize(text) {
        let value = match &token {
            SyntaxToken::Punctuation('(' | '[' | '{') if open.len() > MAX_BRACKETS => {
                ignored += 1;
                None
            }
            SyntaxToken::Punctuation('(' | '[' | '{') => {
                open.push(Vec::new());
                None
            }
            SyntaxToken::Punctuation(')' | ']' | '}') if ignored > 0 => {
                ignored -= 1;
                None
            }
            SyntaxToken::Punctuation(mark @ (')' | ']' | '}')) if open.len() > 1 => close(&mut open, *mark),
            SyntaxToken::Punctuation(_) => None,
            SyntaxToken::Literal(value) => Some(ValueTree::Literal(normalized(value, negative))),
            SyntaxToken::Word("true" | "True") => Some(ValueTree::Literal("true".into())),
            SyntaxToken::Word("false" | "False") => Some(ValueTree::Literal("false".into())),
            SyntaxToken::Word("null" | "None" | "undefined" | "nullptr") => {
                Some(ValueTree::Literal("null".into()))
            }
            SyntaxToken::Word(name) => Some(ValueTree::Name(name)),
        };
        open.last_mut().expect("the outermost is never closed").extend(value);
        negative = token == SyntaxToken::Punctuation('-');
    }
    while open.len() > 1 {
        let value = close(&mut open, ' ');
        open.last_mut().expect("the outermost is never closed").extend(value);
    }
    open.pop().unwrap_or_default()
}

/// Closes the innermost bracket; `None` if it has no value.
fn close<'a>(open: &mut Vec<Vec<ValueTree<'a>>>, mark: char) -> Option<ValueTree<'a>> {
    let inside = open.pop()?;
    let value = match open.last()?.last() {
        Some(ValueTree::Name(name)) if mark == ')' => ValueTree::Arguments(name, inside),
        _ => ValueTree::List(inside),
    };
    value.children().iter().any(|value| !value.is_name()).then_some(value)
}

/// Normalizes a number: without type suffix, with its sign; strings are unchanged.
fn normalized(value: &str, negative: bool) -> String {
    let digits = value.trim_end_matches(['f', 'F', 'l', 'L', 'u', 'U']);
    let digits = ["i32", "i64", "u32", "u64", "f64", "f32", "usize", "isize"]
        .iter()
        .find_map(|suffix| value.strip_suffix(suffix))
        .unwrap_or(digits);
    match digits.trim_end_matches('_').parse::<f64>() {
        Ok(number) if value.starts_with(|c: char| c.is_ascii_digit()) => {
            if negative {
                (-number).to_string()
            } else {
                number.to_string()
            }
        }
        _ => value.to_string(),
    }
}

impl<'a> ValueTree<'a> {
    fn is_name(&self) -> bool {
        matches!(self, ValueTree::Name(_))
    }

    /// The values in its brackets.
    fn children(&self) -> &[ValueTree<'a>] {
        match self {
            ValueTree::Arguments(_, values) | ValueTree::List(values) => values,
            ValueTree::Name(_) | ValueTree::Literal(_) => &[],
        }
    }

    /// Literals and brackets without names; empty for a name.
    fn normal_form(&self) -> String {
        match self {
            ValueTree::Name(_) => String::new(),
            ValueTree::Literal(value) => format!("{value:?}"),
            ValueTree::Arguments(_, values) | ValueTree::List(values) => {
                let parts: Vec<String> =
                    values.iter().map(ValueTree::normal_form).filter(|s| !s.is_empty()).collect();
                if parts.len() == 1 { parts[0].clone() } else { format!("({})", parts.join(" ")) }
            }
        }
    }

    fn literals(&self, into: &mut HashSet<String>) {
        match self {
            ValueTree::Name(_) => {}
            ValueTree::Literal(value) if matches!(value.as_str(), "true" | "false" | "null") => {}
            ValueTree::Literal(value) => {
                into.insert(value.clone());
            }
            ValueTree::Arguments(_, values) | ValueTree::List(values) => {
                values.iter().for_each(|value| value.literals(into))
            }
        }
    }
}

/// Collects every call of one of `names` with the value after it, and the literals of both.
fn expectations(values: &[ValueTree], names: &[&str], found: &mut Vec<(u64, HashSet<String>)>) {
    let is_call = |value: &ValueTree| matches!(value, ValueTree::Name(name) if names.contains(name));
    for (at, value) in values.iter().enumerate() {
        expectations(value.children(), names, found);
        let Some(arguments) = values.get(at + 1).filter(|arguments| is_call(value) && !arguments.is_name())
        else {
            continue;
        };
        let until_next = values[at + 2..].iter().take_while(|value| !is_call(value));
        if let Some(expected) = until_next.into_iter().find(|value| !value.is_name()) {
            let mut literals = HashSet::new();
            arguments.literals(&mut literals);
            expected.literals(&mut literals);
            // `f(1) == 2` is not specific.
            if arguments.normal_form().len() + expected.normal_form().len() >= MIN_EXAMPLE_CHARS {
                found.push((example_hash(arguments, expected), literals));
            }
        }
    }
}

/// Collects, in these and nested brackets, the hash of every two adjacent values of which one is the arguments of a
/// call, and the called name.
fn adjacent_pairs<'a>(values: &[ValueTree<'a>], examples: &mut HashSet<(u64, &'a str)>) {
    let values: Vec<&ValueTree> = values.iter().filter(|value| !value.is_name()).collect();
    for two in values.windows(2) {
        for value in two {
            if let ValueTree::Arguments(name, _) = value {
                examples.insert((example_hash(two[0], two[1]), name));
            }
        }
    }
    values.iter().for_each(|value| adjacent_pairs(value.children(), examples));
}

/// The weight of a literal: its number of words, 1 to 4.
fn weight(literal: &str) -> usize {
    literal.split_whitespace().count().clamp(1, 4)
}

/// The hash of an example, independent of the order of its two values.
fn example_hash(a: &ValueTree, b: &ValueTree) -> u64 {
    let mut both = [a.normal_form(), b.normal_form()];
    both.sort();
    let mut hasher = DefaultHasher::new();
    both.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: &str = "def check(candidate):\n    assert candidate([1.0, 2.0, 3.9], 0.3) == True\n    \
                         assert candidate([]) == 0\n    assert candidate([-5, 7], 'a b') == [8, None]\n";

    fn known() -> Examples {
        let mut known = Examples::default();
        known.insert(
            4,
            "def f(xs):\n    \"\"\" Sums.\n    >>> f(10)\n    55\n    >>> f(1)\n    1\"\"\"",
            &["f"],
        );
        known.insert(3, TESTS, &["f", "candidate"]);
        known
    }

    #[test]
    fn an_example_is_the_same_in_any_language() {
        for copy in [
            TESTS,
            "expect(g([1, 2, 3.9], 0.3)).toBe(true); expect(g([-5, 7], \"a b\")).toEqual([8, undefined]);",
            "/// assert_eq!(g(&vec![1.0, 2.0, 3.9], 0.3), true);\n/// assert_eq!(g(&[-5, 7], \"a b\"), (8, None));",
            "assertEquals(true, g(List.of(1.0f, 2f, 3.9f), 0.3f)); assertEquals(Arrays.asList(8, null), g(new int[] {-5, 7}, \"a b\"));",
            "assert(g((std::vector<float>({(float)1.0f, (float)2.0f, (float)3.9f})), (0.3f)) == (true));\nassert(g({-5, 7}, \"a b\") == std::tuple(8, nullptr));",
            " * g([1, 2, 3.9], 0.3) // => true\n * g([-5, 7], 'a b') // returns [8, null]",
        ] {
            assert_eq!(known().find(copy), Some(3), "{copy}");
        }
    }

    #[test]
    fn other_values_other_orders_and_too_few_examples_do_not_match() {
        for other in [
            TESTS.replace("3.9", "3.8").as_str(),
            "f([1, 2, 3.9], 0.3) == true",
            "f([2, 1, 3.9], 0.3) == true; f([-5, 7], 'a b') == [8, null]",
            "f(10) == 55; f(1) == 1",
            "f([1, 2, 3.9], 0.3) == true; g([-5, 7], 'a b') == [8, null]",
            "a list [1, 2, 3.9], 0.3 true and -5, 7, 'a b', [8, null]",
            "",
            "((((",
        ] {
            assert_eq!(known().find(other), None, "{other}");
        }
    }
}
