//! Sources that are nested deep, long, or broken: no file ends a curation, and none takes long.

use codelsi_curate::problems::make_problems;
use codelsi_curate::{CurateOptions, CurationCounts, InstructionStyle, Language, run};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// A text that repeats its first part, has a middle, and repeats its last part.
type Nest = (&'static str, &'static str, &'static str);

/// Expressions of languages with C's syntax.
const C_EXPRESSIONS: &[Nest] = &[
    ("(", "1", ")"),
    ("f(", "x", ")"),
    ("!", "a", ""),
    ("- ", "a", ""),
    ("a ? b : ", "c", ""),
    ("a ? ", "b", " : c"),
    ("a = ", "b", ""),
    ("", "a", "[0]"),
    ("", "a", ".b"),
    ("", "a", ".b(c)"),
    ("", "a", "()"),
    ("", "a", " + b"),
    ("", "a", " && b"),
    ("", "a", " < b"),
    ("f(a, ", "b", ")"),
    ("(", "", ""),
    ("", "", ")"),
];
/// Statements of languages with C's syntax.
const C_STATEMENTS: &[Nest] = &[
    ("{", "", "}"),
    ("if (a) { b; } else ", "{ c; }", ""),
    ("if (a) ", "b;", ""),
    ("while (a) { ", "b;", " }"),
    ("a; ", "", ""),
    ("/* a */ ", "b;", ""),
    ("// a\n", "b;", ""),
    ("{", "", ""),
    ("\"", "", ""),
    ("/*", "", ""),
];
const JS_EXPRESSIONS: &[Nest] = &[
    ("[", "", "]"),
    ("{ a: ", "1", " }"),
    ("a => ", "1", ""),
    ("async () => { await ", "b", " }"),
    ("new ", "A", ""),
    ("typeof ", "a", ""),
    ("`${", "x", "}`"),
    ("", "a", "``"),
    ("", "a", "?.b"),
    ("", "a", " ?? b"),
    ("", "a", ", b"),
    ("function () { return ", "1", " }"),
    ("class { a = ", "1", " }"),
    ("`", "", ""),
    ("/", "", "/ a"),
    ("<a>", "", "</a>"),
];
const JS_STATEMENTS: &[Nest] = &[
    ("a: ", ";", ""),
    ("function f() {", "", "}"),
    ("class A { m() {", "", "} }"),
    ("const f = () => {", "", "};"),
    ("export default ", "1;", ""),
    ("import { a } from './a';\n", "", ""),
    ("/** Makes a thing of a. */\n", "function f() {}", ""),
    ("@d ", "class A {}", ""),
    ("do ", ";", " while (a);"),
    ("switch (a) { case 1: ", ";", " }"),
    ("try { ", "", " } finally {}"),
];
const TS_STATEMENTS: &[Nest] = &[
    ("namespace A { ", "", " }"),
    ("type T = A<", "B", ">;"),
    ("type T = ", "'a'", " | 'b'"),
    ("type T = (a: ", "B", ") => c;"),
    ("type T = keyof ", "A", ";"),
    ("type T = A extends B ? C : ", "D", ";"),
    ("let x: { a: ", "B", " };"),
    ("let x: [", "B", "];"),
    ("", "a", "!"),
    ("", "a", " as A"),
    ("", "f", "<A>()"),
    ("function f(a: A): B;\n", "function f(a) { return a; }", ""),
    ("abstract class A { ", "", " }"),
];
const PYTHON_EXPRESSIONS: &[Nest] = &[
    ("(", "1", ")"),
    ("[", "", "]"),
    ("{1: ", "2", "}"),
    ("not ", "a", ""),
    ("lambda: ", "a", ""),
    ("a if b else ", "c", ""),
    ("await ", "a", ""),
    ("", "a", "()"),
    ("", "a", ".b(c)"),
    ("", "a", "[0]"),
    ("", "a", " + b"),
    ("", "a", " and b"),
    ("f'{", "a", "}'"),
    ("[a for b in ", "c", "]"),
];
const PYTHON_STATEMENTS: &[Nest] = &[
    ("import a.b\n", "", ""),
    ("@d\n", "def f(): pass", ""),
    ("if a: pass\nelse: pass\n", "", ""),
    ("\"\"\"", "", ""),
    ("# a\n", "", ""),
    ("class A: pass\n", "", ""),
];
const JAVA_STATEMENTS: &[Nest] = &[
    ("class A { ", "", " }"),
    ("class A { void m() { ", "", " } }"),
    ("class A { List<", "B", "> a; }"),
    ("@A(", "1", ") class B {}"),
    ("class A { Object a = () -> ", "1", "; }"),
    ("class A { Object a = new A() { Object a = ", "1", "; }; }"),
    ("import a.b.C;\n", "", ""),
];
const CPP_STATEMENTS: &[Nest] = &[
    ("namespace a { ", "", " }"),
    ("struct A { ", "", " };"),
    ("template <class T> ", "void f() {}", ""),
    ("vector<", "int", "> a;"),
    ("int *", "f() {}", ""),
    ("void a::", "f() {}", ""),
    ("#if A\n", "", "\n#endif\n"),
    ("#include <vector>\n", "", ""),
    ("extern \"C\" { ", "", " }"),
    ("auto f = [] { return ", "1", "; };"),
];
const RUST_STATEMENTS: &[Nest] = &[
    ("mod a { ", "", " }"),
    ("impl A { fn f() { ", "", " } }"),
    ("fn f() { ", "", " }"),
    ("use a::{", "b", "};"),
    ("fn f() -> Option<", "u8", "> {}"),
    ("fn f(a: &", "u8", ") {}"),
    ("fn f() { let a = |x| ", "x", "; }"),
    ("fn f() { match a { _ => ", "b", " } }"),
    ("m! { ", "", " }"),
    ("#[a]\n", "fn f() {}", ""),
    ("/* ", "", " */"),
    ("r#\"", "", "\"#"),
];

/// The shapes of a language: its statements, and its expressions in a statement.
fn shapes(language: Language) -> Vec<(String, String, String)> {
    let (expressions, statements): (Vec<&[Nest]>, Vec<&[Nest]>) = match language {
        Language::TypeScript => {
            (vec![C_EXPRESSIONS, JS_EXPRESSIONS], vec![C_STATEMENTS, JS_STATEMENTS, TS_STATEMENTS])
        }
        Language::JavaScript => (vec![C_EXPRESSIONS, JS_EXPRESSIONS], vec![C_STATEMENTS, JS_STATEMENTS]),
        Language::Python => (vec![PYTHON_EXPRESSIONS], vec![PYTHON_STATEMENTS]),
        Language::Java => (vec![C_EXPRESSIONS], vec![C_STATEMENTS, JAVA_STATEMENTS]),
        Language::Cpp => (vec![C_EXPRESSIONS], vec![C_STATEMENTS, CPP_STATEMENTS]),
        Language::Rust => (vec![C_EXPRESSIONS], vec![C_STATEMENTS, RUST_STATEMENTS]),
    };
    let owned = |(open, middle, close): &Nest| (open.to_string(), middle.to_string(), close.to_string());
    let all = |groups: Vec<&[Nest]>| groups.into_iter().flatten().map(owned).collect::<Vec<_>>();
    let mut shapes = all(statements);
    shapes.extend(all(expressions));
    shapes
}

/// A documented function with a body, in the language.
fn function(language: Language, body: &str) -> String {
    match language {
        Language::TypeScript | Language::JavaScript => {
            format!(
                "/** Adds all of the numbers. */\nexport function total(numbers) {{\n  {body}\n  return numbers;\n}}\n"
            )
        }
        Language::Python => {
            format!(
                "def total(numbers):\n    \"\"\"Adds all of the numbers.\"\"\"\n    {body}\n    return numbers\n"
            )
        }
        Language::Java => {
            format!(
                "class A {{\n  /** Adds all of the numbers. */\n  int total(int numbers) {{\n    {body};\n    return numbers;\n  }}\n}}\n"
            )
        }
        Language::Cpp => {
            format!(
                "/** Adds all of the numbers. */\nint total(int numbers) {{\n  {body};\n  return numbers;\n}}\n"
            )
        }
        Language::Rust => {
            format!(
                "/// Adds all of the numbers.\nfn total(numbers: u32) -> u32 {{\n    {body};\n    numbers\n}}\n"
            )
        }
    }
}

/// A file that gives a row.
fn good_file(language: Language) -> String {
    let body = match language {
        Language::Python => "for number in numbers:\n        print(number, 'is one of them')",
        _ => "print(numbers, 1);\n  print(numbers, 2);",
    };
    // Its name and comment are its own, or it would be a duplicate of a file that came through.
    let comment = "Prints each of the numbers twice, on lines of their own.";
    function(language, body).replace("total", "show").replace("Adds all of the numbers.", comment)
}

fn extension(language: Language) -> &'static str {
    match language {
        Language::TypeScript => "ts",
        Language::JavaScript => "js",
        Language::Python => "py",
        Language::Java => "java",
        Language::Cpp => "cpp",
        Language::Rust => "rs",
    }
}

/// Curates the texts as files of one corpus, with a good file last, and returns the counts.
fn curate(folder: &Path, language: Language, texts: &[String]) -> CurationCounts {
    let end = extension(language);
    let good = good_file(language);
    let lines = texts.iter().chain([&good]).enumerate();
    let lines =
        lines.map(|(i, text)| json!({ "path": format!("f{i}.{end}"), "content": text }).to_string() + "\n");
    let corpus = folder.join("corpus.jsonl");
    std::fs::write(&corpus, lines.collect::<String>()).unwrap();
    let problems = folder.join("problems.jsonl");
    let problem = json!({
        "name": "p", "language": end, "tests": "assert(f(12, 'a b') == [3, 4])",
        "prompt": "/** Says which words are in both of the two given texts, in order. */",
        "solution": texts.first(),
    });
    std::fs::write(&problems, problem.to_string() + "\n").unwrap();
    let options = CurateOptions {
        paths: vec![corpus],
        languages: vec![language],
        against: vec![problems],
        near_duplicate_threshold: Some(0.9),
        styles: InstructionStyle::ALL.to_vec(),
        context: true,
        ..CurateOptions::default()
    };
    let (rows, counts) = run(&options, &|_, _| ()).unwrap();
    // Where a text before it has the same function, that one is kept.
    assert!(rows.iter().any(|row| row.output.contains("show")), "{language:?}: {:?}", counts.dropped);
    assert_eq!(counts.read, counts.kept + counts.dropped.values().sum::<usize>());
    counts
}

/// Deep and long files of every shape, `n` times.
fn deep_files(language: Language, n: usize) -> Vec<String> {
    let nested = |(open, middle, close): (String, String, String)| {
        let text = format!("{}{middle}{}", open.repeat(n), close.repeat(n));
        [text.clone(), function(language, &text)]
    };
    shapes(language).into_iter().flat_map(nested).collect()
}

fn full() -> bool {
    std::env::var_os("CODELSI_FULL").is_some()
}

#[test]
fn deep_and_long_files_end_no_curation() {
    let folder = tempfile::tempdir().unwrap();
    let sizes: &[usize] = if full() { &[600, 4_000, 20_000, 60_000] } else { &[600] };
    for language in Language::ALL {
        for &n in sizes {
            for text in deep_files(language, n) {
                let started = Instant::now();
                curate(folder.path(), language, std::slice::from_ref(&text));
                let limit = Duration::from_secs(if full() { 120 } else { 60 });
                let start: String = text.chars().take(60).collect();
                if started.elapsed() > Duration::from_millis(500) {
                    eprintln!("{language:?}, {n} times: {:?} for {start}", started.elapsed());
                }
                assert!(started.elapsed() < limit, "{language:?}, {n} times: {start}");
            }
        }
    }
}

/// A generator of random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }
}

/// A source with some of its parts removed, repeated, moved, or replaced by parts of the shapes.
fn mutated(random: &mut Random, language: Language, source: &str) -> String {
    let shapes = shapes(language);
    let mut text: Vec<char> = source.chars().collect();
    for _ in 0..1 + random.below(8) {
        let from = random.below(text.len());
        let to = (from + random.below(40)).min(text.len());
        let part: Vec<char> = text[from..to].to_vec();
        match random.below(5) {
            0 => drop(text.drain(from..to)),
            1 => {
                let copies = part.repeat(1 + random.below(60));
                text.splice(from..to, copies);
            }
            2 => {
                let at = random.below(text.len());
                text.splice(at..at, part);
            }
            3 => {
                let (open, middle, close) = random.pick(&shapes);
                let n = 1 + random.below(200);
                let nest = format!("{}{middle}{}", open.repeat(n), close.repeat(n));
                text.splice(from..from, nest.chars());
            }
            _ => {
                let odd = ['\0', '\u{feff}', '\u{202e}', '\r', '\t', '😀', '"', '\'', '`', '\\', '<', '{'];
                text.splice(from..to, [*random.pick(&odd)]);
            }
        }
    }
    text.into_iter().collect()
}

#[test]
fn broken_files_end_no_curation() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (rounds, files) = if full() { (4_000, 250) } else { (2, 60) };
    for round in 0..rounds {
        let language = *random.pick(&Language::ALL);
        let language = if full() { language } else { Language::ALL[(3 * round) % 6] };
        let texts: Vec<String> =
            (0..files).map(|_| mutated(&mut random, language, &good_file(language).repeat(2))).collect();
        let started = Instant::now();
        curate(folder.path(), language, &texts);
        assert!(started.elapsed() < Duration::from_secs(60), "{language:?}, round {round}");
    }
}

#[test]
fn a_deep_file_keeps_its_other_items_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let deep = function(Language::TypeScript, &format!("return a{};", ".b(c)".repeat(4_000)));
    let union = format!("type Icon = 'a0'{};\n", " | 'icon'".repeat(7_000));
    let counts =
        curate(folder.path(), Language::TypeScript, &[deep, union + &good_file(Language::TypeScript)]);
    assert_eq!(counts.dropped.get("too-deep"), Some(&1), "{:?}", counts.dropped);
    assert_eq!(counts.dropped.get("duplicate"), Some(&1), "the function below the union was read");
}

/// Deep and long text before a function, in its body, and in its example.
#[test]
fn deep_and_long_files_end_no_making_of_problems() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.jsonl");
    let documented = |name: &str, example: &str, body: &str| {
        format!(
            "/** Doubles.\n * @example\n * {example}\n */\nfunction {name}(n: number) {{\n  {body}\n  return 2 * n;\n}}\n"
        )
    };
    let good = documented("twice", "twice(2) // => 4", "");
    let sizes: &[usize] = if full() { &[600, 4_000, 20_000] } else { &[600] };
    for (n, (open, middle, close)) in
        sizes.iter().flat_map(|n| shapes(Language::TypeScript).into_iter().map(move |shape| (n, shape)))
    {
        let text = format!("{}{middle}{}", open.repeat(*n), close.repeat(*n));
        let comment = text.replace("*/", "").replace('\n', "\n * ");
        let files = [
            format!("{text}\n{good}"),
            documented("body", "body(2) // => 4", &text),
            documented("call", &format!("call({comment}) // => 4"), ""),
            documented("value", &format!("value(2) // => {comment}"), ""),
            good.clone(),
        ];
        let lines = files.iter().enumerate();
        let lines =
            lines.map(|(i, text)| json!({ "path": format!("f{i}.ts"), "content": text }).to_string() + "\n");
        std::fs::write(&corpus, lines.collect::<String>()).unwrap();
        let started = Instant::now();
        let (problems, counts) = make_problems(std::slice::from_ref(&corpus)).unwrap();
        assert!(problems.iter().any(|problem| problem.name.ends_with(":twice")), "{counts:?}");
        let dropped = counts.dropped.values().sum::<usize>() - counts.unread.len();
        assert_eq!(counts.functions, problems.len() + dropped, "{counts:?}");
        if started.elapsed() > Duration::from_millis(500) {
            eprintln!("{n} times: {:?} for {open}{middle}{close}", started.elapsed());
        }
        let limit = Duration::from_secs(if full() { 120 } else { 60 });
        assert!(started.elapsed() < limit, "{n} times: {open}{middle}{close}");
    }
}
