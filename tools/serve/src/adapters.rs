//! Adapters that are loaded and unloaded while the server runs, by vLLM's names: `/v1/load_lora_adapter` and
//! `/v1/unload_lora_adapter`. A path leads nowhere but below the folder that was given for it.

use crate::app::App;
use crate::call::Call;
use crate::error::ApiError;
use crate::openai::json_response;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use codelsi_model::adapter::Adapter;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Characters of a name.
const MAX_NAME: usize = 128;

/// `POST /v1/load_lora_adapter`.
pub async fn load(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let mut fields = call.fields;
    let root = adapter_dir(&app)?;
    let name = fields.text("lora_name")?.ok_or_else(|| ApiError::field("lora_name", "is missing"))?;
    let path = fields.text("lora_path")?.ok_or_else(|| ApiError::field("lora_path", "is missing"))?;
    fields.ignore_rest();
    check_name(&name).map_err(|message| ApiError::field("lora_name", message))?;
    // One at a time: two of one name would both be read.
    let _turn = app.adapter_turn.lock().await;
    if app.models.find(Some(&name)).is_ok() {
        return Err(ApiError::field("lora_name", format!("{name:?} is the name of another model")));
    }
    let folder = below(&root, &path)?;
    let adapter = app.compute(move |app| Ok(Adapter::load(&folder, app.model.checkpoint.config())?)).await?;
    let id = app.engine.load_adapter(adapter).await?;
    if let Err(error) = app.models.add(&name, id) {
        app.engine.unload_adapter(id);
        return Err(error);
    }
    tracing::info!(name, "adapter loaded");
    Ok(json_response(&json!({ "status": "success", "message": format!("adapter {name} is loaded") })))
}

/// `POST /v1/unload_lora_adapter`.
pub async fn unload(State(app): State<Arc<App>>, call: Call) -> Result<Response, ApiError> {
    let mut fields = call.fields;
    adapter_dir(&app)?;
    let name = fields.text("lora_name")?.ok_or_else(|| ApiError::field("lora_name", "is missing"))?;
    fields.ignore_rest();
    let _turn = app.adapter_turn.lock().await;
    let model = app.models.remove(&name)?;
    model.adapter.iter().for_each(|&id| app.engine.unload_adapter(id));
    tracing::info!(name, "adapter unloaded");
    Ok(json_response(&json!({ "status": "success", "message": format!("adapter {name} is unloaded") })))
}

/// Checks the name of an adapter.
///
/// # Errors
/// When it is empty, too long, or holds what no name holds.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    match !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(allowed) {
        true => Ok(()),
        false => Err(format!("is not 1 to {MAX_NAME} letters, digits and -_./:")),
    }
}

fn adapter_dir(app: &App) -> Result<PathBuf, ApiError> {
    let off = "adapters are not loaded while this server runs; start it with --adapter-dir";
    app.adapter_dir.clone().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, off))
}

/// Returns the folder of a path, which may be relative to `root` and must lie below it. What is elsewhere and what does not
/// exist have one message, so that nobody learns what there is.
fn below(root: &Path, path: &str) -> Result<PathBuf, ApiError> {
    let found = root.join(path).canonicalize().ok();
    let found = found.filter(|found| found.starts_with(root) && found != root && found.is_dir());
    found.ok_or_else(|| ApiError::field("lora_path", "is no folder below the server's --adapter-dir"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_leads_nowhere_but_below_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("adapters").canonicalize();
        assert!(root.is_err());
        let root = folder.path().join("adapters");
        for name in ["adapters/a", "adapters-of-others", "outside"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let root = root.canonicalize().unwrap();
        fs::write(root.join("file"), "").unwrap();
        symlink(folder.path().join("outside"), root.join("link")).unwrap();
        symlink("a", root.join("inner")).unwrap();
        let inside = root.join("a");
        for path in ["a", "./a", "a/../a", inside.to_str().unwrap(), "inner"] {
            assert_eq!(below(&root, path).unwrap(), inside, "{path}");
        }
        for path in [
            "",
            ".",
            "..",
            "../outside",
            "../adapters-of-others",
            "link",
            "file",
            "/etc",
            "/",
            "b",
            "a\0",
            "~",
        ] {
            assert!(below(&root, path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_name_holds_no_surprises() {
        assert!(check_name("team/private-v2.1:ts").is_ok());
        for bad in ["", "a b", "a\n", "é", "\"", &"x".repeat(200)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
