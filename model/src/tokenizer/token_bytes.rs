//! The bytes of each token: decoding is a look-up, and a stream can be cut between any two tokens.

use codelsi_engine::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;

/// The encoding of bytes in a vocabulary's pieces.
#[derive(Clone, Copy)]
pub(super) enum ByteEncoding {
    /// SentencePiece's: `▁`, or another character, is a space, `<0x0A>` a byte.
    SentencePiece { space: char },
    /// GPT-2's: each byte is written as a printable character.
    ByteLevel,
}

impl ByteEncoding {
    /// Detects the encoding by the tokenizer's decoder.
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn of(decoder: &Value) -> Result<Self> {
        let steps = decoder["decoders"].as_array().map_or(std::slice::from_ref(decoder), Vec::as_slice);
        let has = |step_type: &str| steps.iter().any(|step| step["type"] == step_type);
        let metaspace = steps.iter().find(|step| step["type"] == "Metaspace");
        let space = metaspace.and_then(|step| step["replacement"].as_str()?.chars().next()).unwrap_or('▁');
        match (has("ByteLevel"), has("ByteFallback") || has("Metaspace") || has("Replace")) {
            (true, _) => Ok(ByteEncoding::ByteLevel),
            (_, true) => Ok(ByteEncoding::SentencePiece { space }),
            _ => Err(Error::new("the tokenizer's decoder is neither SentencePiece's nor byte-level")),
        }
    }

    /// Returns the bytes of a piece.
    fn bytes(self, piece: &str, alphabet: &HashMap<char, u8>) -> Vec<u8> {
        match self {
            ByteEncoding::ByteLevel => piece.chars().filter_map(|c| alphabet.get(&c).copied()).collect(),
            ByteEncoding::SentencePiece { space } => {
                let hex =
                    piece.strip_prefix("<0x").and_then(|p| p.strip_suffix('>')).filter(|h| h.len() == 2);
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => piece.replace(space, " ").into_bytes(),
                }
            }
        }
    }
}

/// Returns GPT-2's alphabet: a printable Latin-1 character is its own byte, and U+0100 onwards are the other bytes.
fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    let others = (0..=255u8).filter(|&b| !printable(b)).zip('\u{100}'..).map(|(b, c)| (c, b));
    (0..=255u8).filter(|&b| printable(b)).map(|b| (b as char, b)).chain(others).collect()
}

/// The bytes of all tokens, end to end.
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// `bytes[ends[i - 1]..ends[i]]` are the bytes of id i; control tokens and unused ids have none.
    ends: Vec<usize>,
}

impl TokenBytes {
    /// Decodes every token of a vocabulary.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, encoding: ByteEncoding) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let alphabet = byte_alphabet();
        let mut vocabulary: Vec<(u32, String)> =
            tokenizer.get_vocab(true).into_iter().map(|(piece, id)| (id, piece)).collect();
        vocabulary.sort_unstable();
        let mut tokens = TokenBytes { bytes: Vec::new(), ends: Vec::new() };
        for (id, piece) in vocabulary {
            // Ids that the vocabulary skips decode to nothing.
            tokens.ends.resize(id as usize, tokens.bytes.len());
            match added.get(&id) {
                Some(token) if token.special => {}
                Some(token) => tokens.bytes.extend(token.content.as_bytes()),
                None => tokens.bytes.extend(encoding.bytes(&piece, &alphabet)),
            }
            tokens.ends.push(tokens.bytes.len());
        }
        tokens
    }

    /// The largest id plus one.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns the bytes of one id; none for an id outside of the vocabulary.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..end]
    }
}
