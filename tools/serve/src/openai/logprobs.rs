//! Log-probabilities of tokens, in the forms of completions and of chat completions.

use crate::tokens;
use codelsi_model::generate::TokenLogprob;
use codelsi_model::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// The `logprobs` of a completion's choice: lists with one entry a token.
#[derive(Default)]
pub struct CompletionLogprobs {
    tokens: Vec<Value>,
    logprobs: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<Value>,
}

impl CompletionLogprobs {
    /// Appends a token. `offset` is the number of characters before it, and grows with it.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: &TokenLogprob, offset: &mut usize) {
        self.push_id(tokenizer, token.id, offset);
        self.logprobs.push(finite(token.logprob));
        // The token itself is among them, though it may be none of the likeliest.
        let own = (!token.top.is_empty()).then_some((token.id, token.logprob));
        let top = token.top.iter().copied().chain(own);
        let top = top.map(|(id, logprob)| (tokens::text(tokenizer, id), finite(logprob)));
        self.top.push(Value::Object(top.collect::<Map<_, _>>()));
    }

    /// Appends a token without a log-probability: the first of a prompt.
    pub fn push_unknown(&mut self, tokenizer: &Tokenizer, id: u32, offset: &mut usize) {
        self.push_id(tokenizer, id, offset);
        self.logprobs.push(Value::Null);
        self.top.push(Value::Null);
    }

    fn push_id(&mut self, tokenizer: &Tokenizer, id: u32, offset: &mut usize) {
        self.tokens.push(tokens::text(tokenizer, id).into());
        self.offsets.push((*offset).into());
        *offset += tokens::characters(tokenizer, id);
    }

    /// The lists as JSON.
    pub fn into_json(self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        })
    }
}

/// A token in the `logprobs` of a chat completion's choice.
pub fn chat_logprob(tokenizer: &Tokenizer, token: &TokenLogprob) -> Value {
    let mut described = described(tokenizer, token.id, token.logprob);
    let top = token.top.iter().map(|(id, logprob)| described_value(tokenizer, *id, *logprob));
    described.insert("top_logprobs".into(), top.collect());
    Value::Object(described)
}

fn described_value(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Value {
    Value::Object(described(tokenizer, id, logprob))
}

fn described(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Map<String, Value> {
    let bytes = tokenizer.token_bytes(id);
    Map::from_iter([
        ("token".into(), tokens::text(tokenizer, id).into()),
        ("logprob".into(), finite(logprob)),
        ("bytes".into(), bytes.into()),
    ])
}

/// JSON has no infinity: an impossible token has OpenAI's −9999.
fn finite(logprob: f32) -> Value {
    if logprob.is_finite() { logprob.into() } else { (-9999.0).into() }
}
