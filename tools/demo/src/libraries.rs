//! Code that uses libraries of all kinds, for the base model's text: what a fluent call looks like, and that a class
//! may name its methods as it likes.
//!
//! Names and phrases are drawn at random for each file, so nothing of a particular library can be learned here. The
//! private library's own names never stand here as classes or methods.

use crate::program::{NUMERALS, sentence};
use crate::reserved::is_reserved;
use crate::rng::Rng;

/// Halves of class names.
const HALVES: [&str; 12] =
    ["Order", "Point", "Map", "Case", "Line", "List", "Table", "Entry", "Record", "Batch", "Field", "Report"];
/// The private library's class names, which no public text holds.
const PRIVATE: [&str; 2] = ["OrderCase", "PointMap"];
/// Methods that return the object.
const STEPS: [&str; 14] = [
    "with", "from", "open", "move", "lift", "fold", "mark", "clear", "apply", "limit", "shift", "merge",
    "check", "swap",
];
/// Methods that return a value.
const ENDS: [&str; 8] = ["value", "result", "report", "total", "text", "count", "build", "done"];
/// Names of properties and parameters.
const PROPERTIES: [&str; 18] = [
    "port", "plain", "push", "face", "part", "own", "solve", "script", "main", "under", "turn", "act",
    "verse", "round", "self", "trip", "line", "ace",
];
const VERBS: [&str; 14] = [
    "put",
    "take",
    "leave",
    "write",
    "split",
    "close",
    "order",
    "remove",
    "drop",
    "turn",
    "draw",
    "let",
    "transform",
    "start",
];
const OBJECTS: [&str; 14] = [
    "the orders",
    "each order",
    "the small orders",
    "each point",
    "the points",
    "the map",
    "the case",
    "the line",
    "what is there",
    "all of it",
    "the mark",
    "each item",
    "the empty line",
    "the other end",
];
const MANNERS: [&str; 8] = ["", "", " twice", " again", " around", " behind", " in one line", " above all"];
const COUNTS: [&str; 4] = [" after #", " by #", " at #", " # times"];

/// A phrase and what the library at hand calls it.
struct Word {
    phrase: String,
    method: &'static str,
    counted: bool,
}

/// Two to four functions that use one library, with consistent names.
pub fn file(rng: &mut Rng) -> String {
    let class = class_name(rng);
    let steps = words(&STEPS, 4, rng);
    let ends = words(&ENDS, 2, rng);
    let functions = (0..2 + rng.below(3)).map(|i| function(&class, &steps, &ends, i, rng));
    functions.collect::<Vec<_>>().join("\n\n")
}

/// A property read or written, as options and records have them.
pub fn property(rng: &mut Rng) -> String {
    let (a, b) = (rng.pick(&PROPERTIES), rng.pick(&PROPERTIES));
    match rng.below(4) {
        0 => format!("const {a} = options.{b};"),
        1 => format!("options.{a} = item.{b};"),
        2 => format!("interface {} {{\n    {a}: number;\n    {b}: string;\n}}", class_name(rng)),
        _ => format!("let result = item.{a} + item.{b};"),
    }
}

fn class_name(rng: &mut Rng) -> String {
    loop {
        let name = format!("{}{}", rng.pick(&HALVES), rng.pick(&HALVES));
        if !PRIVATE.contains(&name.as_str()) {
            return name;
        }
    }
}

/// `count` different methods, each behind a random phrase.
fn words(methods: &[&'static str], count: usize, rng: &mut Rng) -> Vec<Word> {
    let mut methods = methods.to_vec();
    rng.shuffle(&mut methods);
    let word = |method| loop {
        let counted = rng.chance(35);
        let manner = *if counted { rng.pick(&COUNTS) } else { rng.pick(&MANNERS) };
        let phrase = format!("{} {}{manner}", rng.pick(&VERBS), rng.pick(&OBJECTS));
        if !is_reserved(&phrase) {
            return Word { phrase, method, counted };
        }
    };
    methods.into_iter().take(count).map(word).collect()
}

fn function(class: &str, steps: &[Word], ends: &[Word], number: usize, rng: &mut Rng) -> String {
    let article = if class.starts_with(['O', 'E']) { "an" } else { "a" };
    let parameter = *rng.pick(&["xs", "numbers", "values"]);
    let (mut phrases, mut code) = (Vec::new(), format!("new {class}({parameter})"));
    for _ in 0..1 + rng.below(3) {
        let step = rng.pick(steps);
        let literal = 2 + rng.below(8);
        phrases.push(step.phrase.replace('#', NUMERALS[literal]));
        code += &match step.counted {
            true => format!(".{}({literal})", step.method),
            false => format!(".{}()", step.method),
        };
    }
    let end = ends.iter().find(|e| !e.counted).unwrap_or(&ends[0]);
    phrases.push(format!("return {}", end.phrase.replace('#', "one")));
    let kind = rng.pick(&["number", "string", "number[]", "string[]"]);
    let told = sentence(&phrases, rng);
    let body = format!("{code}.{}()", end.method);
    format!(
        "//Take {article} {class}. {told}\nfunction use{number}({parameter}: number[]): {kind} {{\n    return {body};\n}}"
    )
}
