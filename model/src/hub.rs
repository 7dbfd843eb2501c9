//! Folders of the Hugging Face cache: `org/name` is the snapshot that `hf download org/name` left there.

use codelsi_engine::{Error, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folder that a path names: itself if it exists, else the snapshot of the repository `org/name` in the
/// Hugging Face cache, else itself, which [`check_folder`] then explains.
pub fn resolve(path: &Path) -> PathBuf {
    if path.exists() {
        return path.to_owned();
    }
    repository(path).and_then(|name| snapshot(&cache()?, name)).unwrap_or_else(|| path.to_owned())
}

/// Returns the repository of a snapshot's folder, `org/name`, or the path itself.
pub fn name_of(folder: &Path) -> String {
    let cached = || {
        let snapshots = folder.parent().filter(|parent| parent.file_name().is_some_and(|n| n == "snapshots"));
        let repository = snapshots?.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
        let name = repository.replacen("--", "/", 1);
        self::repository(Path::new(&name)).map(str::to_owned)
    };
    cached().unwrap_or_else(|| folder.display().to_string())
}

/// Checks that a path names a folder, of a `kind` such as "model".
///
/// # Errors
/// When it does not; where it may be a repository's name, the line says how that is downloaded.
pub fn check_folder(path: &Path, kind: &str) -> Result<()> {
    match path.is_dir() {
        true => Ok(()),
        false => Err(Error::io(path, format!("no such {kind} folder{}", advice(path)))),
    }
}

/// Says how a folder that does not exist is downloaded, if it may be a repository's name; begins with a semicolon.
fn advice(path: &Path) -> String {
    let Some(name) = repository(path) else { return String::new() };
    let cache = cache().map_or("no Hugging Face cache".into(), |cache| cache.display().to_string());
    format!("; nor is {name} in {cache}: `hf download {name}` downloads it")
}

/// Returns the path as a repository's name, if it has the form of one: two names with a slash between.
fn repository(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    let (organization, name) = text.split_once('/')?;
    let is_name = |name: &str| {
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        letters && name.bytes().any(|b| b.is_ascii_alphanumeric()) && !name.starts_with('.')
    };
    (is_name(organization) && is_name(name)).then_some(text)
}

/// The folder of the cache, as `huggingface_hub` finds it.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let hub = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
    let by_user = || {
        Some(folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?.join("huggingface"))
    };
    hub.or_else(|| Some(folder("HF_HOME").or_else(by_user)?.join("hub")))
}

/// Returns the snapshot of a repository that its `main` refers to.
fn snapshot(cache: &Path, name: &str) -> Option<PathBuf> {
    let repository = cache.join(format!("models--{}", name.replacen('/', "--", 1)));
    let commit = fs::read_to_string(repository.join("refs/main")).ok()?;
    let commit = commit.trim();
    let is_commit = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit());
    is_commit.then(|| repository.join("snapshots").join(commit)).filter(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_found_by_its_name() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--org--some--model");
        let snapshots = repository.join("snapshots");
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::create_dir_all(snapshots.join("0a1b")).unwrap();
        let main = |text: &str| fs::write(repository.join("refs/main"), text).unwrap();
        main("0a1b\n");
        assert_eq!(snapshot(cache.path(), "org/some--model"), Some(snapshots.join("0a1b")));
        assert_eq!(name_of(&snapshots.join("0a1b")), "org/some--model");
        for other in ["", "ffff", "../../../etc", "0a1b/.."] {
            main(other);
            assert_eq!(snapshot(cache.path(), "org/some--model"), None, "{other}");
        }
        assert_eq!(name_of(Path::new("models/base")), "models/base");
    }

    #[test]
    fn paths_are_no_names() {
        for path in ["model", "./a/b", "../b", "a/..", "/a/b", "a/b/c", "a/", "~/b", "a b/c"] {
            assert_eq!(repository(Path::new(path)), None, "{path}");
        }
        assert!(advice(Path::new("org/Code-7b.v1_x")).contains("`hf download org/Code-7b.v1_x`"));
    }
}
