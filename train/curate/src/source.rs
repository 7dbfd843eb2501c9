//! Reading of sources: folders of files, or corpora with one file per JSON line.

use crate::language::Language;
use crate::provenance::Provenance;
use codelsi_engine::{Error, Result};
use codelsi_model::jsonl;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file and its provenance.
#[derive(Clone, Debug, Deserialize)]
pub struct SourceFile {
    pub path: String,
    pub content: String,
    pub repo: Option<String>,
    pub license: Option<String>,
}

/// The sources under one path.
#[derive(Default)]
pub struct FoundSources {
    pub sources: Vec<SourceFile>,
    /// Number of files that are not UTF-8 text: `.ts` is also a video container.
    pub not_utf8: usize,
}

/// Reads a folder (sorted by path) or a `.jsonl`/`.jsonl.gz` corpus with `path` and `content` (in its order). A folder
/// that has corpora but no sources is read as all of its corpora.
///
/// # Errors
/// A path that is neither, a malformed line (the message names it), or no source in these languages.
pub fn read(path: &Path, languages: &[Language]) -> Result<FoundSources> {
    let found = find(path, languages)?;
    if found.is_empty() {
        return Err(Error::io(path, nothing_found(languages)));
    }
    Ok(found)
}

/// Reads the TypeScript sources under `paths`, in their order.
///
/// # Errors
/// A path that cannot be read or holds none.
pub fn read_typescript_sources(paths: &[PathBuf]) -> Result<Vec<SourceFile>> {
    let mut sources = Vec::new();
    for path in paths {
        sources.extend(read(path, &[Language::TypeScript])?.sources);
    }
    Ok(sources)
}

/// Returns whether there is a source of `language` under a path.
///
/// # Errors
/// A path that is neither a folder nor a corpus, or a malformed line (the message names it).
pub fn has_sources(path: &Path, language: Language) -> Result<bool> {
    Ok(!find(path, &[language])?.is_empty())
}

fn find(path: &Path, languages: &[Language]) -> Result<FoundSources> {
    let mut found = if path.is_dir() { read_folder(path, languages)? } else { read_corpus(path, languages)? };
    if found.is_empty() && path.is_dir() {
        for corpus in list_corpora(path)? {
            found.sources.append(&mut read_corpus(&corpus, languages)?.sources);
        }
    }
    Ok(found)
}

fn nothing_found(languages: &[Language]) -> String {
    let extensions = |language: &Language| language.table().extensions.join(", ");
    let folders: Vec<&str> = languages.iter().flat_map(|l| l.table().excluded_folders).copied().collect();
    format!(
        "no {} file in it ({} and the like do not count); --language chooses others",
        languages.iter().map(extensions).collect::<Vec<_>>().join(", "),
        folders.first().copied().unwrap_or("hidden folders")
    )
}

impl FoundSources {
    fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.not_utf8 == 0
    }
}

fn is_corpus(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
}

/// The TypeScript repositories under a path: each corpus of a folder of corpora, or else the path itself.
///
/// # Errors
/// A folder that cannot be read.
pub fn typescript_repositories(path: &Path) -> Result<Vec<PathBuf>> {
    let itself = vec![path.to_path_buf()];
    if !path.is_dir() || !read_folder(path, &[Language::TypeScript])?.is_empty() {
        return Ok(itself);
    }
    let corpora = list_corpora(path)?;
    Ok(if corpora.is_empty() { itself } else { corpora })
}

/// The corpora in a folder, sorted.
fn list_corpora(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(folder, e);
    let entries = fs::read_dir(folder).map_err(io)?.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    let files = entries.iter().map(|entry| entry.path());
    let mut corpora: Vec<PathBuf> = files.filter(|file| file.is_file() && is_corpus(file)).collect();
    corpora.sort();
    Ok(corpora)
}

fn read_corpus(path: &Path, languages: &[Language]) -> Result<FoundSources> {
    if path.exists() && !is_corpus(path) {
        return Err(Error::io(path, "not a source of code: give a folder, a .jsonl or a .jsonl.gz"));
    }
    let mut sources: Vec<SourceFile> = jsonl::read(path)?;
    sources.retain(|s| is_source(&s.path, languages));
    Ok(FoundSources { sources, not_utf8: 0 })
}

fn read_folder(folder: &Path, languages: &[Language]) -> Result<FoundSources> {
    let mut files = Vec::new();
    list_sources(folder, languages, &mut files)?;
    let Provenance { repo, license } = Provenance::of_folder(folder);
    let mut found = FoundSources::default();
    for file in files {
        let path = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        if !is_source(&path, languages) {
            continue;
        }
        let bytes = fs::read(&file).map_err(|e| Error::io(&file, e))?;
        match String::from_utf8(bytes) {
            Ok(content) => {
                found.sources.push(SourceFile { path, content, repo: repo.clone(), license: license.clone() })
            }
            Err(_) => found.not_utf8 += 1,
        }
    }
    Ok(found)
}

/// Lists the source files below `folder`, sorted; symbolic links are not followed, so there are no cycles.
fn list_sources(folder: &Path, languages: &[Language], files: &mut Vec<PathBuf>) -> Result<()> {
    let io = |e| Error::io(folder, e);
    let mut entries = fs::read_dir(folder).map_err(io)?.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let (kind, name) = (entry.file_type().map_err(io)?, entry.file_name());
        let name = name.to_string_lossy();
        if kind.is_dir() && !is_excluded(&name, languages) {
            list_sources(&entry.path(), languages, files)?;
        } else if kind.is_file() && is_source(&name, languages) {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Returns whether a folder is hidden or excluded in all of the languages.
fn is_excluded(folder: &str, languages: &[Language]) -> bool {
    folder.starts_with('.') || languages.iter().all(|l| l.table().excluded_folders.contains(&folder))
}

fn is_source(path: &str, languages: &[Language]) -> bool {
    Language::from_path(path).is_some_and(|language| languages.contains(&language))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TS: [Language; 1] = [Language::TypeScript];

    #[test]
    fn a_folder_gives_its_sources_sorted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put("b.ts", b"b");
        put("a/c.tsx", b"c");
        put("d.mts", b"d");
        put("e.d.ts", b"e");
        put("f.js", b"f");
        put("node_modules/g.ts", b"g");
        put(".git/h.ts", b"h");
        put("video.ts", &[0x47, 0xff, 0xfe]);
        let found = read(folder.path(), &TS).unwrap();
        let paths: Vec<&str> = found.sources.iter().map(|s| s.path.as_str()).collect();
        assert_eq!((paths, found.not_utf8), (vec!["a/c.tsx", "b.ts", "d.mts"], 1));
    }

    #[test]
    fn a_folder_of_corpora_is_read_unless_it_has_sources_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("b.jsonl", "{\"path\":\"b.ts\",\"content\":\"b\"}\n");
        put("a.jsonl", "{\"path\":\"a.ts\",\"content\":\"a\"}\n{\"path\":\"a.md\",\"content\":\"\"}\n");
        let paths = || {
            let found = read(folder.path(), &TS).unwrap();
            found.sources.into_iter().map(|s| s.path).collect::<Vec<_>>()
        };
        assert_eq!(paths(), ["a.ts", "b.ts"]);
        // In a folder with sources, `.jsonl` files are data of the repository.
        put("index.ts", "c");
        assert_eq!(paths(), ["index.ts"]);
    }

    #[test]
    fn a_folder_holds_the_languages_of_its_sources() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.py"), "a").unwrap();
        assert!(has_sources(folder.path(), Language::Python).unwrap());
        assert!(!has_sources(folder.path(), Language::Java).unwrap());
        assert!(has_sources(&folder.path().join("absent"), Language::Java).is_err());
    }

    #[test]
    fn a_folder_without_typescript_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path(), &TS).err().unwrap().to_string().contains("no .ts"));
        assert!(read(&folder.path().join("absent"), &TS).is_err());
        let text = folder.path().join("a.txt");
        fs::write(&text, "a").unwrap();
        assert!(read(&text, &TS).err().unwrap().to_string().contains("not a source of code"));
    }
}
