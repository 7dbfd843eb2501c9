//! Code that uses random libraries, for the base model's text: it teaches fluent calls, and that a class may name its
//! methods in any way.
//!
//! Names and phrases are drawn at random for each file, so no particular library can be learned from them. The private
//! library's own names never appear as classes or methods.

use crate::chain::{NUMERALS, sentence};
use crate::reserved::is_reserved;
use crate::rng::Rng;

/// Halves of class names.
const HALVES: [&str; 12] =
    ["Order", "Point", "Map", "Case", "Line", "List", "Table", "Entry", "Record", "Batch", "Field", "Report"];
/// The private library's class names, which no public text holds.
const PRIVATE_CLASSES: [&str; 2] = ["OrderCase", "PointMap"];
/// Methods that return the object.
const CHAINABLE_METHODS: [&str; 14] = [
    "with", "from", "open", "move", "lift", "fold", "mark", "clear", "apply", "limit", "shift", "merge",
    "check", "swap",
];
/// Methods that return a value.
const TERMINAL_METHODS: [&str; 8] = ["value", "result", "report", "total", "text", "count", "build", "done"];
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

/// A method of a random library, and the phrase that describes it.
struct LibraryMethod {
    phrase: String,
    name: &'static str,
    takes_count: bool,
}

/// Writes two to four functions that use one library, with consistent names.
pub fn file(rng: &mut Rng) -> String {
    let class = class_name(rng);
    let chainable = draw_methods(&CHAINABLE_METHODS, 4, rng);
    let terminal = draw_methods(&TERMINAL_METHODS, 2, rng);
    let functions = (0..2 + rng.below(3)).map(|i| function(&class, &chainable, &terminal, i, rng));
    functions.collect::<Vec<_>>().join("\n\n")
}

/// Writes a statement or an interface that uses properties.
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
        if !PRIVATE_CLASSES.contains(&name.as_str()) {
            return name;
        }
    }
}

/// Draws `count` different methods, each with a random phrase.
fn draw_methods(names: &[&'static str], count: usize, rng: &mut Rng) -> Vec<LibraryMethod> {
    let mut names = names.to_vec();
    rng.shuffle(&mut names);
    let method = |name| loop {
        let takes_count = rng.chance(35);
        let manner = *if takes_count { rng.pick(&COUNTS) } else { rng.pick(&MANNERS) };
        let phrase = format!("{} {}{manner}", rng.pick(&VERBS), rng.pick(&OBJECTS));
        if !is_reserved(&phrase) {
            return LibraryMethod { phrase, name, takes_count };
        }
    };
    names.into_iter().take(count).map(method).collect()
}

fn function(
    class: &str,
    chainable: &[LibraryMethod],
    terminal: &[LibraryMethod],
    number: usize,
    rng: &mut Rng,
) -> String {
    let article = if class.starts_with(['O', 'E']) { "an" } else { "a" };
    let parameter = *rng.pick(&["xs", "numbers", "values"]);
    let (mut phrases, mut code) = (Vec::new(), format!("new {class}({parameter})"));
    for _ in 0..1 + rng.below(3) {
        let method = rng.pick(chainable);
        let literal = 2 + rng.below(8);
        phrases.push(method.phrase.replace('#', NUMERALS[literal]));
        code += &match method.takes_count {
            true => format!(".{}({literal})", method.name),
            false => format!(".{}()", method.name),
        };
    }
    let last = terminal.iter().find(|m| !m.takes_count).unwrap_or(&terminal[0]);
    phrases.push(format!("return {}", last.phrase.replace('#', "one")));
    let result_type = rng.pick(&["number", "string", "number[]", "string[]"]);
    let description = sentence(&phrases, rng);
    let body = format!("{code}.{}()", last.name);
    format!(
        "//Take {article} {class}. {description}\nfunction use{number}({parameter}: number[]): {result_type} {{\n    return {body};\n}}"
    )
}
