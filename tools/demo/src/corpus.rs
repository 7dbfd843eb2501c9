//! Generated TypeScript: the text the base model is trained on, and a repository that stands in for public code.
//!
//! The base sees what source files are mostly made of: plain declarations, single operations, little that is
//! composed and less that is documented well. The public files hold many documented compositions among the
//! things curation has to drop. Neither ever holds a held-out pair of operations.

use crate::libraries;
use crate::op::{Kind, Meaning, Op, Value};
use crate::program::{Program, capitalized, held_out};
use crate::rng::Rng;
use serde_json::{Value as Json, json};

/// A source file of a generated repository.
pub struct SourceFile {
    pub path: String,
    pub content: String,
}

impl SourceFile {
    /// The line of a corpus.
    pub fn json(&self) -> Json {
        json!({"path": self.path, "content": self.content})
    }
}

/// The base model's training text: `files` small TypeScript files.
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
        0..56 => documented(&composed(&[48, 34, 18], rng), rng, 30),
        56..64 => undocumented(rng, &[60, 30, 10], 40),
        64..68 => class(rng, &[80, 20]),
        68..71 => declaration(rng),
        71..76 => libraries::property(rng),
        76..98 => libraries::file(rng),
        _ => usage(rng),
    }
}

/// A repository of `files` public-like files, some duplicated, some broken, as found in the wild.
pub fn public_files(seed: u64, files: usize) -> Vec<SourceFile> {
    let mut rng = Rng::new(seed, "public");
    let mut all: Vec<SourceFile> = Vec::with_capacity(files);
    for i in 0..files {
        let copied = i > 0 && rng.chance(5);
        let mut content = if copied { rng.pick(&all).content.clone() } else { public_file(&mut rng) };
        if rng.chance(3) {
            // A file caught in the middle of an edit.
            content.truncate(content.len() * 2 / 3);
        }
        let folder = rng.pick(&["src/lists", "src/text", "src/util", "lib"]);
        all.push(SourceFile { path: format!("{folder}/module{i}.ts"), content });
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
            0..72 => documented(&composed(&[12, 36, 34, 18], rng), rng, 8),
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

/// A program without held-out pairs; `weights` are of lengths 1, 2, ... in percent.
pub fn composed(weights: &[usize], rng: &mut Rng) -> Program {
    composed_of(|_| true, weights, rng)
}

/// The same of those operations that are `known`.
pub fn composed_of(known: impl Fn(&Op) -> bool, weights: &[usize], rng: &mut Rng) -> Program {
    loop {
        let mut dice = rng.below(weights.iter().sum());
        let mut length = 1;
        for weight in weights {
            if dice < *weight {
                break;
            }
            dice -= weight;
            length += 1;
        }
        if let Some(program) = Program::random_of(&known, length, rng, |a, b| !held_out(a, b)) {
            return program;
        }
    }
}

/// A function with a comment; in `plain` of 100 cases its body is not a single chain of calls.
fn documented(program: &Program, rng: &mut Rng, plain: usize) -> String {
    let name = function_name(program, rng);
    comment(&program.description(rng), rng) + &function(program, &name, rng, plain)
}

fn undocumented(rng: &mut Rng, weights: &[usize], plain: usize) -> String {
    let program = composed(weights, rng);
    function(&program, &program.name(), rng, plain)
}

fn comment(text: &str, rng: &mut Rng) -> String {
    match rng.below(4) {
        0 => format!("// {text}\n"),
        1 => format!("/** {text} */\n"),
        2 => format!("/**\n * {text}\n */\n"),
        _ => format!("//{text}\n"),
    }
}

fn function(program: &Program, name: &str, rng: &mut Rng, plain: usize) -> String {
    let parameter = rng.pick(program.from().parameters());
    let export = if rng.chance(10) { "export " } else { "" };
    format!(
        "{export}function {} {{\n{}}}",
        program.signature(name, parameter),
        body(program, parameter, rng, plain)
    )
}

/// Mostly a name that tells nothing, so that there is no way round the comment.
pub fn function_name(program: &Program, rng: &mut Rng) -> String {
    match rng.below(10) {
        0 => program.name(),
        1..4 => rng.pick(&["solve", "process", "compute", "transform", "build"]).to_string(),
        _ => format!("{}{}", rng.pick(&["step", "part", "helper", "exercise"]), rng.below(100)),
    }
}

/// The lines between a function's braces.
fn body(program: &Program, parameter: &str, rng: &mut Rng, plain: usize) -> String {
    if !rng.chance(plain) {
        return format!("    return {};\n", program.expression(parameter));
    }
    if let ([step], Some(code)) = (&program.steps[..], looped(program, parameter)) {
        return step.fill(&code);
    }
    stepwise(program, parameter)
}

/// A single filter or map as a loop.
fn looped(program: &Program, parameter: &str) -> Option<String> {
    let (v, push) = match program.steps[0].op.meaning {
        Meaning::KeepNums(c, _) => {
            ("x", format!("        if ({c}) {{\n            result.push(x);\n        }}\n"))
        }
        Meaning::KeepWords(c, _) => {
            ("s", format!("        if ({c}) {{\n            result.push(s);\n        }}\n"))
        }
        Meaning::EachNum(e, _) => ("x", format!("        result.push({e});\n")),
        Meaning::EachWord(e, _) => ("s", format!("        result.push({e});\n")),
        _ => return None,
    };
    let ty = program.to().typescript();
    Some(format!(
        "    const result: {ty} = [];\n    for (const {v} of {parameter}) {{\n{push}    }}\n    return result;\n"
    ))
}

/// One constant for every operation.
fn stepwise(program: &Program, parameter: &str) -> String {
    let mut text = String::new();
    let mut receiver = parameter.to_string();
    for (step, name) in program.steps.iter().zip(["a", "b", "c", "d"]) {
        text += &format!("    const {name} = {receiver}{};\n", step.call());
        receiver = name.to_string();
    }
    text + &format!("    return {receiver};\n")
}

pub const NOUNS: [&str; 10] =
    ["Item", "User", "Order", "Point", "Report", "Entry", "Result", "Option", "Batch", "Record"];
const FIELDS: [&str; 8] = ["name", "size", "total", "items", "label", "index", "values", "active"];

/// A class over a list, with a method or two and their comments.
fn class(rng: &mut Rng, weights: &[usize]) -> String {
    let kind = *rng.pick(&[Kind::Nums, Kind::Words]);
    let field = *rng.pick(&["items", "values"]);
    let mut text = format!(
        "class {}{} {{\n    constructor(private {field}: {}) {{}}\n",
        rng.pick(&NOUNS),
        rng.pick(&["List", "Set", "Group", "Store"]),
        kind.typescript()
    );
    for _ in 0..1 + rng.below(2) {
        let program = loop {
            let program = composed(weights, rng);
            if program.from() == kind {
                break program;
            }
        };
        if rng.chance(60) {
            text += &format!("\n    /** {} */", program.description(rng));
        }
        let returns = program.to().typescript();
        let receiver = format!("this.{field}");
        text += &format!(
            "\n    {}(): {returns} {{\n        return {};\n    }}\n",
            program.name(),
            program.expression(&receiver)
        );
    }
    text + "}"
}

/// An interface, a type, an enum or a constant.
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

/// A call of a function, as scripts and tests have them.
fn usage(rng: &mut Rng) -> String {
    let program = composed(&[60, 40], rng);
    let argument = Value::random(program.from(), rng).literal();
    match rng.below(3) {
        0 => format!("console.log({}({argument}));", program.name()),
        1 => format!("const result = {}({argument});", program.name()),
        _ => format!("const {} = {argument};", rng.pick(&FIELDS)),
    }
}

fn import(rng: &mut Rng) -> String {
    let noun = rng.pick(&NOUNS);
    format!("import {{ {noun} }} from \"./{}\";", noun.to_lowercase())
}

/// A long table of a function: more than an instruction's answer should hold.
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
    fn no_training_program_holds_a_held_out_pair() {
        let mut rng = Rng::new(5, "test");
        for _ in 0..1000 {
            let program = composed(&[10, 30, 30, 30], &mut rng);
            assert!(program.steps.windows(2).all(|p| !held_out(p[0].op.name, p[1].op.name)));
        }
    }

    #[test]
    fn lengths_follow_their_weights() {
        let mut rng = Rng::new(6, "test");
        let pairs = (0..500).filter(|_| composed(&[50, 50], &mut rng).steps.len() == 2).count();
        assert!((150..300).contains(&pairs), "{pairs}");
    }
}
