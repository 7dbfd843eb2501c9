//! Type stripping: TypeScript to JavaScript without a type check.

use super::edits::Edits;
use super::{namespaces, power, spread};
use oxc_allocator::Allocator;
use oxc_ast::ast::Program;
use oxc_codegen::{Codegen, CodegenOptions};
use oxc_parser::Parser;
use oxc_semantic::{Scoping, SemanticBuilder};
use oxc_span::SourceType;
use oxc_transformer::{TransformOptions, Transformer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// JavaScript with a map of its lines to the TypeScript source.
pub struct StrippedProgram {
    pub code: String,
    /// The text of the source line by line number of the code, counted from 0.
    lines: BTreeMap<u32, String>,
}

/// The engine that runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Node,
    QuickJs,
}

/// Strips the types of a whole program for an engine.
///
/// # Errors
/// A syntax error of the program, as TypeScript's compiler would report it.
pub fn strip_types(source: &str, engine: Engine) -> Result<StrippedProgram, String> {
    let allocator = Allocator::default();
    let (program, scoping) = parse(&allocator, source)?;
    let mut edits = Edits::default();
    namespaces::rewrite(&program, &scoping, &mut edits);
    let (text, program, scoping) = edited(&allocator, source, program, scoping, edits)?;
    if engine == Engine::Node {
        return transform(&allocator, source, text, program, scoping);
    }
    let mut edits = Edits::default();
    // First, because a power begins where a call in it does.
    power::rewrite(&program, text, &mut edits);
    spread::rewrite(&program, &mut edits);
    let (text, program, scoping) = edited(&allocator, text, program, scoping, edits)?;
    transform(&allocator, source, text, program, scoping)
}

/// Applies edits to a text and its program.
fn edited<'a>(
    allocator: &'a Allocator,
    text: &'a str,
    program: Program<'a>,
    scoping: Scoping,
    edits: Edits,
) -> Result<(&'a str, Program<'a>, Scoping), String> {
    if edits.is_empty() {
        return Ok((text, program, scoping));
    }
    let text = allocator.alloc_str(&edits.apply(text));
    let (program, scoping) = parse(allocator, text)?;
    Ok((text, program, scoping))
}

fn parse<'a>(allocator: &'a Allocator, source: &'a str) -> Result<(Program<'a>, Scoping), String> {
    let parsed = Parser::new(allocator, source, SourceType::ts()).parse();
    if let Some(e) = parsed.diagnostics.first() {
        return Err(e.to_string());
    }
    let checked = SemanticBuilder::new().with_check_syntax_error(true).build(&parsed.program);
    if let Some(e) = checked.diagnostics.first() {
        return Err(e.to_string());
    }
    let scoping = checked.semantic.into_scoping();
    Ok((parsed.program, scoping))
}

/// Transforms the program of the text `edited`, whose lines are those of `source`.
fn transform<'a>(
    allocator: &'a Allocator,
    source: &str,
    edited: &'a str,
    mut program: Program<'a>,
    scoping: Scoping,
) -> Result<StrippedProgram, String> {
    let options = TransformOptions::default();
    let transformer = Transformer::new(allocator, Path::new("file.ts"), &options);
    let transformed = transformer.build_with_scoping(scoping, &mut program);
    if let Some(e) = transformed.diagnostics.first() {
        return Err(e.to_string());
    }
    let options =
        CodegenOptions { source_map_path: Some(PathBuf::from("file.ts")), ..CodegenOptions::default() };
    let written = Codegen::new().with_options(options).with_source_text(edited).build(&program);
    let sources: Vec<&str> = source.lines().collect();
    let mut lines = BTreeMap::new();
    for token in written.map.iter().flat_map(|map| map.get_tokens()) {
        let line = sources.get(token.get_src_line() as usize).copied().unwrap_or_default();
        lines.entry(token.get_dst_line()).or_insert_with(|| line.to_string());
    }
    Ok(StrippedProgram { code: written.code, lines })
}

impl StrippedProgram {
    /// JavaScript whose source lines are unknown.
    pub fn of_javascript(code: String) -> Self {
        StrippedProgram { code, lines: BTreeMap::new() }
    }

    /// Returns the source line, comments included, of a line of the code; lines count from 1.
    pub fn source_line(&self, line: u32) -> &str {
        self.lines.get(&line.saturating_sub(1)).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(source: &str) -> Result<StrippedProgram, String> {
        strip_types(source, Engine::Node)
    }

    #[test]
    fn types_are_removed_and_runtime_code_stays() {
        let code = strip("declare var require: any;\nenum E { A, B }\nclass P { constructor(private y: number) {} }\nlet x = <any>1 as number; x!;").unwrap().code;
        for removed in ["declare", "any", "private", "as number", "x!"] {
            assert!(!code.contains(removed), "{removed} in {code}");
        }
        for kept in ["E[\"A\"] = 0", "this.y = y", "let x = 1"] {
            assert!(code.contains(kept), "no {kept} in {code}");
        }
    }

    #[test]
    fn syntax_errors_are_errors_and_type_errors_are_not() {
        for bad in ["function f() {", "let a = 1; let a = 2;", "return 1;", "const b;", "let x = “a”;"] {
            assert!(strip(bad).is_err(), "{bad}");
        }
        assert!(strip("const n: number = 'text'; undefined_name();").is_ok());
        // White space to TypeScript's compiler, though not to JavaScript.
        assert_eq!(strip("let a =\u{200b}1;").unwrap().code.trim(), "let a = 1;");
    }

    #[test]
    fn a_line_leads_back_to_its_source_with_its_comment() {
        let stripped =
            strip("type T = number;\n// note\n\n  throw new Error('no' as string); // ERR_ASSERTION\n")
                .unwrap();
        let line = 1 + stripped.code.lines().position(|l| l.contains("throw")).unwrap() as u32;
        assert!(stripped.source_line(line).ends_with("// ERR_ASSERTION"));
        assert_eq!(stripped.source_line(99), "");
    }

    #[test]
    fn variables_of_a_namespace_live_in_its_object() {
        let code = |source| strip(source).unwrap().code;
        let counter = code(
            "namespace C {\n export let n = 0, m: number;\n export const k = { n };\n export function inc() { return n++; }\n}",
        );
        for part in ["C.n = 0", "{ n: C.n }", "C.n++"] {
            assert!(counter.contains(part), "no {part} in {counter}");
        }
        let parts = code("namespace C { export let { a, b: [c] = [] } = o; ({ a } = o); }");
        assert!(parts.contains("{a: C.a, b: [C.c] = []} = o") && parts.contains("({a: C.a} = o)"), "{parts}");
        let merged = code(
            "namespace C { export function f() { return 1; } }\nnamespace C { export const g = () => f(); let h = f; }",
        );
        assert!(merged.contains("C.f()"), "{merged}");
        let shadowed = code("namespace C { export let n = 0; function f(n: number) { return n; } }");
        assert!(shadowed.contains("return n;"), "{shadowed}");
    }

    #[test]
    fn spread_arguments_of_methods_are_an_array_for_quickjs() {
        let code = |source| strip_types(source, Engine::QuickJs).unwrap().code;
        assert!(code("Math.max(1, ...a)").contains("__codelsi_spread(Math, \"max\", [1, ...a])"));
        assert!(
            code("a[i + 1](...b.f(...c))")
                .contains("__codelsi_spread(a, i + 1, [...__codelsi_spread(b, \"f\", [...c])])")
        );
        for kept in ["f(...a)", "a?.f(...b)", "a?.b.f(...c)", "new A(...b)"] {
            assert!(!code(kept).contains("spread"), "{kept}");
        }
    }

    #[test]
    fn powers_are_calls_for_quickjs() {
        let power = |source| {
            let code = strip_types(source, Engine::QuickJs).unwrap().code.replace("__codelsi_power", "P");
            code.trim().trim_end_matches(';').to_string()
        };
        assert_eq!(power("a ** b ** (c as any)"), "P(a, P(b, c))");
        assert_eq!(power("a.f(...b) ** 2 + 1"), "P(__codelsi_spread(a, \"f\", [...b]), 2) + 1");
        assert_eq!(power("x **= y **= 2"), "x = P(x, y = P(y, 2))");
        assert_eq!(power("a[i] **= b.c **= 2"), "a[i] = P(a[i], b.c = P(b.c, 2))");
        assert_eq!(power("f().c **= 2"), "P.assign(P.of(f(), \"c\"), 2)");
        assert_eq!(power("a[i++] **= f(2)"), "P.assign(P.of(a, i++), f(2))");
        assert_eq!(power("(x) **= 2"), "x **= 2");
        assert!(power("namespace N { export let n = 3; n **= 2; }").contains("N.n = P(N.n, 2)"));
    }
}
