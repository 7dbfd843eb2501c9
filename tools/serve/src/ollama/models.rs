//! `/api/version`, `/api/tags`, `/api/ps` and `/api/show`.

use crate::app::App;
use crate::call::Call;
use crate::error::ApiError;
use crate::infill;
use crate::models::ServedModel;
use crate::openai::json_response;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use codelsi_engine::DType;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The version of Ollama whose API this is: plugins ask for a minimum.
const OLLAMA_VERSION: &str = "0.9.0";

/// `GET /api/version`.
pub async fn version() -> Response {
    json_response(&json!({ "version": OLLAMA_VERSION }))
}

/// `GET /api/tags`.
pub async fn tags(State(app): State<Arc<App>>) -> Response {
    let models: Vec<Value> = app.models.all().iter().map(|model| entry(&app, model)).collect();
    json_response(&json!({ "models": models }))
}

/// `GET /api/ps`: all models are loaded, and stay.
pub async fn ps(State(app): State<Arc<App>>) -> Response {
    let models = app.models.all().into_iter().map(|model| {
        let mut entry = entry(&app, &model);
        // Far away, and a time that every client can read.
        entry["expires_at"] = "2999-12-31T23:59:59Z".into();
        entry["size_vram"] = entry["size"].clone();
        entry["context_length"] = app.max_model_len.into();
        entry
    });
    json_response(&json!({ "models": models.collect::<Vec<_>>() }))
}

/// `POST /api/show`.
pub async fn show(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let mut fields = call.fields;
    let (name, model) = (fields.text("name")?, fields.text("model")?);
    fields.ignore_rest();
    let name = model.or(name).ok_or_else(|| ApiError::field("model", "is missing"))?;
    let model = app.models.find(Some(&name))?;
    let tokenizer = app.tokenizer();
    let mut capabilities = vec!["completion"];
    if infill::is_supported(tokenizer) {
        capabilities.push("insert");
    }
    let template = infill::ollama_template(tokenizer);
    let config = app.model.checkpoint.config();
    Ok(json_response(&json!({
        "modelfile": format!("FROM {}\nTEMPLATE \"\"\"{template}\"\"\"\n", app.models.base().id),
        "parameters": parameters(&app),
        "template": template,
        "details": details(&app, &model),
        "model_info": {
            "general.architecture": "llama",
            "general.basename": model.id,
            "general.parameter_count": config.parameters(),
            "llama.context_length": config.max_positions,
            "llama.embedding_length": config.hidden,
            "llama.block_count": config.layers,
            "llama.attention.head_count": config.heads,
            "llama.attention.head_count_kv": config.kv_heads,
            "llama.vocab_size": config.vocab,
        },
        "capabilities": capabilities,
        "modified_at": timestamp(model.created),
    })))
}

/// The parameters as a Modelfile has them, one a line.
fn parameters(app: &App) -> String {
    let stop = app.chat.stop().iter().map(|stop| format!("\n{:<30} {stop:?}", "stop"));
    format!("{:<30} {}", "num_ctx", app.max_model_len) + &stop.collect::<String>()
}

fn entry(app: &App, model: &ServedModel) -> Value {
    let name = format!("{}:latest", model.id);
    json!({
        "name": name,
        "model": name,
        "modified_at": timestamp(model.created),
        "size": app.model.checkpoint.byte_len(),
        "digest": digest(app, model),
        "details": details(app, model),
    })
}

fn details(app: &App, model: &ServedModel) -> Value {
    let parameters = app.model.checkpoint.config().parameters() as f64;
    let size = if parameters < 1e9 {
        format!("{:.1}M", parameters / 1e6)
    } else {
        format!("{:.1}B", parameters / 1e9)
    };
    json!({
        "parent_model": model.adapter.map_or("", |_| &app.models.base().id),
        "format": "safetensors",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": size,
        "quantization_level": match app.model.checkpoint.dtype() {
            DType::F32 => "F32",
            _ => "BF16",
        },
    })
}

/// Tells models from others: of the base its digest, of an adapter that and its name and time.
fn digest(app: &App, model: &ServedModel) -> String {
    let base = app.model.fingerprint();
    match model.adapter {
        None => base.to_owned(),
        Some(_) => {
            let text = format!("{base} {} {}", model.id, model.created);
            Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
        }
    }
}

/// Formats seconds since 1970.
fn timestamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
    time.unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
