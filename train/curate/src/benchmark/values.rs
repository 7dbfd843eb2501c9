//! Examples and tests as trees of values: what a function is given and what is expected of it.
//!
//! `candidate([1.0, 2.0], 0.5) == True`, `assertEquals(true, f(List.of(1f, 2f), 0.5f))` and a doctest over two lines
//! are the same example. Of the text there remain brackets and literals; names, types, casts and all other marks are
//! gone, numbers have one spelling, and brackets around one thing are that thing. An example is then what is given to a
//! call and its neighbour in the same bracket, in either order.

use crate::fingerprint::{Token, lex};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// So many examples of one problem in a text, with so many different literals in all, are enough to know it: the more
/// examples, the less they have to say.
const ENOUGH: [(usize, usize); 3] = [(1, 8), (2, 6), (3, 4)];

/// Characters of an example, quotes around each value included, that is not anybody's.
const TELLING: usize = 7;

/// A name, a literal, what is given to a call of a name, or what is in other brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form<'a> {
    Name(&'a str),
    Value(String),
    Given(&'a str, Vec<Form<'a>>),
    List(Vec<Form<'a>>),
}

/// The examples of many problems.
#[derive(Default)]
pub struct Examples {
    /// By the hash of an example: the problems that have it, and its literals.
    known: HashMap<u64, (BTreeSet<usize>, HashSet<String>)>,
}

impl Examples {
    /// Learns what `text` expects of calls of any of `names`.
    pub fn insert(&mut self, problem: usize, text: &str, names: &[&str]) {
        let mut found = Vec::new();
        expectations(&read(text), names, &mut found);
        for (example, literals) in found {
            self.known.entry(example).or_insert((BTreeSet::new(), literals)).0.insert(problem);
        }
    }

    /// The first problem, in their order, of which `text` has enough examples.
    pub fn find(&self, text: &str) -> Option<usize> {
        if self.known.is_empty() {
            return None;
        }
        let mut examples = HashSet::new();
        neighbours(&read(text), &mut examples);
        // Examples are of one function, whatever its name.
        let mut shared: HashMap<(usize, &str), Vec<&HashSet<String>>> = HashMap::new();
        for (example, name) in examples {
            if let Some((problems, literals)) = self.known.get(&example) {
                problems
                    .iter()
                    .for_each(|problem| shared.entry((*problem, name)).or_default().push(literals));
            }
        }
        let enough = |examples: &[&HashSet<String>]| {
            let all: HashSet<&String> = examples.iter().copied().flatten().collect();
            let weight: usize = all.into_iter().map(|literal| weight(literal)).sum();
            ENOUGH.iter().any(|&(n, least)| examples.len() >= n && weight >= least)
        };
        shared.into_iter().filter(|(_, examples)| enough(examples)).map(|((problem, _), _)| problem).min()
    }
}

/// Reads text as forms. A bracket that nothing closes goes on to the end; one that nothing opened is passed over.
fn read(text: &str) -> Vec<Form<'_>> {
    let mut open: Vec<Vec<Form>> = vec![Vec::new()];
    let mut negative = false;
    for token in lex(text) {
        let form = match &token {
            Token::Mark('(' | '[' | '{') => {
                open.push(Vec::new());
                None
            }
            Token::Mark(mark @ (')' | ']' | '}')) if open.len() > 1 => close(&mut open, *mark),
            Token::Mark(_) => None,
            Token::Literal(value) => Some(Form::Value(plain(value, negative))),
            Token::Word("true" | "True") => Some(Form::Value("true".into())),
            Token::Word("false" | "False") => Some(Form::Value("false".into())),
            Token::Word("null" | "None" | "undefined" | "nullptr") => Some(Form::Value("null".into())),
            Token::Word(name) => Some(Form::Name(name)),
        };
        open.last_mut().expect("the outermost is never closed").extend(form);
        negative = token == Token::Mark('-');
    }
    while open.len() > 1 {
        let form = close(&mut open, ' ');
        open.last_mut().expect("the outermost is never closed").extend(form);
    }
    open.pop().unwrap_or_default()
}

/// What is in the innermost bracket; one without any value is nothing.
fn close<'a>(open: &mut Vec<Vec<Form<'a>>>, mark: char) -> Option<Form<'a>> {
    let inside = open.pop()?;
    let form = match open.last()?.last() {
        Some(Form::Name(name)) if mark == ')' => Form::Given(name, inside),
        _ => Form::List(inside),
    };
    form.inside().iter().any(|form| !form.is_name()).then_some(form)
}

/// A number without its type's suffix, with its sign; a string as it is.
fn plain(value: &str, negative: bool) -> String {
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

impl<'a> Form<'a> {
    fn is_name(&self) -> bool {
        matches!(self, Form::Name(_))
    }

    /// What is in its brackets.
    fn inside(&self) -> &[Form<'a>] {
        match self {
            Form::Given(_, forms) | Form::List(forms) => forms,
            Form::Name(_) | Form::Value(_) => &[],
        }
    }

    /// Values and brackets without names; empty for a name.
    fn spelled(&self) -> String {
        match self {
            Form::Name(_) => String::new(),
            Form::Value(value) => format!("{value:?}"),
            Form::Given(_, forms) | Form::List(forms) => {
                let parts: Vec<String> = forms.iter().map(Form::spelled).filter(|s| !s.is_empty()).collect();
                if parts.len() == 1 { parts[0].clone() } else { format!("({})", parts.join(" ")) }
            }
        }
    }

    fn literals(&self, into: &mut HashSet<String>) {
        match self {
            Form::Name(_) => {}
            Form::Value(value) if matches!(value.as_str(), "true" | "false" | "null") => {}
            Form::Value(value) => {
                into.insert(value.clone());
            }
            Form::Given(_, forms) | Form::List(forms) => forms.iter().for_each(|form| form.literals(into)),
        }
    }
}

/// Every call of one of `names` with the next value after it, and the literals of both.
fn expectations(forms: &[Form], names: &[&str], found: &mut Vec<(u64, HashSet<String>)>) {
    let is_call = |form: &Form| matches!(form, Form::Name(name) if names.contains(name));
    for (at, form) in forms.iter().enumerate() {
        expectations(form.inside(), names, found);
        let Some(given) = forms.get(at + 1).filter(|given| is_call(form) && !given.is_name()) else {
            continue;
        };
        let until_next = forms[at + 2..].iter().take_while(|form| !is_call(form));
        if let Some(expected) = until_next.into_iter().find(|form| !form.is_name()) {
            let mut literals = HashSet::new();
            given.literals(&mut literals);
            expected.literals(&mut literals);
            // `f(1) == 2` is anybody's.
            if given.spelled().len() + expected.spelled().len() >= TELLING {
                found.push((example(given, expected), literals));
            }
        }
    }
}

/// The hash of every two neighbours of which one is given to a call, and the name called; in this bracket and inside.
fn neighbours<'a>(forms: &[Form<'a>], examples: &mut HashSet<(u64, &'a str)>) {
    let values: Vec<&Form> = forms.iter().filter(|form| !form.is_name()).collect();
    for two in values.windows(2) {
        for form in two {
            if let Form::Given(name, _) = form {
                examples.insert((example(two[0], two[1]), name));
            }
        }
    }
    values.iter().for_each(|form| neighbours(form.inside(), examples));
}

/// How much a literal says: a sentence as much as its words.
fn weight(literal: &str) -> usize {
    literal.split_whitespace().count().clamp(1, 4)
}

fn example(a: &Form, b: &Form) -> u64 {
    let mut both = [a.spelled(), b.spelled()];
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
    fn other_values_another_order_and_too_few_are_nothing() {
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
