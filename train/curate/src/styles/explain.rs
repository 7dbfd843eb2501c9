//! Style `explain`: the code is given; the answer is its signature and what its comment says, where that is enough.

use super::subject::{Subject, Task};
use crate::comment::Doc;
use crate::fingerprint::is_word;
use crate::instruction::{heading, specification};
use crate::row::Kind;

/// Words of a description that explains by itself, and with parameters or a result beside it.
const WORDS: usize = 12;
const WORDS_WITH_PARTS: usize = 6;

pub fn task(subject: &Subject) -> Option<Task> {
    let (item, doc) = (subject.item, subject.doc);
    let parts = !doc.params.is_empty() || !doc.returns.is_empty();
    let enough = doc.words() >= if parts { WORDS_WITH_PARTS } else { WORDS };
    if !enough || !is_current(doc, &item.code) {
        return None;
    }
    let article = if item.noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    let class = match (item.kind, item.name.split_once('.')) {
        (Kind::Method, Some((class, _))) => format!(" of the class `{class}`"),
        _ => String::new(),
    };
    let opening = match item.noun.as_str() {
        "constructor" => format!("This is the constructor{class}."),
        noun => format!("`{}` is {article} {noun}{class}.", heading(item)),
    };
    Some(Task {
        instruction: format!("Explain the {}.\n\n{}", subject.name(), subject.fenced(&item.code)),
        output: format!("{opening}\n\n{}", specification(doc, item.language)),
    })
}

/// Whether every parameter that the comment describes is in the code: a comment that speaks of others is out of date.
fn is_current(doc: &Doc, code: &str) -> bool {
    let words: Vec<&str> = code.split(|c| !is_word(c)).collect();
    let named = |name: &str| {
        let root = name.split(|c| !is_word(c)).find(|part| !part.is_empty());
        root.is_some_and(|root| words.contains(&root))
    };
    doc.params.iter().all(|(name, _)| named(name))
}
