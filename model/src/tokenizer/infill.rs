//! Infilling: prompts for the text between a prefix and a suffix, written with the markers of the model's family.

use super::Tokenizer;
use super::infill_markers::{FAMILIES, InfillPrompt, InfillTokens};
use super::pipeline::Position;
use codelsi_engine::{Error, Result};

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
