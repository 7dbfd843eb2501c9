//! Calls of methods that neither the standard library of the language nor the program declares.

use crate::deep_stack::with_stack_for;
use crate::problem::CandidateProgram;
use oxc_allocator::Allocator;
use oxc_ast::AstKind;
use oxc_ast::ast::{Expression, PropertyKey, TSType, TSTypeName};
use oxc_parser::Parser;
use oxc_semantic::{Semantic, SemanticBuilder};
use oxc_span::SourceType;
use std::collections::{BTreeMap, BTreeSet};

/// The names of called methods that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventedMethods {
    /// Methods missing from the language's library.
    pub library: BTreeSet<String>,
    /// Methods missing from a class that was given with the problem.
    pub private: BTreeSet<String>,
}

/// The static methods of the library's objects, such as `Math.max`.
#[rustfmt::skip]
const STATIC: [(&str, &str); 12] = [
    ("Math", "abs acos acosh asin asinh atan atan2 atanh cbrt ceil clz32 cos cosh exp expm1 floor fround hypot imul log log10 log1p log2 max min pow random round sign sin sinh sqrt tan tanh trunc"),
    ("Object", "assign create defineProperties defineProperty entries freeze fromEntries getOwnPropertyDescriptor getOwnPropertyDescriptors getOwnPropertyNames getOwnPropertySymbols getPrototypeOf groupBy hasOwn is isExtensible isFrozen isSealed keys preventExtensions seal setPrototypeOf values"),
    ("Array", "from fromAsync isArray of"),
    ("Number", "isFinite isInteger isNaN isSafeInteger parseFloat parseInt"),
    ("String", "fromCharCode fromCodePoint raw"),
    ("JSON", "parse stringify"),
    ("Date", "UTC now parse"),
    ("Promise", "all allSettled any race reject resolve try withResolvers"),
    ("Reflect", "apply construct defineProperty deleteProperty get getOwnPropertyDescriptor getPrototypeOf has isExtensible ownKeys preventExtensions set setPrototypeOf"),
    ("Symbol", "for keyFor"),
    ("BigInt", "asIntN asUintN"),
    ("Map", "groupBy"),
];

/// The methods of the library's values: arrays, strings, numbers, maps, sets, dates, regular expressions, functions,
/// promises, iterators.
const INSTANCE: &str = "at concat copyWithin entries every fill filter find findIndex findLast findLastIndex flat flatMap forEach \
    includes indexOf join keys lastIndexOf map pop push reduce reduceRight reverse shift slice some sort splice toLocaleString \
    toReversed toSorted toSpliced toString unshift values with anchor charAt charCodeAt codePointAt endsWith isWellFormed \
    localeCompare match matchAll normalize padEnd padStart repeat replace replaceAll search split startsWith substr substring \
    toLocaleLowerCase toLocaleUpperCase toLowerCase toUpperCase toWellFormed trim trimEnd trimStart trimLeft trimRight valueOf \
    toExponential toFixed toPrecision clear delete get has set add difference intersection isDisjointFrom isSubsetOf isSupersetOf \
    symmetricDifference union apply bind call exec test then catch finally next return throw drop take toArray hasOwnProperty \
    isPrototypeOf propertyIsEnumerable getDate getDay getFullYear getHours getMilliseconds getMinutes getMonth getSeconds getTime \
    getTimezoneOffset getUTCDate getUTCDay getUTCFullYear getUTCHours getUTCMilliseconds getUTCMinutes getUTCMonth getUTCSeconds \
    setDate setFullYear setHours setMilliseconds setMinutes setMonth setSeconds setTime toDateString toISOString toJSON \
    toLocaleDateString toLocaleTimeString toTimeString toUTCString log error warn info debug subarray deref";

/// Finds the invented methods that the completion of a program calls; the completion begins at byte `from` and ends
/// at the tests. `None` if the program is too long to examine.
pub fn find_invented_methods(program: &CandidateProgram, from: usize) -> Option<InventedMethods> {
    with_stack_for(&program.text, || parse_and_find(program, from))
}

fn parse_and_find(program: &CandidateProgram, from: usize) -> InventedMethods {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, &program.text, SourceType::ts()).parse();
    let mut invented = InventedMethods::default();
    if !parsed.diagnostics.is_empty() {
        return invented;
    }
    let semantic = SemanticBuilder::new().with_build_nodes(true).build(&parsed.program).semantic;
    let declared = declared_members(&semantic);
    let given = given_classes(&semantic, from, program.tests_at);
    let classes = classes_of_variables(&semantic);
    let calls = semantic.nodes().iter().filter_map(|node| match node.kind() {
        AstKind::CallExpression(call) => match &call.callee {
            Expression::StaticMemberExpression(member) => Some(member),
            _ => None,
        },
        _ => None,
    });
    for member in
        calls.filter(|member| (from..program.tests_at).contains(&(member.property.span.start as usize)))
    {
        let name = member.property.name.as_str();
        if let Some((object, methods)) = library_object(&semantic, &member.object) {
            if !methods.split(' ').any(|known| known == name) {
                invented.library.insert(format!("{object}.{name}"));
            }
        } else if !declared.contains(name) && !INSTANCE.split_whitespace().any(|known| known == name) {
            match class_of(&classes, &member.object).filter(|class| given.contains(class.as_str())) {
                Some(class) => invented.private.insert(format!("{class}.{name}")),
                None => invented.library.insert(name.to_owned()),
            };
        }
    }
    invented
}

/// Returns the names of all properties and methods that the program declares.
fn declared_members(semantic: &Semantic) -> BTreeSet<String> {
    let key = |key: &PropertyKey| key.static_name().map(|name| name.into_owned());
    let name = |kind: AstKind| match kind {
        AstKind::MethodDefinition(method) => key(&method.key),
        AstKind::PropertyDefinition(property) => key(&property.key),
        AstKind::ObjectProperty(property) => key(&property.key),
        AstKind::TSMethodSignature(method) => key(&method.key),
        AstKind::TSPropertySignature(property) => key(&property.key),
        _ => None,
    };
    semantic.nodes().iter().filter_map(|node| name(node.kind())).collect()
}

/// Returns the names of the classes declared outside of the completion.
fn given_classes(semantic: &Semantic, from: usize, to: usize) -> BTreeSet<String> {
    let class = |kind: AstKind| match kind {
        AstKind::Class(class) if !(from..to).contains(&(class.span.start as usize)) => {
            class.id.as_ref().map(|id| id.name.to_string())
        }
        _ => None,
    };
    semantic.nodes().iter().filter_map(|node| class(node.kind())).collect()
}

/// Returns the library's object that an expression names, with its static methods; `None` if the program declares
/// that name.
fn library_object(semantic: &Semantic, object: &Expression) -> Option<(&'static str, &'static str)> {
    let Expression::Identifier(identifier) = object else { return None };
    let known = STATIC.into_iter().find(|(name, _)| *name == identifier.name)?;
    let unresolved = semantic.scoping().root_unresolved_references();
    unresolved.keys().any(|name| *name == identifier.name).then_some(known)
}

/// Returns the class of the receiver at the start of a chain of calls: `new C(…)`, or a variable of that class.
fn class_of(classes: &BTreeMap<String, String>, object: &Expression) -> Option<String> {
    match object {
        Expression::NewExpression(new) => identifier_name(&new.callee),
        Expression::CallExpression(call) => match &call.callee {
            Expression::StaticMemberExpression(member) => class_of(classes, &member.object),
            _ => None,
        },
        Expression::ParenthesizedExpression(inner) => class_of(classes, &inner.expression),
        Expression::Identifier(identifier) => classes.get(identifier.name.as_str()).cloned(),
        _ => None,
    }
}

fn identifier_name(callee: &Expression) -> Option<String> {
    if let Expression::Identifier(identifier) = callee { Some(identifier.name.to_string()) } else { None }
}

/// Returns the class of each variable or parameter whose declared type or initial value determines it, by its name.
fn classes_of_variables(semantic: &Semantic) -> BTreeMap<String, String> {
    let class = |kind: AstKind| match kind {
        AstKind::VariableDeclarator(variable) => {
            let name = variable.id.get_identifier_name()?.to_string();
            let typed = variable.type_annotation.as_ref().and_then(|a| type_name(&a.type_annotation));
            let first = variable.init.as_ref().and_then(|init| match init {
                Expression::NewExpression(new) => identifier_name(&new.callee),
                _ => None,
            });
            Some((name, typed.or(first)?))
        }
        AstKind::FormalParameter(parameter) => {
            let name = parameter.pattern.get_identifier_name()?.to_string();
            Some((name, type_name(&parameter.type_annotation.as_ref()?.type_annotation)?))
        }
        _ => None,
    };
    semantic.nodes().iter().filter_map(|node| class(node.kind())).collect()
}

fn type_name(ty: &TSType) -> Option<String> {
    let TSType::TSTypeReference(reference) = ty else { return None };
    match &reference.type_name {
        TSTypeName::IdentifierReference(identifier) => Some(identifier.name.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prompt: &str, completion: &str, tests: &str) -> [Vec<String>; 2] {
        let candidate = format!("{prompt}{completion}\n");
        let program = CandidateProgram { tests_at: candidate.len(), text: candidate + tests };
        let InventedMethods { library, private } = find_invented_methods(&program, prompt.len()).unwrap();
        [library, private].map(|names| names.into_iter().collect())
    }

    fn library(body: &str) -> Vec<String> {
        let [library, private] = names("function f(xs: number[]) {\n", &format!("  {body}\n}}"), "f([]);");
        assert!(private.is_empty());
        library
    }

    #[test]
    fn methods_that_the_library_lacks_are_named() {
        assert_eq!(library("return xs.sum();"), ["sum"]);
        assert_eq!(library("return Math.average(xs).toFixed(1);"), ["Math.average"]);
        assert_eq!(library("return xs.sorted((a, b) => a - b).first();"), ["first", "sorted"]);
        assert_eq!(library("return Object.keys(xs).map((k) => k.trim()).flat();"), [""; 0]);
        // A program that does not parse has a syntax error, not invented methods.
        assert_eq!(library("return xs.sum(;"), [""; 0]);
    }

    #[test]
    fn methods_that_the_program_declares_are_not_invented() {
        assert_eq!(library("const o = { twice: (x: number) => 2 * x }; return o.twice(1);"), [""; 0]);
        assert_eq!(library("class Stack { top() { return 1; } } return new Stack().top();"), [""; 0]);
        assert_eq!(library("const Math = { mean: () => 0 }; return Math.mean();"), [""; 0]);
        // Calls of the tests are not the model's.
        assert_eq!(
            names("function f() {\n", "  return 1;\n}", "f().nonsense();"),
            [vec![], Vec::<String>::new()]
        );
    }

    #[test]
    fn invented_methods_of_a_given_class_are_counted_separately() {
        let given =
            "class OrderCase { constructor(public xs: number[]) {} plain(k: number) { return this; } }\n";
        let prompt = format!("{given}function f(xs: number[], open: OrderCase) {{\n");
        let found = |body: &str| names(&prompt, &format!("  {body}\n}}"), "f([]);");
        let private = |names: &[&str]| [vec![], names.iter().map(|n| n.to_string()).collect::<Vec<_>>()];
        assert_eq!(found("return new OrderCase(xs).plain(1).polish();"), private(&["OrderCase.polish"]));
        assert_eq!(found("const c = new OrderCase(xs); return c.shine();"), private(&["OrderCase.shine"]));
        assert_eq!(found("return open.shine();"), private(&["OrderCase.shine"]));
        assert_eq!(found("return new OrderCase(xs).plain(1).plain(2);"), private(&[]));
    }
}
