//! Rules in the format of gitleaks' configuration (TOML).
//!
//! A rule whose regex the `regex` crate does not take is left out by name. So is what has no meaning here: rules for paths
//! alone, rules that other rules require, `extend`.

use super::re2::to_regex_syntax;
use super::rule::{AllowList, Rule, RuleSet, Target};
use codelsi_engine::{Error, Result};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// Maximum bytes of a rule file, and of one compiled regex.
const MAX_FILE: u64 = 16 << 20;
const MAX_REGEX: usize = 32 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    rules: Vec<RuleEntry>,
    allowlist: Option<AllowEntry>,
    #[serde(default)]
    allowlists: Vec<AllowEntry>,
    extend: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleEntry {
    #[serde(default)]
    id: String,
    regex: Option<String>,
    #[serde(default)]
    secret_group: usize,
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    keywords: Vec<String>,
    path: Option<String>,
    #[serde(default)]
    required: Vec<toml::Table>,
    allowlist: Option<AllowEntry>,
    #[serde(default)]
    allowlists: Vec<AllowEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AllowEntry {
    #[serde(default)]
    regexes: Vec<String>,
    regex_target: Option<String>,
    #[serde(default)]
    stopwords: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    condition: Option<String>,
    /// The rules that a list of the file is for; all without.
    #[serde(default)]
    target_rules: Vec<String>,
}

/// Reads a rule file; also returns what of it is not taken, with the cause.
///
/// # Errors
/// When the file cannot be read, is not in the format, or holds no rule that is taken.
pub fn read(path: &Path) -> Result<(RuleSet, Vec<String>)> {
    let size = fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MAX_FILE {
        return Err(Error::io(path, "larger than 16 MiB, so no file of secret rules"));
    }
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let (rules, ignored) = parse(&text).map_err(|e| Error::io(path, e))?;
    match rules.rules.is_empty() {
        true => Err(Error::io(path, "holds no [[rules]] that can be used: give rules in gitleaks' format")),
        false => Ok((rules, ignored)),
    }
}

/// Parses the text of a rule file.
///
/// # Errors
/// When it is not in the format; names the line.
pub fn parse(text: &str) -> Result<(RuleSet, Vec<String>), String> {
    let file: File = toml::from_str(text).map_err(|e| one_line(&e))?;
    let mut ignored = Vec::new();
    if file.extend.is_some() {
        ignored.push("[extend]: only the rules of the file itself are read".to_owned());
    }
    let (mut allow, mut targeted) = (Vec::new(), Vec::new());
    for entry in file.allowlist.into_iter().chain(file.allowlists) {
        let targets = entry.target_rules.clone();
        match entry.compiled() {
            Ok(list) if targets.is_empty() => allow.push(list),
            Ok(list) => targeted.push((targets, list)),
            Err(cause) => ignored.push(format!("an allow-list of all rules: {cause}")),
        }
    }
    let mut rules: Vec<Rule> = Vec::new();
    for entry in file.rules {
        let id = entry.id.clone();
        match entry.compiled() {
            Ok(rule) => rules.push(rule),
            Err(cause) => ignored.push(format!("{id}: {cause}")),
        }
    }
    for (targets, list) in targeted {
        let rule = rules.iter_mut().find(|rule| targets.len() == 1 && rule.id == targets[0]);
        match rule {
            Some(rule) => rule.allow.push(list),
            None => ignored.push(format!("an allow-list of the rules {}", targets.join(", "))),
        }
    }
    Ok((RuleSet { rules, allow }, ignored))
}

impl RuleEntry {
    fn compiled(self) -> Result<Rule, String> {
        if self.id.is_empty() {
            return Err("the rule has no id".into());
        }
        if !self.required.is_empty() {
            return Err("it requires other rules".into());
        }
        let regex = regex(&self.regex.ok_or("it has no regex, so it is for paths alone")?)?;
        if self.secret_group >= regex.captures_len() {
            return Err(format!("its regex has no group {}", self.secret_group));
        }
        if !self.entropy.is_finite() {
            return Err(format!("its entropy is {}", self.entropy));
        }
        let allow = self.allowlist.into_iter().chain(self.allowlists).map(AllowEntry::compiled);
        Ok(Rule {
            id: self.id,
            regex,
            group: self.secret_group,
            entropy: self.entropy,
            keywords: self.keywords.iter().map(|word| word.to_lowercase()).collect(),
            path: self.path.map(|path| self::regex(&path)).transpose()?,
            allow: allow.collect::<Result<_, String>>()?,
        })
    }
}

impl AllowEntry {
    fn compiled(self) -> Result<AllowList, String> {
        let target = match self.regex_target.as_deref() {
            None | Some("" | "secret") => Target::Secret,
            Some("match") => Target::Match,
            Some("line") => Target::Line,
            Some(other) => return Err(format!("regexTarget is `{other}`")),
        };
        let all = match self.condition.as_deref().map(str::to_uppercase).as_deref() {
            None | Some("" | "OR" | "||") => false,
            Some("AND" | "&&") => true,
            Some(other) => return Err(format!("the condition of an allow-list is `{other}`")),
        };
        let regexes = |all: &[String]| all.iter().map(|text| regex(text)).collect::<Result<Vec<_>, _>>();
        Ok(AllowList {
            regexes: regexes(&self.regexes)?,
            target,
            stopwords: self.stopwords.iter().map(|word| word.to_lowercase()).collect(),
            paths: regexes(&self.paths)?,
            all,
        })
    }
}

/// A regex in RE2's syntax, with its classes: ASCII alone.
fn regex(text: &str) -> Result<Regex, String> {
    let text = to_regex_syntax(text);
    let built = |unicode| RegexBuilder::new(&text).unicode(unicode).size_limit(MAX_REGEX).build();
    // A class of other characters than ASCII needs Unicode.
    built(false).or_else(|_| built(true)).map_err(|e| format!("its regex is not taken: {}", one_line(&e)))
}

/// The last line of a message, which says what is wrong.
fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let place = text.lines().next().filter(|line| line.contains(" at line ")).unwrap_or_default();
    format!("{place} {}", lines.next_back().unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r##"
title = "some rules"
[extend]
useDefault = true
[[rules]]
id = "acme"
description = "ACME's key"
regex = '''(?i)acme[_-]?key\s*=\s*"(?P<key>[a-z0-9]{8})"'''
secretGroup = 1
entropy = 2
keywords = ["ACME"]
[[rules.allowlists]]
regexTarget = "line"
regexes = ["# example"]
[rules.allowlist]
stopwords = ["FAKE"]
[[rules]]
id = "lookahead"
regex = "a(?!b)"
[[rules]]
id = "pkcs12"
path = '''\.p12$'''
[[rules]]
id = "group"
regex = "a"
secretGroup = 2
[[allowlists]]
paths = ["^vendor/"]
"##;

    #[test]
    fn rules_mean_what_they_mean_to_gitleaks() {
        let (rules, _) = parse(FILE).unwrap();
        let finds = |path: &str, text: &str| rules.find(path, text).map(|secret| (secret.rule, secret.at));
        assert_eq!(finds("a.ts", "x\nacme_key = \"a1b2c3d4\""), Some(("acme".into(), 2)));
        assert_eq!(finds("a.ts", "acme_key = \"aaaaaaaa\""), None, "entropy");
        assert_eq!(finds("a.ts", "acme_key = \"a1b2fake\""), None, "a stop word");
        assert_eq!(finds("a.ts", "acme_key = \"a1b2c3d4\" # example"), None, "the line is allowed");
        assert_eq!(finds("vendor/a.ts", "acme_key = \"a1b2c3d4\""), None, "the path is allowed");
        assert_eq!(finds("a.ts", "key = \"a1b2c3d4\""), None, "no keyword");
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let (rules, ignored) = parse(FILE).unwrap();
        assert_eq!(rules.rules.len(), 1);
        for (named, of) in
            ["[extend]", "lookahead: its regex", "pkcs12: it has no regex", "group: its regex has no group 2"]
                .into_iter()
                .zip(&ignored)
        {
            assert!(of.contains(named), "{of}");
        }
        assert_eq!(ignored.len(), 4, "{ignored:?}");
    }

    #[test]
    fn other_files_are_refused_in_one_line() {
        for bad in ["rules = 3", "[[rules]]\nid = 7", "{", "[[rules]]\nentropy = \"high\""] {
            let message = parse(bad).unwrap_err();
            assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.toml");
        fs::write(&path, "title = 'none'").unwrap();
        assert!(read(&path).err().unwrap().to_string().contains("holds no [[rules]]"));
        assert!(read(folder.path()).is_err());
    }

    #[test]
    fn a_regex_that_grows_without_limit_is_not_taken() {
        let (_, ignored) = parse("[[rules]]\nid = 'bomb'\nregex = '(?:(?:a{1000}){1000}){1000}'").unwrap();
        assert!(ignored[0].starts_with("bomb: "), "{ignored:?}");
    }
}
