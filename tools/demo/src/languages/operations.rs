//! The table of operations on numbers that every language of the demo has, and the function bodies that use them.

use crate::chain::OperationChain;
use crate::operation::Operation;
use OperationTemplate::*;
use codelsi_curate::Language;

/// Code of an operation in languages other than TypeScript; its semantics are those of its [`Operation`]. `@` stands
/// for the list, `#` for the literal, `x` for a number.
enum OperationTemplate {
    /// Condition of a filter, the same in all languages.
    Filter(&'static str),
    /// Expression of a map, the same in all languages.
    Map(&'static str),
    /// Statement that changes the list in place.
    Transform(PerLanguage),
    /// Expression that reduces the list to a number.
    Reduce(PerLanguage),
}

/// Code in each language; JavaScript has TypeScript's.
struct PerLanguage {
    python: &'static str,
    java: &'static str,
    cpp: &'static str,
}

/// The operations' code by their names.
#[rustfmt::skip]
static TEMPLATES: &[(&str, OperationTemplate)] = &[
    ("evens", Filter("x % 2 == 0")),
    ("positives", Filter("x > 0")),
    ("negatives", Filter("x < 0")),
    ("above", Filter("x > #")),
    ("below", Filter("x < #")),
    ("doubled", Map("x * 2")),
    ("squared", Map("x * x")),
    ("plus", Map("x + #")),
    ("times", Map("x * #")),
    ("reversed", Transform(PerLanguage {
        python: "@.reverse()",
        java: "Collections.reverse(@);",
        cpp: "std::reverse(@.begin(), @.end());",
    })),
    ("ascending", Transform(PerLanguage {
        python: "@.sort()",
        java: "Collections.sort(@);",
        cpp: "std::sort(@.begin(), @.end());",
    })),
    ("descending", Transform(PerLanguage {
        python: "@.sort(reverse=True)",
        java: "@.sort(Collections.reverseOrder());",
        cpp: "std::sort(@.rbegin(), @.rend());",
    })),
    ("first", Transform(PerLanguage {
        python: "@ = @[:#]",
        java: "@.subList(Math.min(#, @.size()), @.size()).clear();",
        cpp: "@.resize(std::min<size_t>(#, @.size()));",
    })),
    ("skipped", Transform(PerLanguage {
        python: "@ = @[#:]",
        java: "@.subList(0, Math.min(#, @.size())).clear();",
        cpp: "@.erase(@.begin(), @.begin() + std::min<size_t>(#, @.size()));",
    })),
    ("sum", Reduce(PerLanguage {
        python: "sum(@)",
        java: "@.stream().mapToLong(x -> x).sum()",
        cpp: "std::accumulate(@.begin(), @.end(), 0L)",
    })),
    ("largest", Reduce(PerLanguage {
        python: "max(@)",
        java: "Collections.max(@)",
        cpp: "*std::max_element(@.begin(), @.end())",
    })),
    ("count", Reduce(PerLanguage {
        python: "len(@)",
        java: "(long) @.size()",
        cpp: "(long) @.size()",
    })),
];

/// Returns true for an operation that every language of the demo has.
pub fn is_supported(operation: &Operation) -> bool {
    template_of(operation).is_some()
}

fn template_of(operation: &Operation) -> Option<&'static OperationTemplate> {
    TEMPLATES.iter().find(|(name, _)| *name == operation.name).map(|(_, template)| template)
}

/// Writes the lines of a function of `list` that computes `chain`, each after `indent`: one chain of calls in
/// JavaScript, a statement per operation in the other languages.
///
/// # Panics
/// For operations that are not [`is_supported`].
pub fn body(language: Language, chain: &OperationChain, list: &str, indent: &str) -> String {
    let end = if language == Language::Python { "" } else { ";" };
    let line = |code: &str| format!("{indent}{code}\n");
    if language == Language::JavaScript {
        return line(&format!("return {};", chain.expression(list)));
    }
    let mut text = String::new();
    let mut result = list.to_string();
    for step in &chain.steps {
        let template = template_of(step.operation).expect("the languages have the operation");
        let code = step.with_literal(&code_template(language, template).replace('@', list));
        match template {
            Reduce(_) => result = code,
            _ => text += &line(&code),
        }
    }
    text + &line(&format!("return {result}{end}"))
}

fn code_template(language: Language, template: &OperationTemplate) -> String {
    let frames = match template {
        Filter(_) => &PerLanguage {
            python: "@ = [x for x in @ if CODE]",
            java: "@.removeIf(x -> !(CODE));",
            cpp: "@.erase(std::remove_if(@.begin(), @.end(), [](long x) { return !(CODE); }), @.end());",
        },
        Map(_) => &PerLanguage {
            python: "@ = [CODE for x in @]",
            java: "@.replaceAll(x -> CODE);",
            cpp: "for (long& x : @) x = CODE;",
        },
        Transform(code) | Reduce(code) => code,
    };
    let frame = match language {
        Language::Python => frames.python,
        Language::Java => frames.java,
        _ => frames.cpp,
    };
    match template {
        Filter(code) | Map(code) => frame.replace("CODE", code),
        _ => frame.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::OPERATIONS;
    use crate::chain::ChainStep;
    use crate::operation::ValueType;

    fn by_name(name: &str) -> &'static Operation {
        OPERATIONS
            .iter()
            .find(|operation| operation.name == name)
            .unwrap_or_else(|| panic!("no operation {name}"))
    }

    #[test]
    fn every_template_is_of_an_operation_on_numbers_and_uses_its_literal() {
        for (name, template) in TEMPLATES {
            let operation = by_name(name);
            assert_eq!(operation.from(), ValueType::Nums, "{name}");
            assert_eq!(matches!(template, Reduce(_)), operation.to() == ValueType::Num, "{name}");
            for language in [Language::Python, Language::Java, Language::Cpp] {
                assert_eq!(
                    code_template(language, template).contains('#'),
                    operation.call().contains('#'),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_body_is_a_statement_an_operation() {
        let steps = ["evens", "times", "sum"].map(|name| ChainStep { operation: by_name(name), literal: 3 });
        let body = |language| body(language, &OperationChain { steps: steps.to_vec() }, "xs", "  ");
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
