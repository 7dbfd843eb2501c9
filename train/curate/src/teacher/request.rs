//! The requests that a teacher is sent, and the trait of a model that answers them.

use codelsi_engine::Result;

/// One thing to ask a teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub messages: Vec<Message>,
    pub temperature: f32,
    pub max_tokens: usize,
    /// Of the sampling, at most 63 bits.
    pub seed: u64,
}

/// A part of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system` or `user`.
    pub role: &'static str,
    pub content: String,
}

/// A model that answers.
pub trait Teacher {
    /// What tells it from other models.
    fn name(&self) -> &str;

    /// Answers every request; `answered` hears a request's number and its answer as soon as there is one, from any
    /// thread.
    ///
    /// # Errors
    /// When there is no hope of an answer, or `answered` fails.
    fn answer(&mut self, requests: &[&Request], answered: &Answered) -> Result<()>;
}

/// Who hears of answers.
pub type Answered<'a> = dyn Fn(usize, String) -> Result<()> + Sync + 'a;
