//! A byte-pair tokenizer in Llama's format, trained on generated text.
//!
//! The `tokenizer.json` has Code Llama's layout: `<unk> <s> </s>`, 256 byte tokens, then characters and merges; `▁`
//! stands for a space, and one is prepended to the text. Merges never cross word boundaries. A line break is a token of
//! its own (so that a prompt which ends with one is tokenized as in training), and so is a digit.

use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};

/// Tokens before the characters: the three special ones and the bytes.
const RESERVED: usize = 3 + 256;

/// Trains a tokenizer of at most `vocab` tokens on `texts` and returns its `tokenizer.json`.
pub fn train(texts: &[String], vocab: usize) -> Json {
    let words = count_words(texts);
    let mut characters: Vec<char> = words.keys().flat_map(|w| w.chars()).collect();
    characters.sort_unstable();
    characters.dedup();
    let max_merges = vocab.saturating_sub(RESERVED + characters.len());
    let mut tokens: Vec<String> = characters.iter().map(char::to_string).collect();
    let merges = learn_merges(words, max_merges);
    tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    to_json(&tokens, &merges)
}

/// Counts the words of all texts.
fn count_words(texts: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        for word in pre_tokenize(&format!("▁{}", text.replace(' ', "▁"))) {
            *counts.entry(word.to_string()).or_default() += 1;
        }
    }
    counts
}

/// Splits text at the boundaries that no token may cross. A single space belongs to the word after it; runs of letters,
/// of signs and of spaces are words; a digit and a line break are words of one character.
fn pre_tokenize(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let spaces = rest.chars().take_while(|&c| c == '▁').count();
        let lead = spaces * '▁'.len_utf8();
        let body = rest[lead..].chars().next().filter(|&c| spaces < 2 && c != '\n');
        let length = match body {
            None => lead.max(first.len_utf8()),
            Some(c) if c.is_ascii_digit() => lead + 1,
            Some(c) => {
                lead + rest[lead..].find(|d| char_class(d) != char_class(c)).unwrap_or(rest.len() - lead)
            }
        };
        words.push(&rest[..length]);
        rest = &rest[length..];
    }
    words
}

/// Returns the class of a character: letters 0, digits 1, spaces 2, signs 3.
fn char_class(c: char) -> u8 {
    match c {
        c if c.is_ascii_alphabetic() => 0,
        c if c.is_ascii_digit() => 1,
        '▁' | '\n' => 2,
        _ => 3,
    }
}

type Pair = (String, String);

/// Learns byte-pair merges (Sennrich et al. 2016, arXiv 1508.07909): the most frequent pair first, ties by spelling, at
/// most `max_merges`.
fn learn_merges(words: BTreeMap<String, usize>, max_merges: usize) -> Vec<Pair> {
    let mut words: Vec<(Vec<String>, usize)> =
        words.into_iter().map(|(w, n)| (w.chars().map(String::from).collect(), n)).collect();
    let mut merges = Vec::with_capacity(max_merges);
    while merges.len() < max_merges {
        let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
        for (pieces, n) in &words {
            for pair in pieces.windows(2) {
                *counts.entry((&pair[0], &pair[1])).or_default() += n;
            }
        }
        let best = counts.into_iter().max_by(|(p, n), (q, m)| n.cmp(m).then(q.cmp(p)));
        let Some(((a, b), _)) = best.filter(|(_, n)| *n > 1) else { break };
        let pair = (a.to_string(), b.to_string());
        for (pieces, _) in &mut words {
            join(pieces, &pair);
        }
        merges.push(pair);
    }
    merges
}

/// Merges every occurrence of the pair, from the left.
fn join(pieces: &mut Vec<String>, (a, b): &Pair) {
    let mut i = 0;
    while i + 1 < pieces.len() {
        if pieces[i] == *a && pieces[i + 1] == *b {
            pieces[i].push_str(b);
            pieces.remove(i + 1);
        }
        i += 1;
    }
}

fn to_json(tokens: &[String], merges: &[Pair]) -> Json {
    let special = ["<unk>", "<s>", "</s>"];
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let names = special.iter().map(|s| s.to_string()).chain(bytes).chain(tokens.iter().cloned());
    let vocab: serde_json::Map<String, Json> =
        names.enumerate().map(|(id, token)| (token, json!(id))).collect();
    let added: Vec<Json> = special
        .iter()
        .enumerate()
        .map(|(id, s)| json!({"id": id, "content": s, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}))
        .collect();
    let bos = |n: u8| json!({"SpecialToken": {"id": "<s>", "type_id": n}});
    let text = |id: &str, n: u8| json!({"Sequence": {"id": id, "type_id": n}});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos(0), text("A", 0)],
            "pair": [bos(0), text("A", 0), bos(1), text("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": "<unk>",
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "vocab": vocab,
            "merges": merges.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_apart_what_no_piece_may_join() {
        let cut = |text: &str| pre_tokenize(&text.replace(' ', "▁")).join("|");
        assert_eq!(cut(" if (x12 > 3) {\n    return"), "▁if|▁(|x|1|2|▁>|▁3|)|▁{|\n|▁▁▁▁|return");
        assert_eq!(cut(" a.map((x)=>"), "▁a|.|map|((|x|)=>");
    }

    #[test]
    fn the_most_frequent_pair_is_joined_first() {
        let file = train(&["abab abab ab".to_string(), "cd".to_string()], RESERVED + 8);
        assert_eq!(file["model"]["merges"][0], "a b");
        assert_eq!(file["model"]["vocab"]["ab"], RESERVED + 5);
        assert_eq!(file["model"]["vocab"].as_object().unwrap().len(), RESERVED + 8);
    }
}
