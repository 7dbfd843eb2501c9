//! Probe texts, encoded when a tokenizer is loaded and compared with the `tokenizers` crate's own encoding: a tokenizer
//! whose steps are not understood here is an error, never other ids.

use super::pipeline::{Pipeline, Position};
use codelsi_engine::{Error, Result};

/// Texts in two parts: what is compared is the whole, and the second part after the first.
const PROBES: [(&str, &str); 9] = [
    ("Once upon a time", " there was a dog."),
    ("The answer is", "\nforty-two"),
    ("function f(x) {", "\n  return x;\n}"),
    ("  two spaces", "  and two"),
    ("name", "=value"),
    (" a", ""),
    ("let s = `", "é🙂`;"),
    ("tab\t", "\tx 12345"),
    ("", "begin"),
];

/// Compares the probes' ids.
///
/// # Errors
/// When an id differs; the message shows the text and both encodings.
pub(super) fn check(tokenizer: &tokenizers::Tokenizer, pipeline: &Pipeline) -> Result<()> {
    let encode = |text: &str, position| pipeline.encode(tokenizer, text, position, true);
    for (start, rest) in PROBES {
        let text = format!("{start}{rest}");
        // A vocabulary without an unknown token need not spell every probe.
        let Ok(reference) = tokenizer.encode(text.as_str(), false) else { continue };
        let expected = reference.get_ids();
        compare(&format!("`{text}`"), &encode(&text, Position::Start)?, expected)?;
        if start.is_empty() {
            continue;
        }
        // Parts join to the ids of the whole wherever the whole has a boundary between two tokens.
        let before = reference.get_offsets().iter().take_while(|(_, end)| *end <= start.len()).count();
        if reference.get_offsets()[before..].iter().all(|(from, _)| *from >= start.len()) {
            let mut joined = encode(start, Position::Start)?;
            joined.extend(encode(rest, Position::AfterText)?);
            compare(&format!("`{start}` and then `{rest}`"), &joined, expected)?;
        }
    }
    Ok(())
}

fn compare(what: &str, ids: &[u32], expected: &[u32]) -> Result<()> {
    if ids == expected {
        return Ok(());
    }
    Err(Error::new(format!(
        "{what} would be encoded as {ids:?}, and the tokenizers crate gives {expected:?}: a step of this tokenizer.json \
         is not supported"
    )))
}
