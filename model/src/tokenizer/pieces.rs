//! The bytes that each token stands for: decoding is a look-up, and a stream can be cut between any two tokens.

use codelsi_engine::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;

/// How a vocabulary writes bytes in its pieces.
#[derive(Clone, Copy)]
pub(super) enum Spelling {
    /// SentencePiece: `▁` is a space, `<0x0A>` a byte.
    Sentence,
    /// GPT-2: a printable character stands for each byte.
    ByteLevel,
}

impl Spelling {
    pub(super) fn of(decoder: &Value) -> Result<Self> {
        let steps = decoder["decoders"].as_array().map_or(std::slice::from_ref(decoder), Vec::as_slice);
        let has = |kind: &str| steps.iter().any(|step| step["type"] == kind);
        match (has("ByteLevel"), has("ByteFallback") || has("Metaspace") || has("Replace")) {
            (true, _) => Ok(Spelling::ByteLevel),
            (_, true) => Ok(Spelling::Sentence),
            _ => Err(Error::new("the tokenizer's decoder is neither SentencePiece's nor byte-level")),
        }
    }

    /// The bytes a piece stands for.
    fn bytes(self, piece: &str, alphabet: &HashMap<char, u8>) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => piece.chars().filter_map(|c| alphabet.get(&c).copied()).collect(),
            Spelling::Sentence => {
                let hex =
                    piece.strip_prefix("<0x").and_then(|p| p.strip_suffix('>')).filter(|h| h.len() == 2);
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => piece.replace('▁', " ").into_bytes(),
                }
            }
        }
    }
}

/// GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes for U+0100 onwards.
fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    let others = (0..=255u8).filter(|&b| !printable(b)).zip('\u{100}'..).map(|(b, c)| (c, b));
    (0..=255u8).filter(|&b| printable(b)).map(|b| (b as char, b)).chain(others).collect()
}

/// What each id decodes to, back to back.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// `bytes[ends[i - 1]..ends[i]]` is the text of id i; nothing for control tokens and unused ids.
    ends: Vec<usize>,
}

impl Pieces {
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, spelling: Spelling) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let alphabet = byte_alphabet();
        let mut vocabulary: Vec<(u32, String)> =
            tokenizer.get_vocab(true).into_iter().map(|(piece, id)| (id, piece)).collect();
        vocabulary.sort_unstable();
        let mut pieces = Pieces { bytes: Vec::new(), ends: Vec::new() };
        for (id, piece) in vocabulary {
            // Ids that the vocabulary skips decode to nothing.
            pieces.ends.resize(id as usize, pieces.bytes.len());
            match added.get(&id) {
                Some(token) if token.special => {}
                Some(token) => pieces.bytes.extend(token.content.as_bytes()),
                None => pieces.bytes.extend(spelling.bytes(&piece, &alphabet)),
            }
            pieces.ends.push(pieces.bytes.len());
        }
        pieces
    }

    /// One more than the largest id.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of one id; none for an id outside the vocabulary.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }
}
