//! Tokens as clients see them.

use codelsi_model::tokenizer::Tokenizer;

/// Returns the text of a token: what it adds to a text, or the name of a control token. Bytes that are a part of a character
/// are spelled out, as OpenAI does.
pub fn text(tokenizer: &Tokenizer, id: u32) -> String {
    match (std::str::from_utf8(tokenizer.token_bytes(id)), tokenizer.control_token(id)) {
        (_, Some(name)) => name.to_owned(),
        (Ok(text), None) => text.to_owned(),
        (Err(_), None) => {
            let bytes = tokenizer.token_bytes(id).iter();
            format!("bytes:{}", bytes.map(|byte| format!("\\x{byte:02x}")).collect::<String>())
        }
    }
}

/// Returns the number of characters that a token adds to a text; a character is counted with its first byte.
pub fn characters(tokenizer: &Tokenizer, id: u32) -> usize {
    tokenizer.token_bytes(id).iter().filter(|&&byte| byte & 0xC0 != 0x80).count()
}
