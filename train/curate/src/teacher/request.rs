//! Requests to a teacher, and the trait of a model that answers them.

use codelsi_engine::Result;

/// A request to a teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherRequest {
    pub messages: Vec<ChatMessage>,
    pub temperature: f32,
    pub max_tokens: usize,
    /// Seed of the sampling, at most 63 bits.
    pub seed: u64,
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system` or `user`.
    pub role: &'static str,
    pub content: String,
}

/// A model that answers requests.
pub trait Teacher {
    /// The name of the model, which is part of the keys of cached answers.
    fn name(&self) -> &str;

    /// Answers all requests. Calls `answered` with the index and the answer of each as soon as it has arrived, from any
    /// thread.
    ///
    /// # Errors
    /// When a request cannot be answered, or `answered` fails.
    fn answer(&mut self, requests: &[&TeacherRequest], answered: &OnAnswer) -> Result<()>;
}

/// A callback for answers: (index of the request, answer).
pub type OnAnswer<'a> = dyn Fn(usize, String) -> Result<()> + Sync + 'a;
