//! Parts of a response that all requests share.

use crate::chat::Chat;
use crate::drain::Drain;
use crate::engine_thread::EngineHandle;
use crate::error::ApiError;
use crate::metrics::HttpMetrics;
use crate::models::Models;
use codelsi_experiment::inference_model::InferenceModel;
use codelsi_model::end_tokens::end_tokens;
use codelsi_model::tokenizer::Tokenizer;
use std::path::PathBuf;
use std::sync::Arc;

/// The state of the server.
pub struct App {
    pub model: Arc<InferenceModel>,
    pub chat: Chat,
    pub engine: EngineHandle,
    pub models: Models,
    /// Folder below which adapters may be loaded while serving; none: not at all.
    pub adapter_dir: Option<PathBuf>,
    /// Held while an adapter is loaded or unloaded.
    pub adapter_turn: tokio::sync::Mutex<()>,
    /// Tokens of a prompt and its answer together.
    pub max_model_len: usize,
    pub drain: Drain,
    pub http: HttpMetrics,
    /// True if the debug log may hold prompts.
    pub log_prompts: bool,
}

impl App {
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.tokenizer
    }

    /// Returns the tokens that end an answer to a prompt: in a list of its tokens they do not appear.
    pub fn end_tokens(&self, stop_token_ids: &[u32]) -> Vec<u32> {
        let mut ids = end_tokens(self.model.checkpoint.config(), Some(self.tokenizer()));
        ids.extend(stop_token_ids);
        ids
    }

    /// Runs work of more than a moment (encoding a prompt, reading an adapter) beside the threads that serve connections.
    ///
    /// # Errors
    /// When the work fails.
    pub async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&app)).await;
        done.unwrap_or_else(|_| Err(ApiError::internal("the request failed in the server; see its log")))
    }

    /// Refuses a text that certainly exceeds the model's positions, before it is encoded.
    ///
    /// # Errors
    /// When it does.
    pub fn check_text(&self, bytes: usize) -> Result<(), ApiError> {
        /// Bytes of a long token: the longest runs of spaces in a vocabulary.
        const LONGEST_TOKEN: usize = 128;
        if bytes <= self.max_model_len.saturating_mul(LONGEST_TOKEN) {
            return Ok(());
        }
        Err(ApiError::too_long(format!(
            "a prompt of {bytes} bytes exceeds the context of {} tokens; shorten it",
            self.max_model_len
        )))
    }
}
