//! Errors of the API: a status and one sentence, which each path's clients read in their own form.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::fmt::Display;

/// A refused or failed request.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// Field of the body that is wrong.
    pub param: Option<String>,
    /// Word for programs, e.g. `model_not_found`.
    pub code: Option<&'static str>,
}

/// The form of an error's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorForm {
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `{"error": "…"}`.
    Ollama,
}

impl ErrorForm {
    /// Returns the form that clients of a path read.
    pub fn of_path(path: &str) -> Self {
        if path.starts_with("/api/") { ErrorForm::Ollama } else { ErrorForm::OpenAi }
    }
}

impl ApiError {
    /// Makes an error.
    pub fn new(status: StatusCode, message: impl Display) -> Self {
        ApiError { status, message: one_line(&message.to_string()), param: None, code: None }
    }

    /// A request that cannot be carried out as it is (400).
    pub fn invalid(message: impl Display) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field with a value that cannot be used (400).
    pub fn field(name: &str, message: impl Display) -> Self {
        ApiError { param: Some(name.into()), ..ApiError::invalid(format!("`{name}` {message}")) }
    }

    /// A prompt that exceeds the model's positions (400).
    pub fn too_long(message: impl Display) -> Self {
        ApiError { code: Some("context_length_exceeded"), ..ApiError::invalid(message) }
    }

    /// A name that no model has (404).
    pub fn no_model(name: &str) -> Self {
        let name: String = name.chars().take(100).collect();
        let message = format!("there is no model {name:?}; GET /v1/models lists those that are served");
        ApiError {
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..ApiError::new(StatusCode::NOT_FOUND, message)
        }
    }

    /// A server that takes no more requests for now (429).
    pub fn overloaded(message: impl Display) -> Self {
        ApiError {
            code: Some("rate_limit_exceeded"),
            ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }

    /// A server that is ending (503).
    pub fn draining() -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is ending and takes no new requests")
    }

    /// A failure of the server's own (500).
    pub fn internal(message: impl Display) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The error's kind in OpenAI's API.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body in one of the forms.
    pub fn body(&self, form: ErrorForm) -> Value {
        match form {
            ErrorForm::Ollama => json!({ "error": self.message }),
            ErrorForm::OpenAi => json!({ "error": {
                "message": self.message,
                "type": self.kind(),
                "param": self.param,
                "code": self.code,
            } }),
        }
    }

    /// The response in one of the forms.
    pub fn response(&self, form: ErrorForm) -> Response {
        let mut response = (self.status, self.body(form).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl From<codelsi_engine::Error> for ApiError {
    fn from(error: codelsi_engine::Error) -> Self {
        ApiError::invalid(error)
    }
}

/// The error itself travels in the response's extensions to [`crate::guard`], which knows the path and writes the body.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Returns a message in one line.
fn one_line(message: &str) -> String {
    message.split('\n').map(str::trim).collect::<Vec<_>>().join(" ")
}
