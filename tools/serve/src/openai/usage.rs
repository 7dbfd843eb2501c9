//! Token counts of a call.

use crate::generation::Tally;
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};

/// The `usage` of a response.
pub fn usage(tally: &Tally) -> Value {
    let prompt = tally.prompt_tokens();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": tally.generated,
        "total_tokens": prompt + tally.generated,
        "prompt_tokens_details": { "cached_tokens": tally.cached },
    })
}

/// Returns a new id that begins with `prefix`.
pub fn new_id(prefix: &str) -> String {
    let random = || RandomState::new().hash_one(0);
    format!("{prefix}-{:016x}{:016x}", random(), random())
}
