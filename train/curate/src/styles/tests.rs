use super::*;
use crate::comment::DocComment;
use crate::extract::extract_items;
use crate::item_rng::ItemRng;
use crate::language::Language;
use crate::row::ItemKind;

const SOURCE: &str = "
/**
 * Finds the place of a value in a sorted list by halving what is left.
 *
 * @param values the sorted list
 * @param wanted the value to look for
 * @returns the place, or -1 where it is absent
 * @example
 * place([1, 3, 5], 3); // => 1
 * place([1, 3, 5], 4); // -1
 * place(others, 4); // => 0
 * place([1, 3], 4); // somewhere near the end
 */
export function place(values: number[], wanted: number): number {
  if (values.length === 0) {
    return -1;
  }
  let lower = 0;
  let upper = values.length - 1;
  while (lower <= upper) {
    const middle = Math.floor((lower + upper) / 2);
    if (values[middle] < wanted) {
      lower = middle + 1;
    } else {
      upper = middle - 1;
    }
  }
  return values[lower] === wanted ? lower : -1;
}
";

/// The task of the first item of a source.
fn first_task(source: &str, style: InstructionStyle, seed: u64) -> Option<Task> {
    let item = extract_items(source, Language::TypeScript, "a.ts").unwrap().remove(0);
    let doc = DocComment::parse(&item.comment, item.language);
    let rng = ItemRng::new(seed, &[&item.name, style.name()]);
    task(style, &StyleInput { item: &item, doc: &doc, tsx: false, rng })
}

/// The code in an instruction.
fn given(task: &Task) -> &str {
    task.instruction.split("```typescript\n").nth(1).unwrap().strip_suffix("\n```").unwrap()
}

fn code(source: &str) -> String {
    extract_items(source, Language::TypeScript, "a.ts").unwrap().remove(0).code
}

#[test]
fn complete_gives_comment_head_and_first_statements() {
    let seen: std::collections::BTreeSet<String> = (0..20)
        .map(|seed| {
            let task = first_task(SOURCE, InstructionStyle::Complete, seed).unwrap();
            let (comment, head) = given(&task).split_once("\n */\n").unwrap();
            assert!(task.instruction.starts_with("Complete the TypeScript function `place`."));
            assert!(comment.starts_with("/**\n * Finds") && task.output.starts_with(head), "{head}");
            assert!(head.contains("return -1;\n  }") && head.len() < task.output.len());
            head.to_string()
        })
        .collect();
    assert_eq!(seen.len(), 4, "one cut before each of the four statements that can be left: {seen:#?}");
    assert_eq!(
        first_task("/** One. */\nfunction f() {\n  return 1;\n}", InstructionStyle::Complete, 0),
        None
    );
}

#[test]
fn explain_repeats_the_comment_if_it_is_long_enough_and_up_to_date() {
    let explain = |source: &str| first_task(source, InstructionStyle::Explain, 0);
    let explained = explain(SOURCE).unwrap();
    assert_eq!(given(&explained), code(SOURCE));
    assert_eq!(
        explained.output,
        "`place(values: number[], wanted: number): number` is a function.\n\nFinds the place of a value in a sorted list by halving what is left.\n\nParameters:\n\
         - `values`: the sorted list\n- `wanted`: the value to look for\n\nReturns: the place, or -1 where it is absent"
    );
    assert_eq!(explain("/** Finds the place of a value. */\nfunction f(a: number) {\n  return a;\n}"), None);
    assert_eq!(explain(&SOURCE.replace("@param wanted", "@param needle")), None);
}

#[test]
fn a_bug_is_one_change_of_the_original_and_seeds_give_different_bugs() {
    let bugs: std::collections::BTreeSet<String> = (0..200)
        .map(|seed| {
            let task = first_task(SOURCE, InstructionStyle::Fix, seed).unwrap();
            assert_eq!(task.output, code(SOURCE));
            let (bug, right) = (given(&task), &task.output);
            assert!(
                bug != right
                    && crate::parsed_code::ParsedCode::parse(bug, ItemKind::Function, false).is_some()
            );
            let changed = bug.lines().zip(right.lines()).filter(|(a, b)| a != b).count();
            assert_eq!((bug.lines().count(), changed), (right.lines().count(), 1), "{bug}");
            bug.to_string()
        })
        .collect();
    assert!(bugs.len() > 12, "{bugs:#?}");
    for bug in
        ["lower < upper", "Math.ceil(", "(!(values[middle] < wanted))", "middle + 2", "(lower - upper)"]
    {
        assert!(bugs.iter().any(|code| code.contains(bug)), "no seed gives `{bug}`: {bugs:#?}");
    }
    assert!(!bugs.iter().any(|code| code.contains("/ 3")), "a divisor stays");
    assert_eq!(
        first_task("/** A. */\nfunction f(a: string) {\n  g(`x` + a);\n}", InstructionStyle::Fix, 0),
        None
    );
}

#[test]
fn every_kind_of_bug_is_made() {
    let bug = |body: &str| {
        let source = format!("/** Does. */\nasync function f(a: any, b: any) {{\n  {body}\n}}");
        let task = first_task(&source, InstructionStyle::Fix, 0).unwrap();
        given(&task).lines().nth(1).unwrap().trim().to_string()
    };
    for (right, wrong) in [
        ("return g(a);", "g(a);"),
        ("return await g(a);", "await g(a);"),
        ("const c = await g(a);", "const c = g(a);"),
        ("b = true;", "b = false;"),
        ("a.push(b);", "a.unshift(b);"),
        ("if (!a.ok) { b(); }", "if (a.ok) { b(); }"),
        ("const c = a ? b : f;", "const c = !a ? b : f;"),
        ("b = a[0];", "b = a[1];"),
        ("b = a && f;", "b = a || f;"),
    ] {
        let made = bug(right);
        let other = (right == "return await g(a);").then_some("return g(a);");
        assert!(made == wrong || Some(made.as_str()) == other, "{right}: {made}");
    }
}

#[test]
fn a_refactoring_starts_from_a_less_readable_equivalent() {
    let task = first_task(SOURCE, InstructionStyle::Refactor, 0).unwrap();
    assert_eq!(task.output, code(SOURCE));
    assert!(task.instruction.starts_with(
        "Refactor the TypeScript function `place` without changing what it does: return early instead of nesting, put \
         conditions positively and give the variables names that say what they hold.\n\nWhat it does: Finds"
    ));
    let expected = "function place(values: number[], wanted: number): number {
  if (!(values.length === 0)) {
    let v1 = 0;
    let v2 = values.length - 1;
    while (v1 <= v2) {
      const v3 = Math.floor((v1 + v2) / 2);
      if (values[v3] < wanted) {
        v1 = v3 + 1;
      } else {
        v2 = v3 - 1;
      }
    }
    return values[v1] === wanted ? v1 : -1;
  } else {
    return -1;
  }
}";
    let spaces = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(spaces(given(&task)), spaces(expected), "{}", given(&task));
}

#[test]
fn a_comparison_is_replaced_by_two_returns() {
    let source = "/** Is less. */\nfunction less(a: number, b: number) {\n  return a < b;\n}";
    let task = first_task(source, InstructionStyle::Refactor, 0).unwrap();
    assert!(
        task.instruction.contains(": return a condition itself and put conditions positively."),
        "{task:?}"
    );
    let body = "if (!(a < b)) {\n    return false;\n  } else {\n    return true;\n  }";
    assert!(given(&task).contains(body), "{}", given(&task));
}

/// Code whose meaning could change is left unchanged.
#[test]
fn code_is_only_refactored_if_the_meaning_is_kept() {
    for body in [
        // An earlier closure reads what the rest declares.
        "const show = () => later;\n  if (a) {\n    return show;\n  }\n  const later = 1;\n  return a;",
        // A hoisted function; a multi-line string whose indentation would change.
        "if (a) {\n    return 1;\n  }\n  function g() {}\n  return g;",
        "if (a) {\n    return 1;\n  }\n  return `x\n  y`;",
        // Names that shadow, are declared twice, are destructured, are types, are functions, or are short.
        "const first = 1;\n  const second = (first: number) => first;\n  a(second);",
        "{ const first = 1; a(first); }\n  { const second = 2; a(second); }\n  a(first, second);",
        "const { first } = a;\n  const [second] = a;\n  a(first, second);",
        "const first = () => 1;\n  const second = function () {};\n  a(first, second);",
        "const i = 1;\n  const j = 2;\n  a(i, j);",
        "const first = 1;\n  const second = v1;\n  a(first, second);",
        // A value that may not be a boolean.
        "return a && b;",
        "if (!a) {\n    b();\n  } else {\n    a();\n  }",
    ] {
        let source = format!("/** Does. */\nfunction f(a: any, b: any) {{\n  {body}\n}}");
        assert_eq!(first_task(&source, InstructionStyle::Refactor, 0), None, "{body}");
    }
    let shorthand = "/** Does. */\nfunction f() {\n  const first = 1;\n  const second = 2;\n  return { first, second: second };\n}";
    assert!(
        given(&first_task(shorthand, InstructionStyle::Refactor, 0).unwrap())
            .contains("return { first: v1, second: v2 };")
    );
}

/// `<Card>` is a component, but `<v1>` would be an HTML element.
#[test]
fn names_in_jsx_are_not_renamed() {
    let source = "/** Shows. */\nfunction Show() {\n  const Card = make();\n  const label = text();\n  const other = text();\n  \
                  return <Card title={label}>{other}</Card>;\n}";
    let item = extract_items(source, Language::TypeScript, "a.tsx").unwrap().remove(0);
    let input = StyleInput { item: &item, doc: &DocComment::default(), tsx: true, rng: ItemRng::new(0, &[]) };
    let refactor = task(InstructionStyle::Refactor, &input).unwrap();
    assert!(
        refactor.instruction.contains("```tsx\n") && refactor.instruction.contains("const Card = make();"),
        "{refactor:?}"
    );
    assert!(refactor.instruction.contains("<Card title={v1}>{v2}</Card>"), "{refactor:?}");
}

#[test]
fn a_test_asserts_the_self_contained_examples() {
    let made = first_task(SOURCE, InstructionStyle::Test, 0).unwrap();
    assert_eq!(
        made.output,
        "import assert from 'node:assert';\n\nassert.deepEqual(place([1, 3, 5], 3), 1);\nassert.deepEqual(place([1, 3, 5], 4), -1);"
    );
    let assertions = |comment: &str| {
        let source = format!(
            "/**\n * Does it.\n * {}\n */\nfunction f(a: any) {{\n  return a;\n}}",
            comment.replace('\n', "\n * ")
        );
        first_task(&source, InstructionStyle::Test, 0)
            .map(|t| t.output.lines().skip(2).collect::<Vec<_>>().join("\n"))
    };
    let one = |call: &str, value: &str| Some(format!("assert.deepEqual({call}, {value});"));
    assert_eq!(assertions("@example f('a') // 'b'"), one("f('a')", "'b'"));
    assert_eq!(
        assertions("```ts\nconsole.log(f({ a: [1] }));\n// -> { b: null }\n```"),
        one("f({ a: [1] })", "{ b: null }")
    );
    assert_eq!(
        assertions("@example\nconst b = await f(x => x + 1) // returns true"),
        one("await f(x => x + 1)", "true")
    );
    let two = Some("assert.deepEqual(f(1), 2);\nassert.deepEqual(f(3), 4);".to_string());
    for comment in [
        "f(1);\n// returns 2\nf(3);\n// returns 4",
        "// Returns 2\nf(1);\n// Returns 4\nf(3);",
        "// So it goes.\nf(1);\n// => 2\nf(3); // 4",
    ] {
        assert_eq!(assertions(&format!("@example\n{comment}")), two, "{comment}");
    }
    for none in [
        "@example\n// Once.\nf(1);\n// 2\n\n// More.\nf(b)",
        "@example\nf(1)",
        "f(1) // 2",
        "@example\nf(b) // 2",
        "@example\ng(1) // 2",
        "@example\nf(1) // two",
        "@example\nf(1) // [1, 2, ...]",
        "@example\nf({ b }) // 2",
        "@example\nf(1)\n\n// 2",
        "@since 2\nf(1) // 2",
    ] {
        assert_eq!(assertions(none), None, "{none}");
    }
}

#[test]
fn each_style_has_one_name() {
    for style in InstructionStyle::ALL {
        assert_eq!(style.name().parse::<InstructionStyle>().unwrap(), style);
        assert_eq!(serde_json::to_value(style).unwrap(), style.name());
    }
    assert!(
        "sing"
            .parse::<InstructionStyle>()
            .unwrap_err()
            .to_string()
            .contains("no style `sing`; there are write, complete")
    );
}
