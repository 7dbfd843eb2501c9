//! A Llama-style `tokenizer.json` of any size, with words built from syllables.

use serde_json::{Map, Value, json};

const CONSONANTS: &str = "bcdfghjklmnpqrstvwxz";
const VOWELS: &str = "aeiou";
/// `<unk>`, `<s>`, `</s>`.
const CONTROL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Returns a BPE tokenizer of exactly `size` tokens, in the form of Llama's: control tokens, the 256 bytes of byte
/// fallback, printable characters, then syllables and words of syllables, each merged from two earlier tokens.
///
/// A `size` below 354 keeps all bytes and omits characters, which are then spelled in bytes; the minimum is 260.
pub fn tokenizer(size: usize) -> Value {
    let mut pieces: Vec<String> = CONTROL.map(String::from).to_vec();
    pieces.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    pieces.push("▁".into());
    pieces.extend(('!'..='~').map(String::from));
    pieces.truncate(size.max(CONTROL.len() + 257));
    let mut merges = Vec::new();
    for (left, right) in words().take(size.saturating_sub(pieces.len())) {
        pieces.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    let vocabulary: Map<String, Value> =
        pieces.into_iter().enumerate().map(|(id, piece)| (piece, id.into())).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": CONTROL.iter().enumerate().map(|(id, content)| control(id, content)).collect::<Vec<_>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

/// Returns the entry of a control token.
fn control(id: usize, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// Returns pairs to merge, shortest words first: syllables, words of two and of three syllables, each also after a
/// space.
fn words() -> impl Iterator<Item = (String, String)> {
    let syllables =
        || CONSONANTS.chars().flat_map(|c| VOWELS.chars().map(move |v| (c.to_string(), v.to_string())));
    let texts = move || syllables().map(|(c, v)| c + &v);
    let pairs = move || texts().flat_map(move |a| texts().map(move |b| (a.clone(), b)));
    let spaced = |words: Box<dyn Iterator<Item = String>>| words.map(|word| ("▁".to_string(), word));
    let triples = move || texts().flat_map(move |a| pairs().map(move |(b, c)| (a.clone(), b + &c)));
    syllables()
        .chain(spaced(Box::new(texts())))
        .chain(pairs())
        .chain(spaced(Box::new(pairs().map(|(a, b)| a + &b))))
        .chain(triples())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn every_size_is_exact_and_any_text_survives() {
        for size in [260, 300, 512, 32016] {
            let tokenizer = Tokenizer::parse(&tokenizer(size).to_string(), "").unwrap();
            assert_eq!(tokenizer.vocab_size(), size);
            for text in ["", "const x = 1;\n\tbanana 🙃 é", "  two"] {
                let ids = tokenizer.encode(text, true).unwrap();
                assert_eq!((ids[0], tokenizer.decode(&ids)), (1, text.to_string()));
            }
        }
    }

    #[test]
    fn words_are_merged() {
        let tokenizer = Tokenizer::parse(&tokenizer(32016).to_string(), "").unwrap();
        let ids = tokenizer.encode("banana", false).unwrap();
        assert!(ids.len() <= 3, "{ids:?}");
        let all: Vec<u32> = (0..32016).collect();
        assert!(all.iter().all(|&id| id < 3 || !tokenizer.decode_continuation(&[id]).is_empty()));
    }
}
