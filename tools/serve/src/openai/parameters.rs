//! Parameters that completions and chat completions share.

use crate::error::ApiError;
use crate::fields::{Fields, Neutral};
use crate::generation::MaxTokens;

/// Most samples of a prompt.
pub const MAX_N: i64 = 128;
/// Most alternatives of a token.
pub const MAX_TOP_LOGPROBS: i64 = 20;

/// Streaming of a response.
#[derive(Clone, Copy, Debug)]
pub struct Streaming {
    pub stream: bool,
    /// True if a last chunk tells the token counts.
    pub include_usage: bool,
}

impl Streaming {
    /// Reads `stream` and `stream_options`.
    ///
    /// # Errors
    /// When one has another type.
    pub fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        let stream = fields.flag("stream")?.unwrap_or(false);
        let mut options = fields.object("stream_options")?;
        let include_usage = options.flag("include_usage")?.unwrap_or(false);
        options.ignore_rest();
        Ok(Streaming { stream, include_usage })
    }
}

/// Reads `n`.
///
/// # Errors
/// When it is outside its range.
pub fn read_n(fields: &mut Fields) -> Result<usize, ApiError> {
    Ok(fields.integer("n", 1, MAX_N)?.map_or(1, |n| n as usize))
}

/// Reads a maximum of tokens: −1 is what the context leaves, as is an absent one unless there is a default.
///
/// # Errors
/// When it is outside its range.
pub fn read_max_tokens(
    fields: &mut Fields,
    names: &[&str],
    default: MaxTokens,
) -> Result<MaxTokens, ApiError> {
    let mut max_tokens = default;
    for name in names {
        match fields.integer(name, -1, i64::from(u32::MAX))? {
            None => {}
            Some(-1) => max_tokens = MaxTokens::Context,
            Some(tokens) => max_tokens = MaxTokens::Exactly(tokens as usize),
        }
    }
    Ok(max_tokens)
}

/// Refuses fields that would change the answer and cannot be honoured.
///
/// # Errors
/// When one is set.
pub fn refuse_unsupported(fields: &mut Fields, n: usize) -> Result<(), ApiError> {
    fields.refuse(&[
        ("tools", Neutral::Empty),
        ("functions", Neutral::Empty),
        ("tool_choice", Neutral::OneOf(&["none", "auto"])),
        ("function_call", Neutral::OneOf(&["none", "auto"])),
        ("response_format", Neutral::Type("text")),
        ("logit_bias", Neutral::Empty),
        ("best_of", Neutral::Number(n as f64)),
    ])
}
