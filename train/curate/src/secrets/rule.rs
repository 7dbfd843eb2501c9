//! One rule: the form of a secret, its entropy, and what is none in spite of the form.

use regex::bytes::{Captures, Regex};
use std::collections::BTreeMap;

/// A secret that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The name of the rule.
    pub rule: String,
    /// Byte offset at which the match starts in the text.
    pub at: usize,
}

/// Rules in their order, and the allow-lists of all of them.
#[derive(Debug)]
pub struct RuleSet {
    pub rules: Vec<Rule>,
    pub allow: Vec<AllowList>,
}

/// A rule, with the meaning of gitleaks.
#[derive(Debug)]
pub struct Rule {
    pub id: String,
    /// Matches ASCII classes, as RE2 does.
    pub regex: Regex,
    /// The group of the secret; 0 is the first that took part, or else the match.
    pub group: usize,
    /// Minimum Shannon entropy of the secret in bits per character, exclusive.
    pub entropy: f64,
    /// The text holds one of these in any case, unless there are none.
    pub keywords: Vec<String>,
    /// Restricts the rule to files with such a path.
    pub path: Option<Regex>,
    pub allow: Vec<AllowList>,
}

/// Secrets that are none.
#[derive(Debug, Default)]
pub struct AllowList {
    pub regexes: Vec<Regex>,
    pub target: Target,
    /// Words in the secret, in lower case.
    pub stopwords: Vec<String>,
    pub paths: Vec<Regex>,
    /// True if each of regexes, stop words and paths must apply, where given, instead of one.
    pub all: bool,
}

/// The text that the regexes of an allow-list are held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    #[default]
    Secret,
    Match,
    Line,
}

impl RuleSet {
    /// The first secret in a text, by the first rule that finds one.
    pub fn find(&self, path: &str, text: &str) -> Option<Secret> {
        let lower = text.to_lowercase();
        let applies = |rule: &&Rule| {
            let here = rule.path.as_ref().is_none_or(|allowed| allowed.is_match(path.as_bytes()));
            here && (rule.keywords.is_empty() || rule.keywords.iter().any(|word| lower.contains(word)))
        };
        self.rules.iter().filter(applies).find_map(|rule| rule.find(path, text.as_bytes(), &self.allow))
    }
}

impl Rule {
    /// The first secret of this rule in a text; `general` are the allow-lists of all rules.
    pub fn find(&self, path: &str, text: &[u8], general: &[AllowList]) -> Option<Secret> {
        self.regex.captures_iter(text).find_map(|found| {
            let whole = found.get(0)?;
            let secret = self.secret(&found)?;
            let random = self.entropy == 0.0 || entropy(&secret) > self.entropy;
            let line = line_of(text, whole.start(), whole.end());
            let texts = |target| match target {
                Target::Secret => secret.as_bytes(),
                Target::Match => whole.as_bytes(),
                Target::Line => line,
            };
            let allowed = |list: &AllowList| list.allows(path, &secret, texts);
            let passes = random && !general.iter().chain(&self.allow).any(allowed);
            passes.then(|| Secret { rule: self.id.clone(), at: whole.start() })
        })
    }

    fn secret(&self, found: &Captures) -> Option<String> {
        let first = || (1..found.len()).find_map(|i| found.get(i).filter(|group| !group.is_empty()));
        let group = match self.group {
            0 => first().or_else(|| found.get(0)),
            group => found.get(group),
        };
        Some(String::from_utf8_lossy(group?.as_bytes()).into_owned())
    }
}

impl AllowList {
    fn allows<'t>(&self, path: &str, secret: &str, text: impl Fn(Target) -> &'t [u8]) -> bool {
        let lower = secret.to_lowercase();
        let checks = [
            (self.regexes.is_empty(), self.regexes.iter().any(|regex| regex.is_match(text(self.target)))),
            (self.stopwords.is_empty(), self.stopwords.iter().any(|word| lower.contains(word))),
            (self.paths.is_empty(), self.paths.iter().any(|regex| regex.is_match(path.as_bytes()))),
        ];
        let mut given = checks.into_iter().filter(|(absent, _)| !absent).map(|(_, holds)| holds).peekable();
        given.peek().is_some() && if self.all { given.all(|holds| holds) } else { given.any(|holds| holds) }
    }
}

/// The line or lines around a match.
fn line_of(text: &[u8], start: usize, end: usize) -> &[u8] {
    let before = text[..start].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let after = text[end..].iter().position(|b| *b == b'\n').map_or(text.len(), |at| end + at);
    &text[before..after]
}

/// Shannon entropy in bits per character.
fn entropy(text: &str) -> f64 {
    let n = text.chars().count() as f64;
    let mut counts = BTreeMap::new();
    text.chars().for_each(|c| *counts.entry(c).or_insert(0.0f64) += 1.0);
    counts.values().map(|&count| -count / n * (count / n).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_bits_per_character() {
        assert_eq!((entropy("aaaa"), entropy("abab"), entropy("abcd")), (0.0, 1.0, 2.0));
    }
}
