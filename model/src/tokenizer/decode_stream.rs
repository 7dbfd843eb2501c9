//! Decoding token by token.

use super::Tokenizer;

/// Decodes token by token. The returned pieces join to [`Tokenizer::decode_continuation`] of all tokens, and none
/// ends inside a character.
#[derive(Default)]
pub struct DecodeStream {
    /// The first bytes of an incomplete character.
    pending: Vec<u8>,
}

impl DecodeStream {
    /// Returns the text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.pending.extend(tokenizer.token_bytes.get(id));
        let complete = match self.pending.utf8_chunks().last() {
            Some(last) if may_continue(last.invalid()) => self.pending.len() - last.invalid().len(),
            _ => self.pending.len(),
        };
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        text
    }

    /// Returns the rest at the end: a replacement character for a character that was never completed.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// True for the first bytes of a valid character.
fn may_continue(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
