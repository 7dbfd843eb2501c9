//! Type stripping: TypeScript to JavaScript without a type check.

use oxc_allocator::Allocator;
use oxc_codegen::{Codegen, CodegenOptions};
use oxc_parser::Parser;
use oxc_semantic::SemanticBuilder;
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

/// Strips the types of a whole program. The parser recurses: call this in a sandboxed child, on a deep stack.
///
/// # Errors
/// A syntax error of the program, as TypeScript's compiler would report it.
pub fn strip_types(source: &str) -> Result<StrippedProgram, String> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, source, SourceType::ts()).parse();
    if let Some(e) = parsed.diagnostics.first() {
        return Err(e.to_string());
    }
    let mut program = parsed.program;
    let checked = SemanticBuilder::new().with_check_syntax_error(true).build(&program);
    if let Some(e) = checked.diagnostics.first() {
        return Err(e.to_string());
    }
    let options = TransformOptions::default();
    let transformer = Transformer::new(&allocator, Path::new("file.ts"), &options);
    let transformed = transformer.build_with_scoping(checked.semantic.into_scoping(), &mut program);
    if let Some(e) = transformed.diagnostics.first() {
        return Err(e.to_string());
    }
    let options =
        CodegenOptions { source_map_path: Some(PathBuf::from("file.ts")), ..CodegenOptions::default() };
    let written = Codegen::new().with_options(options).with_source_text(source).build(&program);
    let sources: Vec<&str> = source.lines().collect();
    let mut lines = BTreeMap::new();
    for token in written.map.iter().flat_map(|map| map.get_tokens()) {
        let line = sources.get(token.get_src_line() as usize).copied().unwrap_or_default();
        lines.entry(token.get_dst_line()).or_insert_with(|| line.to_string());
    }
    Ok(StrippedProgram { code: written.code, lines })
}

impl StrippedProgram {
    /// Returns the source line, comments included, of a line of the code; lines count from 1.
    pub fn source_line(&self, line: u32) -> &str {
        self.lines.get(&line.saturating_sub(1)).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_removed_and_runtime_code_stays() {
        let code = strip_types("declare var require: any;\nenum E { A, B }\nclass P { constructor(private y: number) {} }\nlet x = <any>1 as number; x!;").unwrap().code;
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
            assert!(strip_types(bad).is_err(), "{bad}");
        }
        assert!(strip_types("const n: number = 'text'; undefined_name();").is_ok());
        // White space to TypeScript's compiler, though not to JavaScript.
        assert_eq!(strip_types("let a =\u{200b}1;").unwrap().code.trim(), "let a = 1;");
    }

    #[test]
    fn a_line_leads_back_to_its_source_with_its_comment() {
        let stripped =
            strip_types("type T = number;\n// note\n\n  throw new Error('no' as string); // ERR_ASSERTION\n")
                .unwrap();
        let line = 1 + stripped.code.lines().position(|l| l.contains("throw")).unwrap() as u32;
        assert!(stripped.source_line(line).ends_with("// ERR_ASSERTION"));
        assert_eq!(stripped.source_line(99), "");
    }
}
