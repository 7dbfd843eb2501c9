//! The routes, behind the rules of [`crate::guard`].

use crate::app::App;
use crate::error::ApiError;
use crate::guard::{Guard, Rules, guard};
use crate::{adapters, health, llama_cpp, mistral, ollama, openai, page};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use std::sync::Arc;

/// Returns the service of all connections.
pub fn router(app: Arc<App>, rules: Rules) -> Router {
    let state = Guard { rules: Arc::new(rules), app: app.clone() };
    Router::new()
        .route("/", get(page::page))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::one))
        .route("/v1/completions", post(openai::completions::completions))
        .route("/v1/chat/completions", post(openai::chat::chat_completions))
        .route("/v1/fim/completions", post(mistral::fim_completions))
        .route("/fim/completions", post(mistral::fim_completions))
        .route("/v1/load_lora_adapter", post(adapters::load))
        .route("/v1/unload_lora_adapter", post(adapters::unload))
        .route("/infill", post(llama_cpp::infill))
        .route("/completion", post(llama_cpp::completion))
        .route("/api/version", get(ollama::models::version))
        .route("/api/tags", get(ollama::models::tags))
        .route("/api/ps", get(ollama::models::ps))
        .route("/api/show", post(ollama::models::show))
        .route("/api/generate", post(ollama::generate::generate))
        .route("/api/chat", post(ollama::generate::chat))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state, guard))
        .with_state(app)
}

async fn unknown_path() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is no such path; doc/serve.md lists those that there are")
}

async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}
