//! Fingerprints of text that survive reformatting and renaming: hashed n-grams of words and of syntax tokens.

use crate::language::Language;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Words in an n-gram of prose.
pub const NGRAM_WORDS: usize = 10;
/// Minimum words of a description that is indexed as one n-gram.
pub const MIN_DESCRIPTION_WORDS: usize = 6;
/// Tokens in an n-gram of examples.
pub const NGRAM_TOKENS: usize = 20;
/// Minimum distinct words and literals of an n-gram; with fewer it identifies nothing.
const MIN_DISTINCT_WORDS: usize = 5;
const MIN_DISTINCT_LITERALS: usize = 4;

/// A lexical token of any of the languages. Tokenization ignores grammar, so that it also reads examples in comments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SyntaxToken<'a> {
    Word(&'a str),
    /// A number in normal form (`1.0` is `1`), or a string without its quotes.
    Literal(String),
    Punctuation(char),
}

/// Splits text into tokens; `=>` is one token, so that angle brackets are balanced.
pub fn tokenize(text: &str) -> Vec<SyntaxToken<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            c if c.is_whitespace() => c.len_utf8(),
            c if is_identifier_char(c) && !c.is_ascii_digit() => {
                let end = rest.find(|c| !is_identifier_char(c)).unwrap_or(rest.len());
                tokens.push(SyntaxToken::Word(&rest[..end]));
                end
            }
            c if c.is_ascii_digit() => {
                let end = number_length(rest);
                let value = rest[..end].parse().map_or(rest[..end].to_string(), |v: f64| v.to_string());
                tokens.push(SyntaxToken::Literal(value));
                end
            }
            quote @ ('"' | '\'') => match string_length(rest, quote) {
                Some(end) => {
                    tokens.push(SyntaxToken::Literal(rest[1..end - 1].to_string()));
                    end
                }
                None => 1,
            },
            '=' if rest.starts_with("=>") => {
                tokens.push(SyntaxToken::Punctuation('⇒'));
                2
            }
            mark => {
                tokens.push(SyntaxToken::Punctuation(mark));
                mark.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// Returns whether a character may be part of an identifier.
pub fn is_identifier_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The length of a number. A point belongs to it only before a digit: `3.` ends a sentence.
fn number_length(text: &str) -> usize {
    let digits = |t: &str| t.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(t.len());
    let whole = digits(text);
    match text[whole..].strip_prefix('.').filter(|f| f.starts_with(|c: char| c.is_ascii_digit())) {
        Some(fraction) => whole + 1 + digits(fraction),
        None => whole,
    }
}

/// The length of a quoted string that ends on its line; an apostrophe in prose does not open one.
fn string_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The name and parameters of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionHead {
    pub name: String,
    pub params: Vec<String>,
    /// The type of each parameter; empty if none is written.
    pub types: Vec<String>,
}

impl FunctionHead {
    /// Reads the head of the function `name`, or of the last function if no name is given.
    pub fn find(tokens: &[SyntaxToken], name: Option<&str>, language: Language) -> Option<FunctionHead> {
        let at = match name {
            Some(name) => tokens.iter().position(|t| *t == SyntaxToken::Word(name))?,
            None => last_name(tokens, language)?,
        };
        let Some(SyntaxToken::Word(name)) = tokens.get(at) else {
            return None;
        };
        let open = at + tokens[at..].iter().take(40).position(|t| *t == SyntaxToken::Punctuation('('))?;
        let params: Vec<&[SyntaxToken]> = split_at_commas(&tokens[open + 1..]);
        let params = params.into_iter().map(|param| read_param(param, language));
        let (params, types): (Vec<_>, Vec<_>) =
            params.filter(|(name, _)| !matches!(name.as_deref(), Some("self" | "cls"))).unzip();
        Some(FunctionHead { name: name.to_string(), params: params.into_iter().flatten().collect(), types })
    }

    /// The lookup key: the name without case and underscores (`__add__` keeps them), and the number of parameters.
    pub fn key(&self) -> (String, usize) {
        let name = if self.name.starts_with("__") { self.name.clone() } else { self.name.replace('_', "") };
        (name.to_lowercase(), self.types.len())
    }
}

/// The index of the name of the last function: after its keyword, or before the last pair of parentheses.
fn last_name(tokens: &[SyntaxToken], language: Language) -> Option<usize> {
    match language.table().function_word {
        "" => {
            let close = tokens.iter().rposition(|t| *t == SyntaxToken::Punctuation(')'))?;
            let mut depth = 0;
            let open = (0..=close).rev().find(|&at| {
                depth += match tokens[at] {
                    SyntaxToken::Punctuation(')') => 1,
                    SyntaxToken::Punctuation('(') => -1,
                    _ => 0,
                };
                depth == 0
            })?;
            open.checked_sub(1)
        }
        word => Some(1 + tokens.iter().rposition(|t| *t == SyntaxToken::Word(word))?),
    }
}

/// The name and type of a parameter: `name: type = value`, or `type name = value`.
fn read_param(param: &[SyntaxToken], language: Language) -> (Option<String>, String) {
    let word = |t: &SyntaxToken| match t {
        SyntaxToken::Word("mut") => None,
        SyntaxToken::Word(word) => Some(word.to_string()),
        _ => None,
    };
    let value = param.iter().position(|t| *t == SyntaxToken::Punctuation('=')).unwrap_or(param.len());
    if language.table().function_word.is_empty() {
        let declared = &param[..value];
        let name = declared.iter().rposition(|t| word(t).is_some()).unwrap_or(0);
        return (declared.get(name).and_then(word), declared.iter().take(name).map(unqualified).collect());
    }
    let colon = param.iter().position(|t| *t == SyntaxToken::Punctuation(':')).unwrap_or(param.len());
    let kind = param[colon..].iter().skip(1).take_while(|t| **t != SyntaxToken::Punctuation('='));
    let kind = kind.map(|t| if language == Language::TypeScript { spelled(t) } else { unqualified(t) });
    (param[..colon].iter().find_map(word), kind.collect())
}

/// A token of a type without qualifiers (`const`, `&`, `std::`).
fn unqualified(token: &SyntaxToken) -> String {
    match token {
        SyntaxToken::Word("const" | "final" | "mut" | "std" | "typing")
        | SyntaxToken::Punctuation('&' | ':' | '.' | '\'') => String::new(),
        SyntaxToken::Word(word) => word.to_lowercase(),
        other => spelled(other),
    }
}

/// Splits the rest of a parenthesis at its commas.
fn split_at_commas<'t, 'a>(tokens: &'t [SyntaxToken<'a>]) -> Vec<&'t [SyntaxToken<'a>]> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            SyntaxToken::Punctuation('(' | '[' | '{' | '<') => depth += 1,
            SyntaxToken::Punctuation(')') if depth == 0 => {
                parts.push(&tokens[start..at]);
                break;
            }
            SyntaxToken::Punctuation(')' | ']' | '}' | '>') => depth -= 1,
            SyntaxToken::Punctuation(',') if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn spelled(token: &SyntaxToken) -> String {
    match token {
        SyntaxToken::Word(word) => word.to_string(),
        SyntaxToken::Literal(value) => format!("{value:?}"),
        SyntaxToken::Punctuation(mark) => mark.to_string(),
    }
}

/// The words of a text in lower case; the names of `head`, if given, are blanked.
pub fn words(text: &str, head: Option<&FunctionHead>) -> Vec<String> {
    let blank = |word: &str| head.is_some_and(|h| h.name == word || h.params.iter().any(|p| p == word));
    text.split(|c| !is_identifier_char(c))
        .filter(|word| !word.is_empty())
        .map(|word| if blank(word) { "_".to_string() } else { word.to_lowercase() })
        .collect()
}

/// Syntax tokens with blanked identifiers. Punctuation of comments and doctests is left out, so that an example is the
/// same in any of them.
pub fn blanked_tokens(text: &str) -> Vec<SyntaxToken<'_>> {
    tokenize(text)
        .into_iter()
        .filter(|t| !matches!(t, SyntaxToken::Punctuation('/' | '*' | '>' | '#' | '`' | ';' | '⇒')))
        .map(|t| match t {
            SyntaxToken::Word("true" | "false" | "null" | "undefined") => t,
            SyntaxToken::Word(_) => SyntaxToken::Word("_"),
            other => other,
        })
        .collect()
}

/// The hashes of the `n`-grams of `items` that satisfy `is_distinctive`.
pub fn ngram_hashes<T: Hash>(
    items: &[T],
    n: usize,
    is_distinctive: impl Fn(&[T]) -> bool,
) -> impl Iterator<Item = u64> {
    items.windows(n).filter(move |ngram| is_distinctive(ngram)).map(hash)
}

/// Returns whether an n-gram of prose has enough distinct words to identify a problem.
pub fn is_distinctive_prose(gram: &[String]) -> bool {
    let letters = gram.iter().filter(|w| w.len() > 1 && w.chars().all(char::is_alphabetic));
    letters.collect::<HashSet<_>>().len() >= MIN_DISTINCT_WORDS
}

/// Returns whether an n-gram of tokens uses a name with enough distinct literals to identify an example.
pub fn is_distinctive_example(gram: &[SyntaxToken]) -> bool {
    let literals: HashSet<_> = gram.iter().filter(|t| matches!(t, SyntaxToken::Literal(_))).collect();
    literals.len() >= MIN_DISTINCT_LITERALS && gram.contains(&SyntaxToken::Word("_"))
}

fn hash<T: Hash>(gram: &[T]) -> u64 {
    let mut hasher = DefaultHasher::new();
    gram.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_in_any_form() {
        let types = |text: &str, name: Option<&str>| {
            FunctionHead::find(&tokenize(text), name, Language::TypeScript).unwrap()
        };
        let head = types("//f\nfunction close_to(xs: number[], limit: number): boolean {\n", None);
        assert_eq!(
            (head.params.join(" "), head.types.join(" ")),
            ("xs limit".into(), "number[] number".into())
        );
        let arrow =
            types("const closeTo = <T,>(\n  a: number[],\n  b: number = 1,\n) => a;", Some("closeTo"));
        assert_eq!((arrow.key(), &arrow.types), (head.key(), &head.types));
        let typed = types("function f(g: (a: Map<A, B>) => C, b?: { c: d }) {}", Some("f"));
        assert_eq!(typed.types, ["(a:Map<A,B>)⇒C", "{c:d}"]);
        assert_eq!(types("function f() {}", Some("f")).types, Vec::<String>::new());
    }

    #[test]
    fn heads_of_every_language_are_found() {
        for (language, prompt) in [
            (Language::JavaScript, "// The function is\nfunction close_to(xs, limit){\n"),
            (
                Language::Python,
                "def close_to(xs: List[float], limit: float) -> bool:\n    \"\"\"A function (def).\"\"\"\n",
            ),
            (
                Language::Java,
                "// >>> closeTo((1), (2))\npublic static boolean closeTo(final ArrayList<Float> xs, float limit) {\n",
            ),
            (
                Language::Cpp,
                "// >>> closeTo((1), (2))\nbool closeTo(const std::vector<float>& xs, float limit = 1) {\n",
            ),
            (Language::Rust, "/// A fn\nfn close_to(mut xs: &Vec<f64>, limit: f64) -> bool {\n"),
        ] {
            let head = FunctionHead::find(&tokenize(prompt), None, language).unwrap();
            assert_eq!(
                (head.key(), head.params.join(" ")),
                (("closeto".into(), 2), "xs limit".into()),
                "{language:?}"
            );
            let types = match language {
                Language::JavaScript => ["", ""],
                Language::Python => ["list[float]", "float"],
                Language::Java => ["arraylist<float>", "float"],
                Language::Cpp => ["vector<float>", "float"],
                _ => ["vec<f64>", "f64"],
            };
            assert_eq!(head.types, types, "{language:?}");
        }
        let method =
            FunctionHead::find(&tokenize("def f(self, a): pass"), Some("f"), Language::Python).unwrap();
        assert_eq!(method.params, ["a"]);
    }

    #[test]
    fn numbers_and_strings_have_a_normal_form() {
        let literal = |s: &str| SyntaxToken::Literal(s.to_string());
        assert_eq!(
            tokenize("1.0 'a b' don't 3."),
            [
                literal("1"),
                literal("a b"),
                SyntaxToken::Word("don"),
                SyntaxToken::Word("t"),
                literal("3"),
                SyntaxToken::Punctuation('.')
            ]
        );
    }

    #[test]
    fn examples_match_under_other_names_and_markers_but_not_with_other_values() {
        let grams = |text| {
            ngram_hashes(&blanked_tokens(text), NGRAM_TOKENS, is_distinctive_example).collect::<HashSet<_>>()
        };
        let a = grams("// >>> close_to([1.0, 2.5, 3.0], 0.5)\n// false\n// >>> close_to([7], 8)\n// true");
        let b = grams("/**\n * closeTo([1, 2.5, 3], 0.5)\n * false\n * closeTo([7], 8)\n * true */");
        let c = grams("/**\n * closeTo([1, 2.5, 4], 0.5)\n * false\n * closeTo([7], 9)\n * true */");
        assert!(!a.is_disjoint(&b));
        assert!(a.is_disjoint(&c));
    }
}
