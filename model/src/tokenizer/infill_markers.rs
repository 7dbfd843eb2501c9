//! The markers of infilling, by family of models, and how a raw prompt is cut at them.
//!
//! Markers are control tokens, whatever `tokenizer.json` says: text never becomes one. `<PRE>` in a source file is five
//! characters, although the merges of Code Llama's file would make the marker of it.

use serde_json::{Value, json};

/// The markers of a family of models, as its vocabulary spells them.
#[derive(Debug, PartialEq, Eq)]
pub struct InfillMarkers {
    /// Name of the family.
    pub family: &'static str,
    /// Stands before the prefix.
    pub prefix: &'static str,
    /// Stands before the suffix.
    pub suffix: &'static str,
    /// Stands before the middle, which the model writes.
    pub middle: &'static str,
    /// Markers that end the middle; the first of them that a vocabulary has is the one that training appends.
    ends: &'static [&'static str],
    /// Markers of other files, which a prompt may show before the prefix.
    pub(super) files: &'static [&'static str],
}

/// Families that are known, in the order in which they are looked for.
pub(super) const FAMILIES: [InfillMarkers; 2] = [
    InfillMarkers {
        family: "Code Llama",
        prefix: "▁<PRE>",
        suffix: "▁<SUF>",
        middle: "▁<MID>",
        ends: &["▁<EOT>"],
        files: &[],
    },
    InfillMarkers {
        family: "Qwen",
        prefix: "<|fim_prefix|>",
        suffix: "<|fim_suffix|>",
        middle: "<|fim_middle|>",
        ends: &["<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
        files: &["<|repo_name|>", "<|file_sep|>"],
    },
];

impl InfillMarkers {
    fn all(&self) -> impl Iterator<Item = &'static str> {
        [self.prefix, self.suffix, self.middle].into_iter().chain(self.ends.iter().copied())
    }

    /// Cuts a raw prompt at the markers that it writes out; `None` if it has not all three in their order.
    pub(super) fn cut<'t>(&self, text: &'t str) -> Option<InfillPrompt<'t>> {
        let (before, rest) = split_at(text, self.prefix)?;
        // Code Llama's prompts are written with a space on both sides of the first marker.
        let rest = if spelled(self.prefix).1 { rest.strip_prefix(' ').unwrap_or(rest) } else { rest };
        let (prefix, rest) = split_at(rest, self.suffix)?;
        let (suffix, middle) = split_at(rest, self.middle)?;
        Some(InfillPrompt { before, prefix, suffix, middle })
    }
}

/// Returns a marker as a prompt writes it, and whether a space before it belongs to it.
fn spelled(marker: &str) -> (&str, bool) {
    marker.strip_prefix('▁').map_or((marker, false), |text| (text, true))
}

/// Splits a text at the first of a marker, without the one space that belongs to it.
fn split_at<'t>(text: &'t str, marker: &str) -> Option<(&'t str, &'t str)> {
    let (marker, takes_space) = spelled(marker);
    let (before, after) = text.split_once(marker)?;
    let before = if takes_space { before.strip_suffix(' ').unwrap_or(before) } else { before };
    Some((before, after))
}

/// The texts of a prompt.
pub(super) struct InfillPrompt<'t> {
    /// Other files, before the first marker.
    pub before: &'t str,
    pub prefix: &'t str,
    pub suffix: &'t str,
    /// Beginning of the middle.
    pub middle: &'t str,
}

/// The infilling tokens of a vocabulary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfillTokens {
    pub markers: &'static InfillMarkers,
    pub prefix: u32,
    pub suffix: u32,
    pub middle: u32,
    /// Ends the infilled text; training appends it.
    pub end: u32,
    /// Tokens at which generation of infilled text stops, `end` among them.
    pub ends: Vec<u32>,
}

impl InfillTokens {
    /// Finds the family whose three markers, and one to end the middle, are in a vocabulary.
    pub(super) fn find(id: impl Fn(&str) -> Option<u32>) -> Option<Self> {
        FAMILIES.iter().find_map(|markers| {
            let ends: Vec<u32> = markers.ends.iter().filter_map(|end| id(end)).collect();
            Some(InfillTokens {
                markers,
                prefix: id(markers.prefix)?,
                suffix: id(markers.suffix)?,
                middle: id(markers.middle)?,
                end: *ends.first()?,
                ends,
            })
        })
    }
}

/// Makes control tokens of the infilling markers of a `tokenizer.json`, which text cannot become.
pub(super) fn make_markers_control_tokens(json: &mut Value) {
    let Some(family) = InfillTokens::find(|text| id_of(json, text)) else { return };
    let is_marker = |text: &str| family.markers.all().any(|marker| marker == text);
    let all = family.markers.all();
    let tokens: Vec<Value> = all.filter_map(|text| Some(control_token(text, id_of(json, text)?))).collect();
    if let Some(merges) = json["model"]["merges"].as_array_mut() {
        merges.retain(|merge| !merged(merge).is_some_and(|text| is_marker(&text)));
    }
    if !json["added_tokens"].is_array() {
        json["added_tokens"] = json!([]);
    }
    let Some(added) = json["added_tokens"].as_array_mut() else { return };
    for token in tokens {
        match added.iter_mut().find(|other| other["content"] == token["content"]) {
            Some(other) => other["special"] = true.into(),
            None => added.push(token),
        }
    }
}

/// Returns the id of an added token or a piece.
fn id_of(json: &Value, text: &str) -> Option<u32> {
    let mut added = json["added_tokens"].as_array().into_iter().flatten();
    let added = added.find(|token| token["content"] == text).map(|token| &token["id"]);
    added.unwrap_or(&json["model"]["vocab"][text]).as_u64().and_then(|id| u32::try_from(id).ok())
}

/// Returns the piece that a merge makes: `"▁<PRE >"`, or in newer files `["▁<PRE", ">"]`.
fn merged(merge: &Value) -> Option<String> {
    match merge {
        Value::String(pair) => pair.split_once(' ').map(|(left, right)| format!("{left}{right}")),
        Value::Array(pair) => pair.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn control_token(content: &str, id: u32) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}
