//! The table of operations on numbers that every language of the demo has, and the bodies of functions made of them.

use crate::op::Op;
use crate::program::Program;
use OperationTemplate::*;
use codelsi_curate::Language;

/// How an operation is written outside of TypeScript; what it means stays with its [`Op`]. `@` stands for the list, `#` for
/// the literal, `x` for a number.
enum OperationTemplate {
    /// A filter's condition, the same everywhere.
    Keep(&'static str),
    /// A map's expression, the same everywhere.
    Each(&'static str),
    /// A statement that changes the list.
    Change(PerLanguage),
    /// An expression of what the list comes to.
    Give(PerLanguage),
}

struct PerLanguage {
    python: &'static str,
    java: &'static str,
    cpp: &'static str,
}

/// The operations by their names. JavaScript has TypeScript's own code.
#[rustfmt::skip]
static TEMPLATES: &[(&str, OperationTemplate)] = &[
    ("evens", Keep("x % 2 == 0")),
    ("positives", Keep("x > 0")),
    ("negatives", Keep("x < 0")),
    ("above", Keep("x > #")),
    ("below", Keep("x < #")),
    ("doubled", Each("x * 2")),
    ("squared", Each("x * x")),
    ("plus", Each("x + #")),
    ("times", Each("x * #")),
    ("reversed", Change(PerLanguage {
        python: "@.reverse()",
        java: "Collections.reverse(@);",
        cpp: "std::reverse(@.begin(), @.end());",
    })),
    ("ascending", Change(PerLanguage {
        python: "@.sort()",
        java: "Collections.sort(@);",
        cpp: "std::sort(@.begin(), @.end());",
    })),
    ("descending", Change(PerLanguage {
        python: "@.sort(reverse=True)",
        java: "@.sort(Collections.reverseOrder());",
        cpp: "std::sort(@.rbegin(), @.rend());",
    })),
    ("first", Change(PerLanguage {
        python: "@ = @[:#]",
        java: "@.subList(Math.min(#, @.size()), @.size()).clear();",
        cpp: "@.resize(std::min<size_t>(#, @.size()));",
    })),
    ("skipped", Change(PerLanguage {
        python: "@ = @[#:]",
        java: "@.subList(0, Math.min(#, @.size())).clear();",
        cpp: "@.erase(@.begin(), @.begin() + std::min<size_t>(#, @.size()));",
    })),
    ("sum", Give(PerLanguage {
        python: "sum(@)",
        java: "@.stream().mapToLong(x -> x).sum()",
        cpp: "std::accumulate(@.begin(), @.end(), 0L)",
    })),
    ("largest", Give(PerLanguage {
        python: "max(@)",
        java: "Collections.max(@)",
        cpp: "*std::max_element(@.begin(), @.end())",
    })),
    ("count", Give(PerLanguage {
        python: "len(@)",
        java: "(long) @.size()",
        cpp: "(long) @.size()",
    })),
];

/// True for an operation that every language of the demo has.
pub fn known(op: &Op) -> bool {
    template_of(op).is_some()
}

fn template_of(op: &Op) -> Option<&'static OperationTemplate> {
    TEMPLATES.iter().find(|(name, _)| *name == op.name).map(|(_, template)| template)
}

/// The lines of a function of `list` that does what `program` says, `indent` before each: one chain of calls in JavaScript, a
/// statement for every operation elsewhere.
///
/// # Panics
/// For operations that are not [`known`].
pub fn body(language: Language, program: &Program, list: &str, indent: &str) -> String {
    let end = if language == Language::Python { "" } else { ";" };
    let line = |code: &str| format!("{indent}{code}\n");
    if language == Language::JavaScript {
        return line(&format!("return {};", program.expression(list)));
    }
    let mut text = String::new();
    let mut gives = list.to_string();
    for step in &program.steps {
        let template = template_of(step.op).expect("the languages have the operation");
        let code = step.fill(&written(language, template).replace('@', list));
        match template {
            Give(_) => gives = code,
            _ => text += &line(&code),
        }
    }
    text + &line(&format!("return {gives}{end}"))
}

fn written(language: Language, template: &OperationTemplate) -> String {
    let frames = match template {
        Keep(_) => &PerLanguage {
            python: "@ = [x for x in @ if CODE]",
            java: "@.removeIf(x -> !(CODE));",
            cpp: "@.erase(std::remove_if(@.begin(), @.end(), [](long x) { return !(CODE); }), @.end());",
        },
        Each(_) => &PerLanguage {
            python: "@ = [CODE for x in @]",
            java: "@.replaceAll(x -> CODE);",
            cpp: "for (long& x : @) x = CODE;",
        },
        Change(code) | Give(code) => code,
    };
    let frame = match language {
        Language::Python => frames.python,
        Language::Java => frames.java,
        _ => frames.cpp,
    };
    match template {
        Keep(code) | Each(code) => frame.replace("CODE", code),
        _ => frame.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Kind;
    use crate::operations::OPS;
    use crate::program::Step;

    fn op(name: &str) -> &'static Op {
        OPS.iter().find(|op| op.name == name).unwrap_or_else(|| panic!("no operation {name}"))
    }

    #[test]
    fn every_template_is_of_an_operation_on_numbers_and_uses_its_literal() {
        for (name, template) in TEMPLATES {
            let op = op(name);
            assert_eq!(op.from(), Kind::Nums, "{name}");
            assert_eq!(matches!(template, Give(_)), op.to() == Kind::Num, "{name}");
            for language in [Language::Python, Language::Java, Language::Cpp] {
                assert_eq!(written(language, template).contains('#'), op.call().contains('#'), "{name}");
            }
        }
    }

    #[test]
    fn a_body_is_a_statement_an_operation() {
        let steps = ["evens", "times", "sum"].map(|name| Step { op: op(name), literal: 3 });
        let body = |language| body(language, &Program { steps: steps.to_vec() }, "xs", "  ");
        assert_eq!(
            body(Language::Python),
            "  xs = [x for x in xs if x % 2 == 0]\n  xs = [x * 3 for x in xs]\n  return sum(xs)\n"
        );
        assert_eq!(
            body(Language::Java),
            "  xs.removeIf(x -> !(x % 2 == 0));\n  xs.replaceAll(x -> x * 3);\n  return xs.stream().mapToLong(x -> x).sum();\n"
        );
        assert!(body(Language::Cpp).ends_with(
            "\n  for (long& x : xs) x = x * 3;\n  return std::accumulate(xs.begin(), xs.end(), 0L);\n"
        ));
        assert_eq!(
            body(Language::JavaScript),
            "  return xs.filter((x) => x % 2 === 0).map((x) => x * 3).reduce((a, b) => a + b, 0);\n"
        );
    }
}
