//! Detection of secrets and personal data: keys, tokens, passwords, e-mail addresses.
//!
//! The rules are data: `rules.toml` holds our own, and a file in gitleaks' format adds more ([`rule_file`]). A secret has
//! the form of a rule, is random enough for it, and is on none of its allow-lists ([`rule`]).

mod re2;
mod rule;
mod rule_file;

use codelsi_engine::Result;
use rule::{RuleSet, Secret};
use std::path::Path;
use std::sync::LazyLock;

/// Our own rules.
static OWN: LazyLock<RuleSet> = LazyLock::new(|| {
    let (rules, ignored) =
        rule_file::parse(include_str!("rules.toml")).expect("our own rules are well formed");
    assert!(ignored.is_empty(), "{ignored:?}");
    rules
});

/// The rules of a run: our own, and those of a file.
#[derive(Default)]
pub struct SecretRules {
    more: Option<RuleSet>,
    /// The rules of the file that are not taken, each with the cause.
    pub ignored: Vec<String>,
}

impl SecretRules {
    /// Our own rules, and those of a file in gitleaks' format.
    ///
    /// # Errors
    /// When the file cannot be read, is not in that format, or holds no rule that is taken.
    pub fn open(file: Option<&Path>) -> Result<SecretRules> {
        let Some(file) = file else { return Ok(SecretRules::default()) };
        let (rules, ignored) = rule_file::read(file)?;
        Ok(SecretRules { more: Some(rules), ignored })
    }

    /// The first secret in a text of the file `path`, by our own rules first.
    pub fn find(&self, path: &str, text: &str) -> Option<Secret> {
        OWN.find(path, text).or_else(|| self.more.as_ref()?.find(path, text))
    }
}

#[cfg(test)]
mod tests;
