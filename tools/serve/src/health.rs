//! `/health` and `/metrics`.

use crate::app::App;
use crate::openai::json_response;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

/// `GET /health`: 503 once the server is to end.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    match app.drain.is_draining() {
        false => json_response(&json!({ "status": "ok" })),
        true => {
            let mut response = json_response(&json!({ "status": "draining" }));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

/// `GET /metrics`.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.http.exposition(&app.engine.stats(), app.engine.latencies());
    let mut response = text.into_response();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
