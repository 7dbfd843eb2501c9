//! The guarded form of a program in a compiled language: its tests use assertions and comparisons of ours, and end by
//! printing the nonce.

use crate::problem::CandidateProgram;

/// The changes of a program; `NONCE` is replaced in each text.
pub struct Rewriting {
    /// Stands before the whole program.
    top: &'static str,
    /// Stands before the tests: restores what they use, in case the candidate has redefined it.
    prelude: &'static str,
    /// Changes the assertions of the tests.
    assertions: fn(&str) -> String,
    /// The statement that prints the nonce.
    statement: &'static str,
    /// Number of closing braces after the statement.
    closing_braces: usize,
}

impl Rewriting {
    /// Returns the guarded form of `program`.
    pub fn apply(&self, program: &CandidateProgram, nonce: &str) -> String {
        let (candidate, tests) = program.text.split_at(program.tests_at);
        let tests = (self.assertions)(tests);
        let mut end = tests.len();
        for _ in 0..self.closing_braces {
            end = tests[..end].rfind('}').unwrap_or(end);
        }
        let (tests, closing) = tests.split_at(end);
        let [top, prelude, statement] =
            [self.top, self.prelude, self.statement].map(|text| text.replace("NONCE", nonce));
        // The closing brace of the candidate's block is part of the tests.
        format!("{top}{candidate}{prelude}{tests}{statement}{closing}")
    }
}

/// The expected value's `equals` decides, not the candidate's. The nonce comes by standard input, so that no file holds it.
pub const JAVA: Rewriting = Rewriting {
    top: "",
    prelude: "",
    assertions: expected_first,
    statement: "try { java.lang.System.out.write(java.lang.System.in.readAllBytes()); java.lang.System.out.flush(); } catch (java.io.IOException e) {}\n",
    closing_braces: 2,
};

/// Assertions are a function of ours, and comparisons are made in a scope that no operator of the candidate is in: an
/// operator for its own types is found by their namespace, as it should be.
pub const CPP: Rewriting = Rewriting {
    top: "namespace guard_NONCE {
inline void check(bool holds) { if (!holds) __builtin_trap(); }
template <class T> struct Left {
  const T& value;
  explicit operator bool() const { return static_cast<bool>(value); }
  template <class U> bool operator==(const U& other) const { return value == other; }
  template <class U> bool operator!=(const U& other) const { return value != other; }
  template <class U> bool operator<(const U& other) const { return value < other; }
  template <class U> bool operator>(const U& other) const { return value > other; }
  template <class U> bool operator<=(const U& other) const { return value <= other; }
  template <class U> bool operator>=(const U& other) const { return value >= other; }
  template <class U> auto operator&(const U& other) const { return value & other; }
  template <class U> auto operator|(const U& other) const { return value | other; }
  template <class U> auto operator^(const U& other) const { return value ^ other; }
};
struct Start { template <class T> Left<T> operator<=(const T& value) const { return {value}; } };
}
",
    prelude: "
#undef assert
#define assert(...) guard_NONCE::check(static_cast<bool>(guard_NONCE::Start() <= __VA_ARGS__))
",
    assertions: unchanged,
    statement: "std::fputs(\"NONCE\", stdout);\n",
    closing_braces: 1,
};

/// The macros of the standard library, whatever macros the candidate defines.
pub const RUST: Rewriting = Rewriting {
    top: "",
    prelude: "",
    assertions: standard_macros,
    statement: "::std::print!(\"NONCE\");\n",
    closing_braces: 1,
};

fn unchanged(tests: &str) -> String {
    tests.to_string()
}

/// Puts the standard library's path before the assertion macros.
fn standard_macros(tests: &str) -> String {
    let mut text = String::with_capacity(tests.len());
    for (i, part) in tests.split("assert").enumerate() {
        let is_macro = ["_eq!", "_ne!", "!"].iter().any(|end| part.starts_with(end));
        let is_whole = !text.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if i > 0 {
            text += if is_macro && is_whole { "::std::assert" } else { "assert" };
        }
        text += part;
    }
    text
}

/// Turns `assert(a.equals(b));` into `assert(java.util.Objects.equals(b, a));`.
fn expected_first(tests: &str) -> String {
    const ASSERT: &str = "assert(";
    const EQUALS: &str = ".equals(";
    let (mut text, mut rest) = (String::new(), tests);
    while let Some(at) = rest.find(ASSERT) {
        let (before, condition) = rest.split_at(at + ASSERT.len());
        text += before;
        let end = closing_parenthesis(condition).unwrap_or(condition.len());
        let inner = &condition[..end];
        // The call that ends where the condition ends.
        let calls = inner.match_indices(EQUALS).map(|(at, _)| at);
        let last = calls.filter(|&at| {
            closing_parenthesis(&inner[at + EQUALS.len()..]) == Some(inner.len() - 1 - at - EQUALS.len())
        });
        match last.last() {
            Some(at) if !inner.starts_with('!') => {
                let (actual, expected) = (&inner[..at], &inner[at + EQUALS.len()..inner.len() - 1]);
                text += &format!("java.util.Objects.equals({expected}, {actual})");
            }
            _ => text += inner,
        }
        rest = &condition[end..];
    }
    text + rest
}

/// Returns the place of the parenthesis that closes one opened before `text`; those in literals do not count.
fn closing_parenthesis(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') if depth == 0 => return Some(i),
            (None, ')') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_value_comes_first() {
        let tests = "assert(f(\"(\").equals((new A(List.of(1l, 2l)))));\nassert(f(1) == (2l));\nassert(!f(1).equals(2));";
        let changed = "assert(java.util.Objects.equals((new A(List.of(1l, 2l))), f(\"(\")));\nassert(f(1) == (2l));\nassert(!f(1).equals(2));";
        assert_eq!(expected_first(tests), changed);
    }

    #[test]
    fn assertions_are_those_of_the_standard_library() {
        let tests = "assert_eq!(f(1), 2); assert!(true); my_assert!(1); ::std::assert_eq!(1, 1); // assert\n";
        let changed = "::std::assert_eq!(f(1), 2); ::std::assert!(true); my_assert!(1); ::std::assert_eq!(1, 1); // assert\n";
        assert_eq!(standard_macros(tests), changed);
    }

    #[test]
    fn the_statement_stands_behind_the_tests() {
        let program = CandidateProgram { text: "fn f() {\n}\nfn main() { test(); }\n".into(), tests_at: 9 };
        assert_eq!(RUST.apply(&program, "n"), "fn f() {\n}\nfn main() { test(); ::std::print!(\"n\");\n}\n");
    }
}
