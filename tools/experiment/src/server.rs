//! A server that speaks OpenAI's protocol, asked until it answers.

use codelsi_engine::{Error, Result};
use serde_json::Value;
use std::time::Duration;

/// Questions under way at once.
const AT_ONCE: usize = 8;
/// How often one is asked again when the server is busy or out of reach.
const TRIES: u32 = 6;
/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(60);

/// Where a server is and how it is spoken to.
pub struct Server {
    agent: ureq::Agent,
    /// Without a slash at its end.
    address: String,
    /// The environment variable that holds the key, and what it holds.
    key: (String, Option<String>),
}

/// What a server said.
enum Answer {
    Choices(Vec<String>),
    /// To be asked again, after this time if it says so.
    Busy(String, Option<Duration>),
}

/// Whether a text is an address and no folder.
pub fn is_address(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

impl Server {
    /// The server at `address`, as in `https://host/v1`. Its key, if it wants one, is in the environment variable
    /// `key`, or else in CODELSI_API_KEY or OPENAI_API_KEY.
    ///
    /// # Errors
    /// When the address is none, or the named variable is not set.
    pub fn new(address: &str, key: Option<&str>) -> Result<Self> {
        if !is_address(address) {
            return Err(Error::new(format!("`{address}` is no address; give one as https://host/v1")));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(600)))
            .http_status_as_error(false)
            .build();
        let named = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
        let key = match key {
            Some(name) => match named(name) {
                None => return Err(Error::new(format!("the environment variable {name} holds no key"))),
                found => (name.to_owned(), found),
            },
            None => ("CODELSI_API_KEY".into(), named("CODELSI_API_KEY").or_else(|| named("OPENAI_API_KEY"))),
        };
        Ok(Server { agent: config.into(), address: address.trim_end_matches('/').to_owned(), key })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The texts of the answer to `body`, posted to `path`. Asks again, with growing pauses, while the server is busy.
    ///
    /// # Errors
    /// What the server refuses, or that it gave no answer in all tries.
    pub fn choices(&self, path: &str, body: &Value) -> Result<Vec<String>> {
        let mut pause = Duration::from_secs(1);
        let mut why = String::new();
        for _ in 0..TRIES {
            match self.once(path, body)? {
                Answer::Choices(choices) if choices.is_empty() => return Err(Error::new("gave no choice")),
                Answer::Choices(choices) => return Ok(choices),
                Answer::Busy(said, after) => {
                    why = said;
                    std::thread::sleep(after.unwrap_or(pause).min(LONGEST));
                    pause *= 2;
                }
            }
        }
        Err(Error::new(format!("no answer in {TRIES} tries: {why}; run the command again to go on")))
    }

    fn once(&self, path: &str, body: &Value) -> Result<Answer> {
        let mut request = self.agent.post(format!("{}/{path}", self.address));
        if let Some(key) = &self.key.1 {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send_json(body) {
            Ok(response) => response,
            Err(e) => return Ok(Answer::Busy(e.to_string(), None)),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let text = match response.body_mut().read_to_string() {
            Ok(text) => text,
            Err(e) => return Ok(Answer::Busy(e.to_string(), None)),
        };
        match status {
            200 => choices(&text).map(Answer::Choices),
            429 | 500..600 => Ok(Answer::Busy(
                format!("{status}: {}", beginning(&text)),
                after.map(Duration::from_secs_f64),
            )),
            401 | 403 => Err(Error::new(format!("{status}: {}; set {}", beginning(&text), self.key.0))),
            _ => Err(Error::new(format!("{status}: {}", beginning(&text)))),
        }
    }
}

/// Runs `f` where parallel iterators keep as many questions under way as a server is asked at once.
pub fn at_once<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(AT_ONCE).build();
    Ok(pool.map_err(|e| Error::new(e.to_string()))?.install(f))
}

/// The texts of a response.
fn choices(text: &str) -> Result<Vec<String>> {
    let wrong = || Error::new(format!("its answer has no choices with a text: {}", beginning(text)));
    let response: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let choices = response["choices"].as_array().ok_or_else(wrong)?;
    let text = |choice: &Value| {
        let said = choice["message"]["content"].as_str().or(choice["text"].as_str());
        said.map(str::to_owned).ok_or_else(wrong)
    };
    choices.iter().map(text).collect()
}

/// The beginning of what a server said, in one line.
fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}
