//! Tokens as clients see them.

use codelsi_model::tokenizer::Tokenizer;

/// Returns the text of a token: what it adds to a text, or the name of a control token. Bytes that are a part of a character
/// are replacement characters, as in vLLM; where an API has the bytes beside it, they are whole.
pub fn text(tokenizer: &Tokenizer, id: u32) -> String {
    match tokenizer.control_token(id) {
        Some(name) => name.to_owned(),
        None => String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned(),
    }
}

/// Returns the number of characters that a token adds to a text; a character is counted with its first byte.
pub fn characters(tokenizer: &Tokenizer, id: u32) -> usize {
    tokenizer.token_bytes(id).iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}
