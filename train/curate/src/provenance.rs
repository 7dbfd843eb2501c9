//! The provenance of a folder of sources: its repository, if it is in one, and its licence.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository and licence of a folder of sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// `owner/name` from the git remote `origin`, or the name of the repository's folder.
    pub repo: Option<String>,
    /// SPDX expression of the licence files in the folder or in the nearest one above, up to the root of the
    /// repository.
    pub license: Option<String>,
}

impl Provenance {
    /// Searches `folder` and, up to the root of its repository, the folders above it.
    pub fn of_folder(folder: &Path) -> Provenance {
        let Ok(folder) = folder.canonicalize() else {
            return Provenance::default();
        };
        let root = folder.ancestors().find(|above| above.join(".git").exists());
        let mut searched: Vec<&Path> = folder.ancestors().take_while(|above| Some(*above) != root).collect();
        searched.extend(root);
        if root.is_none() {
            searched.truncate(1);
        }
        let remote = root.and_then(|root| fs::read_to_string(root.join(".git/config")).ok());
        let name = root.unwrap_or(&folder).file_name().map(|name| name.to_string_lossy().into_owned());
        Provenance {
            repo: remote.and_then(|config| remote_origin(&config)).or(name),
            license: searched.into_iter().find_map(license_in),
        }
    }
}

/// `owner/name` from the address of the remote `origin`; the rest of the address may contain a password.
fn remote_origin(config: &str) -> Option<String> {
    let (_, section) = config.split_once("[remote \"origin\"]")?;
    let lines = section.lines().skip(1).take_while(|line| !line.trim_start().starts_with('['));
    let address = lines.filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "url")?.1;
    let address = address.trim().trim_end_matches('/').trim_end_matches(".git");
    let mut parts = address.rsplit(['/', ':']);
    let (name, owner) = (parts.next()?, parts.next()?);
    let plain = |part: &str| !part.is_empty() && !part.contains('@');
    (plain(name) && plain(owner)).then(|| format!("{owner}/{name}"))
}

/// The licences of the files in a folder, joined by OR.
fn license_in(folder: &Path) -> Option<String> {
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        ["license", "licence", "copying", "unlicense"].iter().any(|start| name.starts_with(start))
    };
    let files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let texts = files.filter(named).filter_map(|path| fs::read_to_string(path).ok());
    let found: BTreeSet<&str> = texts.filter_map(|text| license(&text)).collect();
    (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(" OR "))
}

/// The SPDX name of a licence text. The text does not state if later versions are allowed; the sources do.
fn license(text: &str) -> Option<&'static str> {
    // Only words and numbers: licences are wrapped, indented and quoted in many ways.
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '.')
        .map(|word| word.trim_end_matches('.').to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let text = words.join(" ");
    let title = words.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(" ");
    // The longer licences mention each other, so only their titles count.
    let by_title = [
        ("gnu lesser general public license version 2.1", "LGPL-2.1"),
        ("gnu lesser general public license version 3", "LGPL-3.0"),
        ("gnu affero general public license version 3", "AGPL-3.0"),
        ("gnu general public license version 2", "GPL-2.0"),
        ("gnu general public license version 3", "GPL-3.0"),
        ("mozilla public license version 2.0", "MPL-2.0"),
        ("apache license version 2.0", "Apache-2.0"),
    ];
    let by_words = [
        ("this is free and unencumbered software released into the public domain", "Unlicense"),
        ("permission is hereby granted free of charge to any person obtaining a copy", "MIT"),
        ("permission to use copy modify and or distribute this software for any purpose", "ISC"),
    ];
    let titled = by_title.iter().find(|(mark, _)| title.contains(mark));
    if let Some((_, name)) = titled.or(by_words.iter().find(|(mark, _)| text.contains(mark))) {
        return Some(name);
    }
    let bsd = text.contains("redistribution and use in source and binary forms");
    let three = text.contains("endorse or promote products");
    bsd.then_some(if three { "BSD-3-Clause" } else { "BSD-2-Clause" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_known_by_their_text() {
        let mit = "Permission is hereby granted, free of charge, to any person\nobtaining a copy of this";
        let bsd = "Redistribution and use in source and binary forms, with or\n without modification";
        for (text, name) in [
            (mit.to_string(), Some("MIT")),
            (format!("# The MIT Licence\n\n> {}", mit.replace('\n', "\n> ")), Some("MIT")),
            ("                Apache License\n           Version 2.0, January 2004".into(), Some("Apache-2.0")),
            (bsd.to_string(), Some("BSD-2-Clause")),
            (format!("{bsd} … be used to endorse or promote products"), Some("BSD-3-Clause")),
            ("ISC License\nPermission to use, copy, modify, and/or distribute this software for any purpose".into(), Some("ISC")),
            ("Mozilla Public License Version 2.0\n==================".into(), Some("MPL-2.0")),
            ("GNU GENERAL PUBLIC LICENSE\n  Version 2, June 1991 … the GNU Lesser General Public License".into(), Some("GPL-2.0")),
            ("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007 … GNU Affero General Public License version 3".into(), Some("GPL-3.0")),
            ("GNU LESSER GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007".into(), Some("LGPL-3.0")),
            ("This is free and unencumbered software released into the public domain.".into(), Some("Unlicense")),
            ("All rights reserved.".into(), None),
        ] {
            assert_eq!(license(&text), name, "{text}");
        }
    }

    #[test]
    fn an_address_tells_owner_and_name_and_no_password() {
        let config = |url: &str| {
            format!(
                "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = {url}\n\tfetch = +refs\n[branch \"main\"]\n\turl = x/y\n"
            )
        };
        for (url, repo) in [
            ("https://github.com/owner/name.git", Some("owner/name")),
            ("git@host:owner/name.git", Some("owner/name")),
            ("https://user:word@host/owner/name/", Some("owner/name")),
            ("https://user:word@host/name", None),
            ("name", None),
        ] {
            assert_eq!(remote_origin(&config(url)).as_deref(), repo, "{url}");
        }
        assert_eq!(remote_origin("[core]\n"), None);
    }

    #[test]
    fn a_folder_has_the_name_of_its_repository_or_its_own() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("thing/src");
        fs::create_dir_all(&inner).unwrap();
        let put = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        let origin = |repo: &str, license: Option<&str>| Provenance {
            repo: Some(repo.into()),
            license: license.map(Into::into),
        };
        assert_eq!(Provenance::of_folder(&inner), origin("src", None));
        fs::create_dir_all(root.path().join("thing/.git")).unwrap();
        put(
            "thing/LICENSE-MIT",
            "Permission is hereby granted, free of charge, to any person obtaining a copy",
        );
        put("thing/LICENSE-APACHE", "Apache License\nVersion 2.0");
        put("LICENSE", "Mozilla Public License Version 2.0");
        assert_eq!(Provenance::of_folder(&inner), origin("thing", Some("Apache-2.0 OR MIT")));
        put("thing/.git/config", "[remote \"origin\"]\n\turl = https://a.b/own/er.git\n");
        put("thing/src/LICENSE", "This is free and unencumbered software released into the public domain");
        assert_eq!(Provenance::of_folder(&inner), origin("own/er", Some("Unlicense")));
        assert_eq!(Provenance::of_folder(&root.path().join("absent")), Provenance::default());
    }
}
