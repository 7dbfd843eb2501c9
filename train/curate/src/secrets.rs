//! Detection of secrets and personal data: keys, tokens, passwords, e-mail addresses.

use regex::RegexSet;
use std::sync::LazyLock;

/// Keys of a known format, and credentials in URLs.
static KNOWN_FORMATS: LazyLock<RegexSet> = LazyLock::new(|| {
    let patterns = [
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
        r"\bgh[opsur]_[0-9A-Za-z]{36,}\b",
        r"\bgithub_pat_[0-9A-Za-z_]{22,}\b",
        r"\bglpat-[0-9A-Za-z_-]{20,}",
        r"\bnpm_[0-9A-Za-z]{36}\b",
        r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}",
        r"\bAIza[0-9A-Za-z_-]{35}",
        r"\b(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{16,}",
        r"\bsk-(?:[a-z]+-)?[0-9A-Za-z_-]{20,}",
        r"\bhf_[0-9A-Za-z]{30,}\b",
        r"\bSG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}",
        r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
        r"://[^\s/:@'\x22`$]+:[^\s/:@'\x22`$]{3,}@",
    ];
    RegexSet::new(patterns).expect("the patterns are well formed")
});

/// A string assigned to a name such as `password`.
static NAMED_SECRET: LazyLock<regex::Regex> = LazyLock::new(|| {
    let name =
        r"(?i:passw(?:or)?d|secret|token|api_?-?key|access_?-?key|private_?-?key|credential|auth)[A-Za-z_]*";
    let pattern = format!("{name}['\"`]?\\s*(?::\\s*[A-Za-z]+\\s*)?[:=]\\s*['\"`]([^'\"`\\s]{{12,}})['\"`]");
    regex::Regex::new(&pattern).expect("the pattern is well formed")
});

static EMAIL: LazyLock<regex::Regex> = LazyLock::new(|| {
    let pattern = r"\b[0-9A-Za-z._%+-]+@([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*\.[A-Za-z]{2,})\b";
    regex::Regex::new(pattern).expect("the pattern is well formed")
});

/// Reserved domains (RFC 2606), and suffixes that are not domains (file names).
const PLACEHOLDER_DOMAINS: [&str; 10] = [
    "example.com",
    "example.net",
    "example.org",
    "test",
    "example",
    "invalid",
    "localhost",
    "ts",
    "js",
    "png",
];

/// Returns whether `text` contains a secret or a personal e-mail address.
pub fn contains_secret(text: &str) -> bool {
    KNOWN_FORMATS.is_match(text)
        || NAMED_SECRET.captures_iter(text).any(|found| is_random(&found[1]))
        || EMAIL.captures_iter(text).any(|found| !is_placeholder(&found[1]))
}

fn is_placeholder(domain: &str) -> bool {
    let domain = domain.to_lowercase();
    PLACEHOLDER_DOMAINS.iter().any(|end| domain == *end || domain.ends_with(&format!(".{end}")))
}

/// Returns whether a string looks random: mixed letters and digits, high entropy, and no word of a placeholder.
fn is_random(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let letters = text.chars().filter(char::is_ascii_alphabetic).count();
    let placeholders =
        ["example", "your", "xxxx", "test", "dummy", "placeholder", "changeme", "secret", "1234"];
    let lower = text.to_lowercase();
    digits >= 2
        && letters >= 2
        && entropy(text) > 3.0
        && !placeholders.iter().any(|word| lower.contains(word))
}

/// Shannon entropy in bits per character.
fn entropy(text: &str) -> f64 {
    let n = text.chars().count() as f64;
    let mut counts = std::collections::BTreeMap::new();
    text.chars().for_each(|c| *counts.entry(c).or_insert(0.0f64) += 1.0);
    counts.values().map(|&count| -count / n * (count / n).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joined at run time, so that secret scanners find nothing in this file.
    fn joined(parts: &[&str]) -> String {
        parts.concat()
    }

    #[test]
    fn keys_passwords_and_addresses_are_found() {
        for secret in [
            joined(&["const id = 'AKIA", "IOSFODNN7QWERTYU';"]),
            joined(&["fetch(url, { headers: { auth: 'ghp_", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8' } });"]),
            joined(&["new Client('sk-proj-", "Zx81kQ0pLm4Rt7Vb2Nc9')"]),
            joined(&["const db = 'postgres://admin:", "hunter22@db.internal/app';"]),
            joined(&["-----BEGIN RSA ", "PRIVATE KEY-----"]),
            joined(&["const jwt = 'eyJ", "hbGciOiJIUzI1NiJ9.eyJ", "zdWIiOiIxMjM0NSJ9.c2lnbmF0dXJlMTIz';"]),
            joined(&["apiKey: '", "f83hs0Qk2LmZ7dPx'"]),
            joined(&["const DB_PASSWORD = \"", "qL9#vR2x!mZ7pT\""]),
            "// written by jane.doe@company.io".into(),
            joined(&["let t: string; const token: string = `", "9f8c2d7a1b6e4035`;"]),
        ] {
            assert!(contains_secret(&secret), "{secret}");
        }
    }

    #[test]
    fn code_about_secrets_holds_none() {
        for code in [
            "const token = await getToken(user.password);",
            "const password = 'correct horse battery staple';",
            "apiKey: 'your-api-key-here-123'",
            "const secret = process.env.CLIENT_SECRET ?? '';",
            "sendMail('user@example.com', 'a@b.test');",
            "import x from 'pkg@1.2.3'; @Injectable() class A {}",
            "const url = `https://${user}:${password}@host/`;",
            "const tokenType = 'application/json';",
            "const hash = 'd41d8cd98f00b204e9800998ecf8427e';",
            "if (key === 'ArrowDown' || token === 'identifier') return;",
        ] {
            assert!(!contains_secret(code), "{code}");
        }
    }
}
