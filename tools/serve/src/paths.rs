//! The paths of the server, for logs and metrics.

/// All paths but those of single models.
pub const PATHS: &[&str] = &[
    "/",
    "/health",
    "/metrics",
    "/v1/models",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/fim/completions",
    "/fim/completions",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/infill",
    "/completion",
    "/api/version",
    "/api/tags",
    "/api/ps",
    "/api/show",
    "/api/generate",
    "/api/chat",
];
