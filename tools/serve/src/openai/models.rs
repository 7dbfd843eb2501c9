//! `/v1/models`: the base and its adapters.

use crate::app::App;
use crate::error::ApiError;
use crate::models::ServedModel;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// A JSON response.
pub fn json_response(value: &Value) -> Response {
    let mut response = value.to_string().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `GET /v1/models`.
pub async fn list(State(app): State<Arc<App>>) -> Response {
    let data: Vec<Value> = app.models.all().iter().map(|model| describe(&app, model)).collect();
    json_response(&json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`; an id may hold slashes.
pub async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::invalid("the model's id in the path is no UTF-8"))?;
    let model = app.models.find(Some(&id).filter(|id| !id.is_empty()).map(|id| &id[..]))?;
    Ok(json_response(&describe(&app, &model)))
}

fn describe(app: &App, model: &ServedModel) -> Value {
    let base = &app.models.base().id;
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "codelsi",
        "root": model.id,
        "parent": model.adapter.map(|_| base),
        "max_model_len": app.max_model_len,
    })
}
