//! A program whose tests stand in a scope of their own, which the candidate cannot reach.

use oxc_allocator::Allocator;
use oxc_ast::ast::{Declaration, VariableDeclarator};
use oxc_parser::Parser;
use oxc_semantic::{Scoping, SemanticBuilder};
use oxc_span::{GetSpan, SourceType};
use std::collections::HashSet;
use std::fmt::Write;

/// The body of a function that runs the candidate and returns a function of `require` that runs its tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedProgram {
    /// The beginning of the body: the candidate.
    pub candidate: String,
    /// The rest of it.
    pub tests: String,
}

/// Returns the guarded form of a program whose tests begin at `tests_at`. `strip` makes JavaScript of either part. The candidate sees copies of what the tests declare and it uses: to change them
/// changes no test. Parts that are no programs alone, such as tests that begin with a closing brace, run as one.
///
/// # Errors
/// A syntax error of the whole program.
pub fn guarded_program(
    source: &str,
    tests_at: usize,
    strip: impl Fn(&str) -> Result<String, String>,
) -> Result<GuardedProgram, String> {
    let (candidate, tests) = source.split_at(tests_at);
    let parts = strip(candidate).and_then(|candidate| Ok((candidate, strip(tests)?)));
    match parts.and_then(|(candidate, tests)| join(&candidate, &tests)) {
        Ok(joined) => Ok(joined),
        Err(_) => Ok(GuardedProgram { candidate: strip(source)?, tests: "\n;return function () {};".into() }),
    }
}

fn join(candidate: &str, tests: &str) -> Result<GuardedProgram, String> {
    let used = free_names(candidate)?;
    if reassigns(candidate, "assert")? && free_names(tests)?.contains("assert") {
        let refused = "\n;return function () { throw new Error('assert was assigned to'); };";
        return Ok(GuardedProgram { candidate: candidate.to_string(), tests: refused.into() });
    }
    let (mut body, mut done, mut shared) = (String::new(), 0, Vec::new());
    for (at, names) in declarations(tests)? {
        body += &tests[done..at];
        done = at;
        for name in names.into_iter().filter(|name| used.contains(name)) {
            let i = shared.iter().position(|known| *known == name).unwrap_or(shared.len());
            if i == shared.len() {
                shared.push(name.clone());
            }
            let _ = write!(body, ";share{i}({name});");
        }
    }
    body += &tests[done..];
    let tests = if shared.is_empty() {
        format!("\n;return function (require) {{{body}\n}};")
    } else {
        let list =
            |item: &dyn Fn(usize) -> String| (0..shared.len()).map(item).collect::<Vec<_>>().join(", ");
        let parameters = list(&|i| format!("share{i}"));
        let setters = list(&|i| format!("($value) => {{ {} = $value; }}", shared[i]));
        let names = shared.join(", ");
        format!("\n;var {names};return (({parameters}) => function (require) {{{body}\n}})({setters});")
    };
    Ok(GuardedProgram { candidate: candidate.to_string(), tests })
}

/// Returns the names that a program uses and does not declare.
fn free_names(code: &str) -> Result<HashSet<String>, String> {
    let scoping = scoping(&Allocator::default(), code)?;
    Ok(scoping.root_unresolved_references().keys().map(|name| name.to_string()).collect())
}

/// Returns true if a variable of the whole program gets another value than its first.
fn reassigns(code: &str, name: &str) -> Result<bool, String> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, code, SourceType::script()).parse();
    let declarators = parsed.program.body.iter().filter_map(|statement| match statement.as_declaration() {
        Some(Declaration::VariableDeclaration(it)) => Some(&it.declarations),
        _ => None,
    });
    let named = |d: &&VariableDeclarator<'_>| d.id.get_binding_identifiers().iter().any(|id| id.name == name);
    let first = declarators.flatten().filter(|d| d.init.is_some()).filter(named).count();
    let scoping = scoping(&allocator, code)?;
    let symbol = scoping.get_root_binding(name.into());
    let later =
        symbol.map_or(0, |symbol| scoping.get_resolved_references(symbol).filter(|r| r.is_write()).count());
    Ok(first + later > 1)
}

fn scoping(allocator: &Allocator, code: &str) -> Result<Scoping, String> {
    let parsed = Parser::new(allocator, code, SourceType::script()).parse();
    match parsed.diagnostics.first() {
        Some(e) => Err(e.to_string()),
        None => Ok(SemanticBuilder::new().build(&parsed.program).semantic.into_scoping()),
    }
}

/// Returns the names that the statements of a program declare, with the place at which each has its value: the beginning
/// for functions, the statement's end for others.
fn declarations(code: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, code, SourceType::script()).parse();
    if let Some(e) = parsed.diagnostics.first() {
        return Err(e.to_string());
    }
    let begin = parsed.program.directives.last().map_or(0, |directive| directive.span.end as usize);
    let (mut functions, mut others) = (Vec::new(), Vec::new());
    for statement in &parsed.program.body {
        let end = statement.span().end as usize;
        match statement.as_declaration() {
            Some(Declaration::FunctionDeclaration(it)) => {
                functions.extend(it.id.as_ref().map(|id| id.name.to_string()))
            }
            Some(Declaration::ClassDeclaration(it)) => {
                others.push((end, it.id.iter().map(|id| id.name.to_string()).collect()))
            }
            Some(Declaration::VariableDeclaration(it)) => {
                let names = it.declarations.iter().flat_map(|d| d.id.get_binding_identifiers());
                others.push((end, names.map(|name| name.name.to_string()).collect()));
            }
            _ => {}
        }
    }
    Ok([(begin, functions)].into_iter().chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(candidate: &str, tests: &str) -> String {
        let program = guarded_program(&format!("{candidate}{tests}"), candidate.len(), |part| {
            let allocator = Allocator::default();
            match Parser::new(&allocator, part, SourceType::script()).parse().diagnostics.first() {
                None => Ok(part.to_string()),
                Some(e) => Err(e.to_string()),
            }
        });
        let program = program.unwrap();
        program.candidate + &program.tests
    }

    #[test]
    fn the_tests_have_a_scope_of_their_own() {
        let code = guard("function f() { return 1; }\n", "test();");
        assert_eq!(code, "function f() { return 1; }\n\n;return function (require) {test();\n};");
    }

    #[test]
    fn the_candidate_sees_what_the_tests_declare_and_it_uses() {
        let code = guard(
            "const f = () => new Box(g());\n",
            "'use strict';class Box {}\nfunction g() {}\nlet unused = 1;",
        );
        assert!(code.contains("var g, Box;return ((share0, share1) =>"), "{code}");
        assert!(code.contains("'use strict';;share0(g);class Box {};share1(Box);"), "{code}");
        assert!(code.ends_with("})(($value) => { g = $value; }, ($value) => { Box = $value; });"), "{code}");
    }

    #[test]
    fn an_assert_that_the_candidate_assigns_to_reaches_no_end() {
        for candidate in ["let assert = f(); assert = g;\n", "var assert = f(); var assert = g;\n"] {
            assert!(guard(candidate, "assert(1);").contains("throw new Error"), "{candidate}");
            assert!(!guard(candidate, "const assert = f(); assert(1);").contains("throw"), "{candidate}");
        }
        for candidate in
            ["let assert; assert = f();\n", "const assert = f(); function g(assert) { assert = 1; }\n"]
        {
            assert!(!guard(candidate, "assert(1);").contains("throw"), "{candidate}");
        }
    }

    #[test]
    fn parts_that_are_no_programs_run_as_one() {
        let code = guard("function f() {\n", "}\nf();");
        assert_eq!(code, "function f() {\n}\nf();\n;return function () {};");
    }
}
