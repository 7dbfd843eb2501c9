//! The command line of this process, as a shell takes it.

use std::env;

/// Returns the command line, with `flag` if it is not there yet.
pub fn command_line(flag: Option<&str>) -> String {
    let missing = flag.filter(|flag| !env::args_os().any(|arg| arg == *flag)).map(str::to_owned);
    joined(arguments().chain(missing))
}

/// Returns the command line as it may be kept in a file and shown to others: without credentials in URLs.
pub fn without_credentials() -> String {
    joined(arguments().map(|arg| hide_credentials(&arg)))
}

fn arguments() -> impl Iterator<Item = String> {
    env::args_os().map(|arg| arg.to_string_lossy().into_owned())
}

/// Replaces the user and password of a URL (RFC 3986, section 3.2.1) inside an argument.
fn hide_credentials(arg: &str) -> String {
    let hidden = || {
        let (scheme, rest) = arg.split_once("://")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (user, _) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://***{}", &rest[user.len()..]))
    };
    hidden().unwrap_or_else(|| arg.to_owned())
}

fn joined(arguments: impl Iterator<Item = String>) -> String {
    arguments.map(|arg| quoted(&arg)).collect::<Vec<_>>().join(" ")
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !arg.is_empty() && arg.chars().all(plain) {
        true => arg.to_owned(),
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_arguments() {
        let arguments = ["codelsi", "--prompt", "it's a b", "", "--out=runs/a-1"].map(str::to_owned);
        assert_eq!(joined(arguments.into_iter()), r"codelsi --prompt 'it'\''s a b' '' --out=runs/a-1");
    }

    #[test]
    fn a_url_loses_its_user_and_password() {
        for (arg, kept) in [
            ("http://user:pass@host:8000/v1", "http://***@host:8000/v1"),
            ("--endpoint=https://a:b@c@host?x=1", "--endpoint=https://***@host?x=1"),
            ("https://token@host", "https://***@host"),
            ("http://host/path@2", "http://host/path@2"),
            ("user@host", "user@host"),
        ] {
            assert_eq!(hide_credentials(arg), kept);
        }
    }
}
