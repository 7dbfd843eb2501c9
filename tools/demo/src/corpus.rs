//! Generated TypeScript: the text the base model is trained on, and a repository that stands in for public code.
//!
//! The base model's files hold declarations, single operations, few compositions and little documentation, as most
//! source files do. The public files hold many documented compositions, and much that curation has to drop. Neither
//! ever holds a held-out pair of operations.

use crate::chain::{OperationChain, capitalized, is_held_out_pair};
use crate::libraries;
use crate::operation::{Operation, Semantics, TypedValue, ValueType};
use crate::rng::Rng;
use serde_json::{Value as Json, json};

/// A source file of a generated repository.
pub struct GeneratedFile {
    pub path: String,
    pub content: String,
}

impl GeneratedFile {
    /// Returns the file as a line of a JSONL corpus.
    pub fn json(&self) -> Json {
        json!({"path": self.path, "content": self.content})
    }
}

/// Generates the base model's training text: `files` small TypeScript files.
pub fn base_text(seed: u64, files: usize) -> Vec<String> {
    let mut rng = Rng::new(seed, "base");
    (0..files).map(|_| base_file(&mut rng)).collect()
}

fn base_file(rng: &mut Rng) -> String {
    let items = 1 + rng.below(2);
    let mut text: Vec<String> = (0..items).map(|_| base_item(rng)).collect();
    if rng.chance(10) {
        text.insert(0, import(rng));
    }
    text.join("\n\n") + "\n"
}

fn base_item(rng: &mut Rng) -> String {
    match rng.below(100) {
        0..56 => documented(&training_chain(&[48, 34, 18], rng), rng, 30),
        56..64 => undocumented(rng, &[60, 30, 10], 40),
        64..68 => class(rng, &[80, 20]),
        68..71 => declaration(rng),
        71..76 => libraries::property(rng),
        76..98 => libraries::file(rng),
        _ => usage(rng),
    }
}

/// Generates a repository of `files` public-like files, some duplicated, some with broken syntax, as real ones have.
pub fn public_files(seed: u64, files: usize) -> Vec<GeneratedFile> {
    let mut rng = Rng::new(seed, "public");
    let mut all: Vec<GeneratedFile> = Vec::with_capacity(files);
    for i in 0..files {
        let is_copy = i > 0 && rng.chance(5);
        let mut content = if is_copy { rng.pick(&all).content.clone() } else { public_file(&mut rng) };
        if rng.chance(3) {
            // A file in the middle of an edit.
            content.truncate(content.len() * 2 / 3);
        }
        let folder = rng.pick(&["src/lists", "src/text", "src/util", "lib"]);
        all.push(GeneratedFile { path: format!("{folder}/module{i}.ts"), content });
    }
    all
}

fn public_file(rng: &mut Rng) -> String {
    let mut parts = Vec::new();
    if rng.chance(60) {
        parts.push(LICENCE.replace("YEAR", &(2015 + rng.below(10)).to_string()));
    }
    if rng.chance(40) {
        parts.push(import(rng));
    }
    for _ in 0..2 + rng.below(5) {
        parts.push(match rng.below(100) {
            0..72 => documented(&training_chain(&[12, 36, 34, 18], rng), rng, 8),
            72..84 => undocumented(rng, &[30, 40, 30], 20),
            84..90 => class(rng, &[30, 40, 30]),
            90..97 => declaration(rng),
            97..98 => table(rng),
            _ => usage(rng),
        });
    }
    parts.join("\n\n") + "\n"
}

const LICENCE: &str = "/*\n * Copyright (c) YEAR The Lists Authors\n * SPDX-License-Identifier: MIT\n */";

/// Draws a chain without held-out pairs; `weights` are those of lengths 1, 2, ... in percent.
pub fn training_chain(weights: &[usize], rng: &mut Rng) -> OperationChain {
    training_chain_of(|_| true, weights, rng)
}

/// Draws a chain as [`training_chain`] does, from the operations that `supported` accepts.
pub fn training_chain_of(
    supported: impl Fn(&Operation) -> bool,
    weights: &[usize],
    rng: &mut Rng,
) -> OperationChain {
    loop {
        let mut draw = rng.below(weights.iter().sum());
        let mut length = 1;
        for weight in weights {
            if draw < *weight {
                break;
            }
            draw -= weight;
            length += 1;
        }
        if let Some(chain) =
            OperationChain::random_of(&supported, length, rng, |a, b| !is_held_out_pair(a, b))
        {
            return chain;
        }
    }
}

/// Writes a function with a comment; in `statement_percent` of 100 cases its body is statements, not one chain of
/// calls.
fn documented(chain: &OperationChain, rng: &mut Rng, statement_percent: usize) -> String {
    let name = function_name(chain, rng);
    comment(&chain.description(rng), rng) + &function(chain, &name, rng, statement_percent)
}

fn undocumented(rng: &mut Rng, weights: &[usize], statement_percent: usize) -> String {
    let chain = training_chain(weights, rng);
    function(&chain, &chain.name(), rng, statement_percent)
}

fn comment(text: &str, rng: &mut Rng) -> String {
    match rng.below(4) {
        0 => format!("// {text}\n"),
        1 => format!("/** {text} */\n"),
        2 => format!("/**\n * {text}\n */\n"),
        _ => format!("//{text}\n"),
    }
}

fn function(chain: &OperationChain, name: &str, rng: &mut Rng, statement_percent: usize) -> String {
    let parameter = rng.pick(chain.from().parameters());
    let export = if rng.chance(10) { "export " } else { "" };
    format!(
        "{export}function {} {{\n{}}}",
        chain.signature(name, parameter),
        body(chain, parameter, rng, statement_percent)
    )
}

/// Draws a function name, most often one without meaning, so that only the comment tells what the function does.
pub fn function_name(chain: &OperationChain, rng: &mut Rng) -> String {
    match rng.below(10) {
        0 => chain.name(),
        1..4 => rng.pick(&["solve", "process", "compute", "transform", "build"]).to_string(),
        _ => format!("{}{}", rng.pick(&["step", "part", "helper", "exercise"]), rng.below(100)),
    }
}

/// Writes the lines between a function's braces.
fn body(chain: &OperationChain, parameter: &str, rng: &mut Rng, statement_percent: usize) -> String {
    if !rng.chance(statement_percent) {
        return format!("    return {};\n", chain.expression(parameter));
    }
    if let ([step], Some(code)) = (&chain.steps[..], loop_body(chain, parameter)) {
        return step.with_literal(&code);
    }
    statements(chain, parameter)
}

/// Writes a chain of a single filter or map as a loop.
fn loop_body(chain: &OperationChain, parameter: &str) -> Option<String> {
    let (v, push) = match chain.steps[0].operation.semantics {
        Semantics::FilterNums(c, _) => {
            ("x", format!("        if ({c}) {{\n            result.push(x);\n        }}\n"))
        }
        Semantics::FilterWords(c, _) => {
            ("s", format!("        if ({c}) {{\n            result.push(s);\n        }}\n"))
        }
        Semantics::MapNums(e, _) => ("x", format!("        result.push({e});\n")),
        Semantics::MapWords(e, _) => ("s", format!("        result.push({e});\n")),
        _ => return None,
    };
    let ty = chain.to().typescript();
    Some(format!(
        "    const result: {ty} = [];\n    for (const {v} of {parameter}) {{\n{push}    }}\n    return result;\n"
    ))
}

/// Writes one `const` statement per operation.
fn statements(chain: &OperationChain, parameter: &str) -> String {
    let mut text = String::new();
    let mut receiver = parameter.to_string();
    for (step, name) in chain.steps.iter().zip(["a", "b", "c", "d"]) {
        text += &format!("    const {name} = {receiver}{};\n", step.call());
        receiver = name.to_string();
    }
    text + &format!("    return {receiver};\n")
}

pub const NOUNS: [&str; 10] =
    ["Item", "User", "Order", "Point", "Report", "Entry", "Result", "Option", "Batch", "Record"];
const FIELDS: [&str; 8] = ["name", "size", "total", "items", "label", "index", "values", "active"];

/// Writes a class over a list, with one or two methods, some of them commented.
fn class(rng: &mut Rng, weights: &[usize]) -> String {
    let value_type = *rng.pick(&[ValueType::Nums, ValueType::Words]);
    let field = *rng.pick(&["items", "values"]);
    let mut text = format!(
        "class {}{} {{\n    constructor(private {field}: {}) {{}}\n",
        rng.pick(&NOUNS),
        rng.pick(&["List", "Set", "Group", "Store"]),
        value_type.typescript()
    );
    for _ in 0..1 + rng.below(2) {
        let chain = loop {
            let chain = training_chain(weights, rng);
            if chain.from() == value_type {
                break chain;
            }
        };
        if rng.chance(60) {
            text += &format!("\n    /** {} */", chain.description(rng));
        }
        let returns = chain.to().typescript();
        let receiver = format!("this.{field}");
        text += &format!(
            "\n    {}(): {returns} {{\n        return {};\n    }}\n",
            chain.name(),
            chain.expression(&receiver)
        );
    }
    text + "}"
}

/// Writes an interface, a type, an enum or a constant.
fn declaration(rng: &mut Rng) -> String {
    let noun = rng.pick(&NOUNS);
    let mut fields = FIELDS;
    rng.shuffle(&mut fields);
    let (a, b) = (fields[0], fields[1]);
    match rng.below(4) {
        0 => format!("interface {noun} {{\n    {a}: string;\n    {b}: number[];\n}}"),
        1 => format!("type {noun} = {{ {a}: number; {b}: string }};"),
        2 => format!("enum {noun} {{\n    {},\n    {},\n}}", capitalized(a), capitalized(b)),
        _ => format!("const {a} = {};", rng.below(100)),
    }
}

/// Writes a call of a function, as scripts and tests have it.
fn usage(rng: &mut Rng) -> String {
    let chain = training_chain(&[60, 40], rng);
    let argument = TypedValue::random(chain.from(), rng).literal();
    match rng.below(3) {
        0 => format!("console.log({}({argument}));", chain.name()),
        1 => format!("const result = {}({argument});", chain.name()),
        _ => format!("const {} = {argument};", rng.pick(&FIELDS)),
    }
}

fn import(rng: &mut Rng) -> String {
    let noun = rng.pick(&NOUNS);
    format!("import {{ {noun} }} from \"./{}\";", noun.to_lowercase())
}

/// Writes a function with a long `switch` table, too long for an instruction's answer.
fn table(rng: &mut Rng) -> String {
    let cases: String =
        (0..150).map(|i| format!("        case {i}:\n            return {};\n", rng.below(1000))).collect();
    format!(
        "// Look the code up in the table.\nfunction lookup(code: number): number {{\n    switch (code) {{\n{cases}    }}\n    return 0;\n}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_training_chain_holds_a_held_out_pair() {
        let mut rng = Rng::new(5, "test");
        for _ in 0..1000 {
            let chain = training_chain(&[10, 30, 30, 30], &mut rng);
            assert!(
                chain.steps.windows(2).all(|p| !is_held_out_pair(p[0].operation.name, p[1].operation.name))
            );
        }
    }

    #[test]
    fn lengths_follow_their_weights() {
        let mut rng = Rng::new(6, "test");
        let pairs = (0..500).filter(|_| training_chain(&[50, 50], &mut rng).steps.len() == 2).count();
        assert!((150..300).contains(&pairs), "{pairs}");
    }
}
