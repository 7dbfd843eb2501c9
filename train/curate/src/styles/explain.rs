//! Style `explain`: given the code; the answer is its signature and its documentation, if that is long enough.

use super::input::{StyleInput, Task};
use crate::comment::DocComment;
use crate::fingerprint::is_identifier_char;
use crate::instruction::{heading, specification};
use crate::row::ItemKind;

/// Minimum words of a description without parameters and result.
const MIN_WORDS: usize = 12;
/// Minimum words of a description with them.
const MIN_WORDS_WITH_PARTS: usize = 6;

/// Makes the task, if the comment explains enough and is up to date.
pub fn task(input: &StyleInput) -> Option<Task> {
    let (item, doc) = (input.item, input.doc);
    let parts = !doc.params.is_empty() || !doc.returns.is_empty();
    let enough = doc.word_count() >= if parts { MIN_WORDS_WITH_PARTS } else { MIN_WORDS };
    if !enough || !is_current(doc, &item.code) {
        return None;
    }
    let article = if item.noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    let class = match (item.kind, item.name.split_once('.')) {
        (ItemKind::Method, Some((class, _))) => format!(" of the class `{class}`"),
        _ => String::new(),
    };
    let opening = match item.noun.as_str() {
        "constructor" => format!("This is the constructor{class}."),
        noun => format!("`{}` is {article} {noun}{class}.", heading(item)),
    };
    Some(Task {
        instruction: format!("Explain the {}.\n\n{}", input.name(), input.fenced(&item.code)),
        output: format!("{opening}\n\n{}", specification(doc, item.language)),
    })
}

/// Returns whether every documented parameter is in the code; otherwise the comment is out of date.
fn is_current(doc: &DocComment, code: &str) -> bool {
    let words: Vec<&str> = code.split(|c| !is_identifier_char(c)).collect();
    let named = |name: &str| {
        let root = name.split(|c| !is_identifier_char(c)).find(|part| !part.is_empty());
        root.is_some_and(|root| words.contains(&root))
    };
    doc.params.iter().all(|(name, _)| named(name))
}
