use super::window::window;
use super::*;
use crate::extract::extract_items;
use crate::options::CurateOptions;
use std::collections::BTreeSet;

const SOURCE: &str = "import { log } from './log';

/** Adds up the amounts above a limit. */
export function total(amounts: number[], limit: number): number {
  let sum = 0;
  for (const amount of amounts) {
    if (amount > limit) {
      sum += log(amount, limit);
    }
  }
  return sum + amounts.length;
}

/** Says what the total is. */
const say = (amounts: number[]) => `The total is ${total(amounts, 0)}.`;

class Empty {}
";

/// The holes of all seeds below 200 in the item `name`, as they are marked in its file: `[output]`.
fn holes(text: &str, path: &str, name: &str) -> BTreeSet<(String, String)> {
    let source = SourceFile { path: path.into(), content: text.into(), repo: None, license: None };
    let filters = Filters::open(&CurateOptions::default()).unwrap();
    let items = extract_items(text, Language::from_path(path).unwrap(), path).unwrap();
    let item = items.iter().find(|item| item.name == name).unwrap();
    let cut = |seed| InfillFile::new(&source, text, &items, &filters, seed).unwrap().cut(item);
    assert_eq!(cut(7), cut(7), "the seed decides");
    let cuts: Vec<CutHole> = (0..200).filter_map(|seed| cut(seed).ok()).collect();
    let shown = |CutHole { hole: Hole { prefix, suffix }, output }: CutHole| {
        assert_eq!(format!("{prefix}{output}{suffix}"), text, "the file is the row");
        (output, prefix.lines().last().unwrap_or_default().trim().to_string())
    };
    cuts.into_iter().map(shown).collect()
}

fn outputs(text: &str, path: &str, name: &str) -> BTreeSet<String> {
    holes(text, path, name).into_iter().map(|(output, _)| output).collect()
}

#[test]
fn holes_are_statements_bodies_expressions_and_arguments_of_the_function() {
    let found = outputs(SOURCE, "a.ts", "total");
    for expected in [
        "let sum = 0;",
        "return sum + amounts.length;",
        "sum + amounts.length",
        "amount > limit",
        "amount, limit",
        "\n      sum += log(amount, limit);",
        "log(amount, limit)",
    ] {
        assert!(found.contains(expected), "{expected:?} in {found:#?}");
    }
    let whole = found.iter().filter(|hole| hole.starts_with("\n  let sum") && hole.ends_with("length;"));
    assert_eq!(whole.count(), 1, "{found:#?}");
    // Statements are cut as they are, without the white space around them.
    assert!(found.contains(SOURCE[SOURCE.find("for (").unwrap()..].split("\n  return").next().unwrap()));
    let code = extract_items(SOURCE, Language::TypeScript, "a.ts").unwrap()[0].code.clone();
    assert!(
        found.iter().all(|hole| code.contains(hole.as_str()) && !hole.contains("limit: number")),
        "{found:#?}"
    );
    assert_eq!(outputs(SOURCE, "a.ts", "say"), BTreeSet::from(["amounts, 0".to_string()]));
    assert_eq!(outputs(SOURCE, "a.ts", "Empty").len(), 0);
}

#[test]
fn every_language_has_holes_of_every_kind() {
    for (path, text, name, expected) in [
        (
            "a.py",
            "def f(a, b):\n    \"\"\"Adds twice.\"\"\"\n    c = g(a, b)\n    if c > a:\n        return c + b\n    return b\n",
            "f",
            ["c = g(a, b)", "\n        return c + b", "c + b", "a, b"],
        ),
        (
            "A.java",
            "class A {\n  int f(int a, int b) {\n    int c = g(a, b);\n    if (c > a) {\n      return c + b;\n    }\n    return b;\n  }\n}\n",
            "A.f",
            ["int c = g(a, b);", "\n      return c + b;", "c + b", "a, b"],
        ),
        (
            "a.cpp",
            "int f(int a, int b) {\n  int c = g(a, b);\n  if (c > a) {\n    return c + b;\n  }\n  return b;\n}\n",
            "f",
            ["int c = g(a, b);", "\n    return c + b;", "c + b", "a, b"],
        ),
        (
            "a.rs",
            "fn f(a: u8, b: u8) -> u8 {\n    let c = g(a, b);\n    if c > a {\n        return c + b;\n    }\n    b\n}\n",
            "f",
            ["let c = g(a, b);", "\n        return c + b;", "c + b", "a, b"],
        ),
        (
            "a.js",
            "function f(a, b) {\n  const c = g(a, b);\n  if (c > a) {\n    return c + b;\n  }\n  return b;\n}\n",
            "f",
            ["const c = g(a, b);", "\n    return c + b;", "c + b", "a, b"],
        ),
    ] {
        let found = outputs(text, path, name);
        for hole in expected.into_iter().chain(["c > a"]) {
            assert!(found.contains(hole), "{path}: {hole:?} in {found:#?}");
        }
        assert!(!found.iter().any(|hole| hole.contains("Adds twice")), "{path}: {found:#?}");
    }
}

#[test]
fn a_window_is_whole_lines_within_its_size_and_shows_no_repeat() {
    let text: String = (0..100).map(|i| format!("line {i:02} é\n")).collect();
    let hole = 500..505;
    let shown = window(&text, &hole, &[], 120).unwrap();
    let (prefix, suffix) = (&text[shown.start..500], &text[505..shown.end]);
    assert!(prefix.starts_with("line ") && suffix.ends_with("é\n"), "{prefix:?} {suffix:?}");
    assert!((100..=120).contains(&(prefix.len() + suffix.len())) && suffix.len() <= 40);
    assert_eq!(window(&text, &hole, &[], 10_000), Some(0..text.len()));
    let bounded = window(&text, &hole, &[470..480, 520..530], 10_000).unwrap();
    assert!(bounded.start >= 480 && bounded.end <= 520, "{bounded:?}");
    assert_eq!(window(&text, &hole, std::slice::from_ref(&(490..600)), 10_000), None);
    // A line longer than the window is cut between characters.
    let long = "é".repeat(500);
    assert!(window(&long, &(500..502), &[], 100).is_some_and(|shown| long.get(shown).is_some()));
    assert_eq!((context_bytes(8500, None), context_bytes(8500, Some(1000))), (8500, 2000));
}
