//! Each language: a file with every form of declaration, and the items extracted from it.

use super::*;

/// Name, noun, signature and comment of every item.
fn heads(language: Language, path: &str, text: &str) -> Vec<String> {
    let items = extract_items(text, language, path).unwrap();
    assert!(items.iter().all(|item| !item.broken), "{items:#?}");
    let line = |i: &Item| format!("{} | {} | {} | {}", i.name, i.noun, i.signature, i.comment);
    items.iter().map(line).collect()
}

fn code_of(language: Language, text: &str, name: &str) -> String {
    let items = extract_items(text, language, "").unwrap();
    items.into_iter().find(|item| item.name == name).expect("an item of this name").code
}

const JAVASCRIPT: &str = r#"
const fs = require('fs');

/** Adds. */
export default async function add(a, b = 1) {
  return a + b;
}

// Doubles.
const double = x => 2 * x;

/** A stack. */
class Stack extends Base {
  static #size = 0;

  /** Adds one. */
  static push(item) {
    this.items.push(item);
  }

  get top() {
    return this.items.at(-1);
  }

  on = () => {};
}
"#;

#[test]
fn javascript() {
    let expected = [
        "add | async function | add(a, b = 1) | /** Adds. */",
        "double | function | double(x) | // Doubles.",
        "Stack | class | Stack extends Base | /** A stack. */",
        "Stack.push | static method | push(item) | /** Adds one. */",
        "Stack.top | getter | top() | ",
        "Stack.on | method | on() | ",
    ];
    assert_eq!(heads(Language::JavaScript, "a.js", JAVASCRIPT), expected);
    assert!(code_of(Language::JavaScript, JAVASCRIPT, "add").starts_with("async function add(a, b = 1) {\n"));
}

const PYTHON: &str = r#"
"""About the module."""
import functools

# Adds
# two.
def add(a: int, b=1, *args: int, key: str = "k") -> int:
    return a + b


@functools.cache
async def fetch(url):
    """Fetches.

    And keeps.
    """
    # Not documentation.
    return await get(url)


class Stack(Base):
    """A stack."""

    limit = 3

    def __init__(self):
        '''Starts empty.'''
        self.items = []

    @staticmethod
    def of(*items):
        """Of these."""
        return Stack(items)

    @property
    def size(self) -> int: return len(self.items)

    class Inner:
        def only(self):
            """Nothing but words."""


def outer():
    def inner():
        pass
    return inner
"#;

#[test]
fn python() {
    let expected = [
        "add | function | add(a: int, b=1, *args: int, key: str = \"k\") -> int | # Adds\n# two.",
        "fetch | async function | fetch(url) | \"\"\"Fetches.\n\n    And keeps.\n    \"\"\"",
        "Stack | class | Stack(Base) | \"\"\"A stack.\"\"\"",
        "Stack.__init__ | method | __init__(self) | '''Starts empty.'''",
        "Stack.of | static method | of(*items) | \"\"\"Of these.\"\"\"",
        "Stack.size | property | size(self) -> int | ",
        "Inner | class | Inner | ",
        "Inner.only | method | only(self) | \"\"\"Nothing but words.\"\"\"",
        "outer | function | outer() | ",
    ];
    assert_eq!(heads(Language::Python, "a.py", PYTHON), expected);
    let code = |name| code_of(Language::Python, PYTHON, name);
    let fetch =
        "@functools.cache\nasync def fetch(url):\n    # Not documentation.\n    return await get(url)";
    assert_eq!(code("fetch"), fetch);
    assert_eq!(code("Stack.of"), "@staticmethod\ndef of(*items):\n    return Stack(items)");
    assert!(code("Stack").starts_with("class Stack(Base):\n\n    limit = 3\n"), "{}", code("Stack"));
    assert_eq!(code("Inner.only"), "def only(self):\n    ...");
}

const JAVA: &str = r#"
package a.b;

import java.util.List;

/** A stack. */
@Deprecated
public final class Stack<T> extends Base<T> implements Iterable<T> {
    private final List<T> items;

    /** Of these. */
    public Stack(List<T> items) {
        this.items = items;
    }

    /**
     * Makes one.
     */
    @SafeVarargs
    public static <T> Stack<T> of(T... items) throws IOException {
        return new Stack<>(List.of(items));
    }

    abstract void off();

    // The size now.
    int size() { return items.size(); }

    /** Ways. */
    static enum Way {
        UP, DOWN;

        /** The other. */
        Way other() { return this == UP ? DOWN : UP; }
    }

    /** A point. */
    record Point(int x, int y) {
        /** Sum. */
        int sum() { return x + y; }
    }
}

interface Shape {
    /** Its area. */
    default double area() { return 0; }
    double rim();
}
"#;

#[test]
fn java() {
    let expected = [
        "Stack | class | Stack<T> extends Base<T> implements Iterable<T> | /** A stack. */",
        "Stack.Stack | constructor | Stack(List<T> items) | /** Of these. */",
        "Stack.of | static method | <T> Stack<T> of(T... items) throws IOException | /**\n     * Makes one.\n     */",
        "Stack.size | method | int size() | // The size now.",
        "Way | static enum | Way | /** Ways. */",
        "Way.other | method | Way other() | /** The other. */",
        "Point | record | Point(int x, int y) | /** A point. */",
        "Point.sum | method | int sum() | /** Sum. */",
        "Shape | interface | Shape | ",
        "Shape.area | method | double area() | /** Its area. */",
    ];
    assert_eq!(heads(Language::Java, "A.java", JAVA), expected);
    let of = "@SafeVarargs\npublic static <T> Stack<T> of(T... items) throws IOException {\n    return new Stack<>(List.of(items));\n}";
    assert_eq!(code_of(Language::Java, JAVA, "Stack.of"), of);
}

const CPP: &str = r#"
#ifndef A_H
#define A_H
#include <vector>

namespace a {

/// Adds
/// two.
static int add(int a, int b) {
  return a + b;
}

/**
 * The larger.
 */
template <typename T>
const T& larger(const T& a, const T& b) {
  return a < b ? b : a;
}

//! A stack.
template <typename T>
class Stack : public Base<T> {
 public:
  /// Starts with these.
  explicit Stack(std::vector<T> items) : items_(std::move(items)) {}
  ~Stack() { clear(); }

  Stack(const Stack&) = delete;
  int size() const;

  // Whether it is empty.
  virtual bool empty() const { return items_.empty(); }

  bool operator==(const Stack& o) const { return items_ == o.items_; }

  /// A part.
  struct Part {
    int x;
  };

 private:
  std::vector<T> items_;
};

}  // namespace a

/* Its size. */
int a::Stack<int>::size() const {
  return items_.size();
}

char *name(void) { return 0; }

#endif
"#;

#[test]
fn cpp() {
    let expected = [
        "add | static function | int add(int a, int b) | /// Adds\n/// two.",
        "larger | function | template <typename T> const T& larger(const T& a, const T& b) | /**\n * The larger.\n */",
        "Stack | class | Stack : public Base<T> | //! A stack.",
        "Stack.Stack | constructor | explicit Stack(std::vector<T> items) | /// Starts with these.",
        "Stack.~Stack | method | ~Stack() | ",
        "Stack.empty | method | virtual bool empty() const | // Whether it is empty.",
        "Stack.operator== | method | bool operator==(const Stack& o) const | ",
        "Part | struct | Part | /// A part.",
        "Stack.size | method | int a::Stack<int>::size() const | /* Its size. */",
        "name | function | char *name(void) | ",
    ];
    assert_eq!(heads(Language::Cpp, "a.h", CPP), expected);
    let code = |name| code_of(Language::Cpp, CPP, name);
    assert_eq!(code("Part"), "struct Part {\n  int x;\n};");
    assert!(code("Stack").starts_with("template <typename T>\nclass Stack") && code("Stack").ends_with("};"));
    assert!(code("larger").starts_with("template <typename T>\nconst T& larger"));
}

const RUST: &str = r#"
//! About the module.

use std::fmt;

/// Adds
/// two.
#[inline]
pub fn add<T: Add>(a: T, b: T) -> T
where
    T: Copy,
{
    a + b
}

/// A stack.
#[derive(Debug)]
pub struct Stack<T> {
    items: Vec<T>,
}

pub struct Unit;

/** Ways. */
enum Way {
    Up,
    Down,
}

impl<T> Stack<T> {
    /// Starts empty.
    pub const fn new() -> Self {
        Stack { items: Vec::new() }
    }

    // Adds one.
    pub(crate) unsafe fn push(&mut self, item: T) {
        self.items.push(item);
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "way")
    }
}

/// Has an area.
pub trait Shape {
    fn rim(&self) -> f64;

    /// Its area.
    fn area(&self) -> f64 {
        0.0
    }
}

mod inner {
    /// Waits.
    pub async fn wait() {}
}
"#;

#[test]
fn rust() {
    let expected = [
        "add | function | add<T: Add>(a: T, b: T) -> T where T: Copy | /// Adds\n/// two.",
        "Stack | struct | Stack<T> | /// A stack.",
        "Way | enum | Way | /** Ways. */",
        "Stack.new | const method | new() -> Self | /// Starts empty.",
        "Stack.push | unsafe method | push(&mut self, item: T) | // Adds one.",
        "Way.fmt | method | fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result | ",
        "Shape | trait | Shape | /// Has an area.",
        "Shape.area | method | area(&self) -> f64 | /// Its area.",
        "wait | async function | wait() | /// Waits.",
    ];
    assert_eq!(heads(Language::Rust, "a.rs", RUST), expected);
    let code = |name| code_of(Language::Rust, RUST, name);
    assert!(code("add").starts_with("#[inline]\npub fn add<T: Add>"), "{}", code("add"));
    assert_eq!(code("Stack"), "#[derive(Debug)]\npub struct Stack<T> {\n    items: Vec<T>,\n}");
}

/// Truncated or nonsensical files give broken items or none, in every language.
#[test]
fn text_that_cannot_be_parsed_is_broken() {
    for (language, text) in [
        (Language::JavaScript, "function f( {\n  return 1;\n}"),
        (Language::Python, "def f(a:\n    return 1\n"),
        (Language::Java, "class A {\n  int f( {\n    return 1;\n  }\n}"),
        (Language::Cpp, "int f(int a) {\n  return (1;\n}"),
        (Language::Rust, "fn f(a: {\n    1\n}"),
    ] {
        let items = extract_items(text, language, "").unwrap();
        assert!(items.iter().all(|item| item.broken), "{language:?}: {items:?}");
    }
}
