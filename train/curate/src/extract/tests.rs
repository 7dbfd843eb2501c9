use super::*;

fn items(text: &str, tsx: bool) -> Result<Vec<Item>, Unparsed> {
    extract_items(text, Language::TypeScript, if tsx { "a.tsx" } else { "a.ts" })
}

fn only(text: &str) -> Item {
    let mut found = items(text, false).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_function_loses_its_export_and_keeps_its_comment() {
    let text = "// Copyright\n\nimport a from 'a';\n\n/** Adds. */\n// eslint-disable-next-line\n\
                export async function add<T>(\n  a: T, // first\n  b: T,\n): Promise<T> {\n  return a;\n}\n";
    let item = only(text);
    assert_eq!(
        (item.kind, item.name.as_str(), item.noun.as_str()),
        (ItemKind::Function, "add", "async function")
    );
    assert_eq!(item.signature, "add<T>(a: T, b: T): Promise<T>");
    assert_eq!(item.comment, "/** Adds. */");
    assert!(item.code.starts_with("async function add") && item.code.ends_with('}') && !item.broken);
}

#[test]
fn constants_with_a_function_are_items() {
    let item = only("/** Doubles. */\nexport const double = (x: number): number => {\n  return 2 * x;\n};");
    assert_eq!(
        (item.signature.as_str(), item.comment.as_str()),
        ("double(x: number): number", "/** Doubles. */")
    );
    assert_eq!(only("const id: <A>(a: A) => A = a => a").signature, "id: <A>(a: A) => A");
    assert!(items("const a = 1, b = () => 2; export const c = make(() => 1);", false).unwrap().is_empty());
}

#[test]
fn a_class_comes_with_its_methods() {
    let text = "/** A stack. */\nexport abstract class Stack<T> extends Base<T> {\n  private items: T[] = [];\n\n  \
                /** Adds. */\n  @logged\n  static async push(item: T): Promise<void> {\n    go();\n  }\n\n  \
                // The size\n  // now.\n  get size(): number {\n    return 1;\n  }\n\n  on = () => {};\n  abstract off(): void;\n}";
    let found = items(text, false).unwrap();
    let names: Vec<&str> = found.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["Stack", "Stack.push", "Stack.size", "Stack.on"]);
    assert_eq!(
        (found[0].signature.as_str(), found[0].noun.as_str()),
        ("Stack<T> extends Base<T>", "abstract class")
    );
    assert_eq!((found[1].noun.as_str(), found[1].comment.as_str()), ("static async method", "/** Adds. */"));
    assert_eq!(found[1].code, "@logged\nstatic async push(item: T): Promise<void> {\n  go();\n}");
    assert_eq!((found[2].noun.as_str(), found[2].comment.as_str()), ("getter", "// The size\n// now."));
}

#[test]
fn overloads_stay_with_their_body_and_the_first_comment_documents_all() {
    let text = "/** Data first. */\nexport function f(a: A, b: B): C;\n\n/** Data last. */\nexport function f(b: B): D;\n\n\
                export function f(...args: any[]) {\n  return args;\n}";
    let item = only(text);
    assert_eq!((item.comment.as_str(), item.signature.as_str()), ("/** Data first. */", "f(a: A, b: B): C"));
    assert_eq!(
        item.code,
        "function f(a: A, b: B): C;\nfunction f(b: B): D;\nfunction f(...args: any[]) {\n  return args;\n}"
    );
}

#[test]
fn comments_of_other_code_are_not_used() {
    assert_eq!(only("const a = 1; // one\nfunction f() {}").comment, "");
    assert_eq!(only("// Section\n\nfunction f() {}").comment, "");
}

#[test]
fn namespaces_are_entered_and_errors_are_marked() {
    assert_eq!(only("export namespace A {\n  /** B. */\n  export function b() {}\n}").name, "b");
    assert!(only("function f( {\n  return 1;\n}").broken);
    let found = items("function a() { return 1; }\n) ] }}} {\nfunction b() { return 2; }", false).unwrap();
    let states: Vec<(&str, bool)> = found.iter().map(|i| (i.name.as_str(), i.broken)).collect();
    assert!(states.contains(&("a", false)) && states.contains(&("", true)), "{states:?}");
    assert_eq!(items("const View = () => { return <div/>; };", true).unwrap().len(), 1);
}
