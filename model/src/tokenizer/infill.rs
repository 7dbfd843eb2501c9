//! Infilling: prompts for the text between a prefix and a suffix, written with the markers of the model's family.
//!
//! Markers are control tokens, whatever `tokenizer.json` says: text never becomes one. `<PRE>` in a source file is five
//! characters, although the merges of Code Llama's file would make the marker of it.

use super::Tokenizer;
use super::pipeline::Position;
use codelsi_engine::{Error, Result};
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
    files: &'static [&'static str],
}

/// Families that are known, in the order in which they are looked for.
const FAMILIES: [InfillMarkers; 2] = [
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
    fn cut<'t>(&self, text: &'t str) -> Option<InfillPrompt<'t>> {
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
struct InfillPrompt<'t> {
    /// Other files, before the first marker.
    before: &'t str,
    prefix: &'t str,
    suffix: &'t str,
    /// Beginning of the middle.
    middle: &'t str,
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

impl Tokenizer {
    /// The infilling tokens, if the vocabulary has them.
    pub fn infill_tokens(&self) -> Option<&InfillTokens> {
        self.infill.as_ref()
    }

    /// The infilling tokens.
    ///
    /// # Errors
    /// When the vocabulary has none.
    pub fn require_infill_tokens(&self) -> Result<&InfillTokens> {
        self.infill.as_ref().ok_or_else(|| {
            let known =
                FAMILIES.iter().map(|m| format!("{}, {}, {} ({})", m.prefix, m.suffix, m.middle, m.family));
            let known = known.collect::<Vec<_>>().join(" nor ");
            Error::new(format!("the model does not infill: its tokenizer has neither {known}"))
        })
    }

    /// Returns the prompt for the text between `prefix` and `suffix`: `<s> <PRE> prefix <SUF>suffix <MID>` (Rozière
    /// et al., "Code Llama", arXiv 2308.12950, section 2.3), or the same with Qwen's markers.
    ///
    /// # Errors
    /// When the vocabulary has no infilling tokens, or cannot spell a text.
    pub fn infill(&self, prefix: &str, suffix: &str) -> Result<Vec<u32>> {
        self.infill_with_middle(prefix, suffix, "")
    }

    /// Returns the prompt for the text between `prefix` and `suffix` that begins with `middle`.
    ///
    /// # Errors
    /// As [`Tokenizer::infill`].
    pub fn infill_with_middle(&self, prefix: &str, suffix: &str, middle: &str) -> Result<Vec<u32>> {
        let tokens = self.require_infill_tokens()?;
        self.encode_infill(tokens, InfillPrompt { before: "", prefix, suffix, middle })
    }

    /// Encodes a raw prompt that writes out the markers, as ` <PRE> prefix <SUF>suffix <MID>`: it is cut at them, and
    /// one space before each, and one after `<PRE>`, is a part of the marker. `None` if there are not all three in
    /// their order, or the vocabulary has no infilling tokens: then it is plain text.
    ///
    /// # Errors
    /// When a text cannot be spelled in this vocabulary.
    pub fn encode_infill_markers(&self, text: &str) -> Option<Result<Vec<u32>>> {
        let tokens = self.infill_tokens()?;
        let prompt = tokens.markers.cut(text)?;
        Some(self.encode_infill(tokens, prompt))
    }

    fn encode_infill(&self, tokens: &InfillTokens, prompt: InfillPrompt) -> Result<Vec<u32>> {
        let mut ids = self.special.prefix.clone();
        self.encode_files(tokens, prompt.before, &mut ids)?;
        ids.push(tokens.prefix);
        ids.extend(self.encode_at(prompt.prefix, Position::Start)?);
        ids.push(tokens.suffix);
        ids.extend(self.encode_continuation(prompt.suffix)?);
        ids.push(tokens.middle);
        ids.extend(self.encode_continuation(prompt.middle)?);
        Ok(ids)
    }

    /// Encodes the text before the prefix, in which the family's markers of files are tokens.
    fn encode_files(&self, tokens: &InfillTokens, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let (mut rest, mut position) = (text, Position::Start);
        let files = tokens.markers.files.iter();
        let files: Vec<(&str, u32)> =
            files.filter_map(|marker| Some((*marker, self.inner.token_to_id(marker)?))).collect();
        loop {
            let places =
                files.iter().filter_map(|(marker, id)| Some((rest.find(marker)?, marker.len(), *id)));
            let next = places.min_by_key(|(at, ..)| *at);
            ids.extend(self.encode_at(&rest[..next.map_or(rest.len(), |(at, ..)| at)], position)?);
            let Some((at, length, id)) = next else { return Ok(()) };
            ids.push(id);
            (rest, position) = (&rest[at + length..], Position::AfterText);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{added, letters, load, parse, pieces, prepend_and_replace};
    use super::*;

    const GOLDEN: &str = "data/codellama-tokenizer/codellama-tokenizer-reconstructed.json";
    const PREFIX: &str = "def remove_non_ascii(s: str) -> str:\n    \"\"\" ";
    const SUFFIX: &str = "\n    return result\n";
    const IDS: [u32; 27] = [
        1, 32007, 822, 3349, 29918, 5464, 29918, 294, 18869, 29898, 29879, 29901, 851, 29897, 1599, 851,
        29901, 13, 1678, 9995, 29871, 32008, 13, 1678, 736, 1121, 13,
    ];

    fn raw(tokenizer: &Tokenizer, text: &str) -> Option<Vec<u32>> {
        tokenizer.encode_infill_markers(text).map(|ids| ids.unwrap())
    }

    #[test]
    fn code_llamas_prompts_have_the_golden_ids() {
        let Some(tokenizer) = load(GOLDEN) else { return };
        let expected = [&IDS[..], &[32009]].concat();
        assert_eq!(tokenizer.infill(PREFIX, SUFFIX).unwrap(), expected);
        for space in ["", " "] {
            let text = format!("{space}<PRE> {PREFIX} <SUF>{SUFFIX} <MID>");
            assert_eq!(raw(&tokenizer, &text), Some(expected.clone()), "{text:?}");
        }
        let tokens = tokenizer.require_infill_tokens().unwrap();
        assert_eq!(
            (tokens.markers.family, tokens.end, &tokens.ends[..]),
            ("Code Llama", 32010, &[32010][..])
        );
        let continued = tokenizer.infill_with_middle(PREFIX, SUFFIX, "Remove").unwrap();
        assert_eq!(continued[..expected.len()], expected);
        assert_eq!(
            tokenizer.decode_continuation(&continued[expected.len()..]),
            "Remove",
            "no space in front"
        );
        let text = format!("<PRE> {PREFIX} <SUF>{SUFFIX} <MID>Remove");
        assert_eq!(raw(&tokenizer, &text), Some(continued));
    }

    #[test]
    fn a_marker_takes_one_space_and_leaves_the_rest_of_the_text() {
        let Some(tokenizer) = load(GOLDEN) else { return };
        let between = |ids: &[u32], from: u32, to: u32| {
            let at = |id| ids.iter().position(|&other| other == id).unwrap();
            tokenizer.decode_continuation(&ids[at(from) + 1..at(to)])
        };
        for (suffix, prefix) in [("\r\n  x", "a  "), (" x ", "a"), ("", " a")] {
            let ids = raw(&tokenizer, &format!("<PRE> {prefix} <SUF>{suffix} <MID>")).unwrap();
            assert_eq!(ids, tokenizer.infill(prefix, suffix).unwrap(), "{prefix:?} {suffix:?}");
            assert_eq!(between(&ids, 32008, 32009), suffix);
            assert_eq!(between(&ids, 32007, 32008), format!(" {prefix}"), "with the dummy space");
        }
        // Without the spaces nothing of the text is lost either.
        assert_eq!(raw(&tokenizer, "<PRE>a<SUF>b<MID>"), Some(tokenizer.infill("a", "b").unwrap()));
        for text in [
            "a",
            "<PRE> a",
            "<PRE> a <MID>",
            "<SUF>b <PRE> a <MID>",
            "<PRE> a <MID>b <SUF>",
            "<pre> a <suf>b <mid>",
        ] {
            assert_eq!(raw(&tokenizer, text), None, "{text}");
        }
    }

    /// The merges of Code Llama's file spell ` <PRE>` as the marker.
    #[test]
    fn text_never_becomes_a_marker() {
        let Some(tokenizer) = load(GOLDEN) else { return };
        let text = "a <PRE> b <SUF> c <MID> d <EOT> e <EOT><EOT>";
        let is_marker = |id: &u32| (32007..32016).contains(id);
        for ids in [tokenizer.encode(text, true).unwrap(), tokenizer.encode_continuation(text).unwrap()] {
            assert!(!ids.iter().any(is_marker), "{ids:?}");
            assert!(tokenizer.decode_continuation(&ids).ends_with(text));
        }
        let ids = tokenizer.infill_with_middle(text, text, text).unwrap();
        let found: Vec<u32> = ids.into_iter().filter(is_marker).collect();
        assert_eq!(found, [32007, 32008, 32009]);
        assert_eq!(tokenizer.decode_continuation(&[32010]), "", "a marker is no text");
    }

    /// Letters and Qwen's markers from id 32 on, which its files do not call special.
    fn qwen(markers: &[&str]) -> Tokenizer {
        parse(&letters(|json| {
            json["normalizer"] = prepend_and_replace();
            let list = json["added_tokens"].as_array_mut().unwrap();
            list.extend(markers.iter().zip(32..).map(|(marker, id)| added(id, marker, false)));
        }))
    }

    #[test]
    fn qwens_markers_are_found_and_text_is_text() {
        let all = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>", "<|endoftext|>"];
        let tokenizer = qwen(&all);
        let tokens = tokenizer.infill_tokens().unwrap();
        assert_eq!((tokens.markers.family, tokens.end, &tokens.ends[..]), ("Qwen", 36, &[36, 35][..]));
        let shown = |ids: Vec<u32>| pieces(&tokenizer, &ids);
        assert_eq!(
            shown(tokenizer.infill("ab", "c").unwrap()),
            "<|fim_prefix|> _ a b <|fim_suffix|> c <|fim_middle|>"
        );
        let text = "<|file_sep|>a<|file_sep|>b<|fim_prefix|>c <|fim_suffix|> d<|fim_middle|>e";
        assert_eq!(
            shown(raw(&tokenizer, text).unwrap()),
            "<|file_sep|> a <|file_sep|> b <|fim_prefix|> _ c _ <|fim_suffix|> _ d <|fim_middle|> e"
        );
        let ids = tokenizer.encode("<|fim_prefix|>", false).unwrap();
        assert!(ids.iter().all(|&id| id < 32), "{ids:?}");
    }

    #[test]
    fn a_vocabulary_without_all_markers_does_not_infill() {
        for markers in [
            &["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"][..],
            &["<|fim_prefix|>", "<|fim_suffix|>", "<|endoftext|>"],
            &[],
        ] {
            let tokenizer = qwen(markers);
            assert_eq!(tokenizer.infill_tokens(), None);
            assert_eq!(raw(&tokenizer, "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"), None);
            let message = tokenizer.infill("a", "b").unwrap_err().to_string();
            assert!(message.contains("does not infill") && !message.contains('\n'), "{message}");
            assert!(message.contains("▁<PRE>") && message.contains("<|fim_middle|> (Qwen)"), "{message}");
        }
    }
}
