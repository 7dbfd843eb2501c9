//! A client of an OpenAI-compatible server, with retries.

use codelsi_engine::{Error, Result, interrupt};
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Concurrent requests.
const MAX_IN_FLIGHT: usize = 8;
/// Attempts of a request while the server is busy or unreachable.
const MAX_TRIES: u32 = 6;
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Bytes of the bodies of all requests of this process.
static BYTES_SENT: AtomicU64 = AtomicU64::new(0);

/// Returns the number of bytes that this process sent to servers, the bodies of all requests.
pub fn bytes_sent() -> u64 {
    BYTES_SENT.load(Ordering::Relaxed)
}

/// A client of one server.
pub struct ApiClient {
    agent: ureq::Agent,
    /// Base URL, without a trailing slash.
    address: String,
    /// Environment variable of the API key, and its value.
    key: (String, Option<String>),
}

/// A server's response.
enum ServerResponse {
    Choices(Vec<String>),
    /// A reason to try again, and the pause if the server asks for one.
    Busy(String, Option<Duration>),
}

/// Returns true for an http(s) address.
pub fn is_address(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

impl ApiClient {
    /// Makes a client of the server at `address`, as in `https://host/v1`. The API key, if the server requires one,
    /// comes from the environment variable `key`, or else from CODELSI_API_KEY or OPENAI_API_KEY.
    ///
    /// # Errors
    /// When the address is not an http(s) address, or the named variable is not set.
    pub fn new(address: &str, key: Option<&str>) -> Result<Self> {
        if !is_address(address) {
            return Err(Error::new(format!("`{address}` is no address; give one as https://host/v1")));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(600)))
            .http_status_as_error(false)
            .build();
        let variable = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
        let key = match key {
            Some(name) => match variable(name) {
                None => return Err(Error::new(format!("the environment variable {name} holds no key"))),
                value => (name.to_owned(), value),
            },
            None => {
                ("CODELSI_API_KEY".into(), variable("CODELSI_API_KEY").or_else(|| variable("OPENAI_API_KEY")))
            }
        };
        Ok(ApiClient { agent: config.into(), address: address.trim_end_matches('/').to_owned(), key })
    }

    /// Returns the server's base URL.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Posts `body` to `path` and returns the texts of the response's choices. Retries with exponential backoff while
    /// the server is busy.
    ///
    /// # Errors
    /// When the server rejects the request, or no attempt gets a response.
    pub fn choices(&self, path: &str, body: &Value) -> Result<Vec<String>> {
        let mut pause = Duration::from_secs(1);
        let mut reason = String::new();
        for _ in 0..MAX_TRIES {
            interrupt::check("the answers so far are kept")?;
            match self.post(path, body)? {
                ServerResponse::Choices(choices) if choices.is_empty() => {
                    return Err(Error::new("the response has no choices"));
                }
                ServerResponse::Choices(choices) => return Ok(choices),
                ServerResponse::Busy(message, after) => {
                    reason = message;
                    std::thread::sleep(after.unwrap_or(pause).min(MAX_PAUSE));
                    pause *= 2;
                }
            }
        }
        Err(Error::new(format!("no answer in {MAX_TRIES} tries: {reason}; run the command again to go on")))
    }

    fn post(&self, path: &str, body: &Value) -> Result<ServerResponse> {
        let mut request = self.agent.post(format!("{}/{path}", self.address));
        if let Some(key) = &self.key.1 {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let body = body.to_string();
        BYTES_SENT.fetch_add(body.len() as u64, Ordering::Relaxed);
        let request = request.header("Content-Type", "application/json");
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(e) => return Ok(ServerResponse::Busy(e.to_string(), None)),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse::<f64>().ok());
        let after = after.filter(|seconds| (0.0..=1e6).contains(seconds));
        let text = match response.body_mut().read_to_string() {
            Ok(text) => text,
            Err(e) => return Ok(ServerResponse::Busy(e.to_string(), None)),
        };
        match status {
            200 => parse_choices(&text).map(ServerResponse::Choices),
            429 | 500..600 => Ok(ServerResponse::Busy(
                format!("{status}: {}", excerpt(&text)),
                after.map(Duration::from_secs_f64),
            )),
            401 | 403 => Err(Error::new(format!("{status}: {}; set {}", excerpt(&text), self.key.0))),
            _ => Err(Error::new(format!("{status}: {}", excerpt(&text)))),
        }
    }
}

/// Runs `f` in a thread pool in which parallel iterators keep `MAX_IN_FLIGHT` requests in flight.
pub fn in_request_pool<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(MAX_IN_FLIGHT).build();
    Ok(pool.map_err(|e| Error::new(e.to_string()))?.install(f))
}

/// Parses the texts of a response's choices.
fn parse_choices(text: &str) -> Result<Vec<String>> {
    let wrong = || Error::new(format!("the response has no choices with a text: {}", excerpt(text)));
    let response: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let choices = response["choices"].as_array().ok_or_else(wrong)?;
    let text = |choice: &Value| {
        let content = choice["message"]["content"].as_str().or(choice["text"].as_str());
        content.map(str::to_owned).ok_or_else(wrong)
    };
    choices.iter().map(text).collect()
}

/// Returns the beginning of a response in one line, for error messages.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
