//! The table "Promises and their tests" of ARCHITECTURE.md: every test that it names exists, and every invariant has one.

use std::path::Path;

/// A row: what is promised, and functions of the file that hold it.
struct Promise<'a> {
    text: &'a str,
    file: &'a str,
    tests: Vec<&'a str>,
}

fn architecture() -> String {
    std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Returns the text between this heading and the next.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) =
        text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap()
}

/// Reads the rows ``| promise | [path](path) `function`, .. |``.
fn promises(text: &str) -> Vec<Promise<'_>> {
    let rows =
        section(text, "Promises and their tests").lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| promise(row).unwrap_or_else(|| panic!("not a row of the table: {row}"))).collect()
}

fn promise(row: &str) -> Option<Promise<'_>> {
    let (text, tests) = row.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | [")?;
    let (file, rest) = tests.split_once("](")?;
    let (target, functions) = rest.split_once(") ")?;
    let tests: Option<Vec<&str>> =
        functions.split(", ").map(|name| name.strip_prefix('`')?.strip_suffix('`')).collect();
    (target == file).then_some(Promise { text, file, tests: tests? })
}

/// True if `source` has a test of this name: marked as one, or called by a `main` of its own.
fn has_test(source: &str, name: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {name}()")) else { return false };
    before.trim_end().ends_with("#[test]") || source.contains(&format!("    {name}();"))
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let text = architecture();
    let mut absent = Vec::new();
    for Promise { text, file, tests } in promises(&text) {
        let source = std::fs::read_to_string(workspace().join(file)).unwrap_or_default();
        let missing = tests.into_iter().filter(|name| !has_test(&source, name));
        absent.extend(missing.map(|name| format!("{text}: {file} has no test {name}")));
    }
    assert!(absent.is_empty(), "{}", absent.join("\n"));
}

#[test]
fn every_invariant_is_in_the_table() {
    let text = architecture();
    let promises = promises(&text);
    let numbered = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    let invariants: Vec<&str> = section(&text, "Invariants").lines().filter(numbered).collect();
    assert!(invariants.len() >= 11, "{invariants:?}");
    // What is absent has no test.
    for invariant in invariants.iter().filter(|invariant| !invariant.contains("Deliberately absent")) {
        let (number, _) = invariant.split_once(' ').unwrap();
        let tested = promises.iter().any(|promise| promise.text.split(' ').next() == Some(number));
        assert!(tested, "the table has no row of invariant {invariant}");
    }
}
