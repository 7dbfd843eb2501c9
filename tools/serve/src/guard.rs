//! The rules that come before every route: the host and the origin of a request, its key, the type of its body. They keep
//! web pages of others, and names that are pointed at this machine (DNS rebinding), away from a server that the browser of
//! its owner can reach.

use crate::app::App;
use crate::call::Connection;
use crate::error::{ApiError, ErrorForm};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;

/// Rules of a server.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Address that the server is bound to.
    pub bound: Option<IpAddr>,
    /// Host names that are accepted beside it and `localhost`.
    pub allow_hosts: Vec<String>,
    /// Origins that are accepted beside the server's own.
    pub allow_origins: Vec<String>,
    /// Digest of the key.
    pub key: Option<[u8; 32]>,
}

/// Digest of a key: of two keys only digests are compared, which say nothing about the length.
pub fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// State of the middleware.
#[derive(Clone)]
pub struct Guard {
    pub rules: Arc<Rules>,
    pub app: Arc<App>,
}

/// Checks a request, answers it, and writes errors in the form of its path.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let (form, method) = (ErrorForm::of_path(&path), request.method().clone());
    let (mut response, cors) = match guard.rules.check_sender(&request) {
        Err(error) => (error.into_response(), None),
        // A browser's question before a request, which has no key.
        Ok(cors) if method == Method::OPTIONS => (StatusCode::NO_CONTENT.into_response(), cors),
        Ok(cors) => match guard.rules.check_request(&request) {
            Err(error) => (error.into_response(), cors),
            Ok(()) => (next.run(request).await, cors),
        },
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        // axum says which methods a path takes.
        let allow = response.headers_mut().remove(header::ALLOW);
        response = error.response(form);
        allow.into_iter().for_each(|allow| drop(response.headers_mut().insert(header::ALLOW, allow)));
    }
    if let Some(origin) = cors {
        add_cors(response.headers_mut(), origin);
    }
    let status = response.status().as_u16();
    guard.app.http.count(route(&path), status);
    tracing::info!(%method, path = route(&path), status);
    if method == Method::HEAD { response.map(|_| Body::empty()) } else { response }
}

impl Rules {
    /// Checks host and origin. Returns the allowed origin that the response names, which a page reads a refusal by, too.
    fn check_sender(&self, request: &Request) -> Result<Option<HeaderValue>, ApiError> {
        let headers = request.headers();
        let local = request.extensions().get::<Connection>().map(|connection| connection.local.ip());
        let host = self.check_host(headers, local)?;
        if let Some(authority) = request.uri().authority() {
            self.check_name(host_name(authority.as_str()), local)?;
        }
        self.check_origin(headers, host)
    }

    /// Checks the key and the type of the body.
    fn check_request(&self, request: &Request) -> Result<(), ApiError> {
        let (headers, path) = (request.headers(), request.uri().path());
        if !matches!(path, "/" | "/health") {
            self.check_key(headers)?;
        }
        match *request.method() == Method::POST {
            true => check_content_type(headers, ErrorForm::of_path(path) == ErrorForm::Ollama),
            false => Ok(()),
        }
    }

    /// Returns the request's host, which must be the server's.
    fn check_host<'h>(&self, headers: &'h HeaderMap, local: Option<IpAddr>) -> Result<&'h str, ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(ApiError::invalid("a request names one host; send one Host header"));
        };
        let host = host.to_str().map_err(|_| ApiError::invalid("the Host header is no name"))?;
        self.check_name(host_name(host), local)?;
        Ok(host)
    }

    fn check_name(&self, name: &str, local: Option<IpAddr>) -> Result<(), ApiError> {
        let is_local = |ip: IpAddr| Some(ip) == local || Some(ip) == self.bound;
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        let known = name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|ip| is_local(ip.to_canonical()) || is_local(ip))
            || self.allow_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        match known {
            true => Ok(()),
            false => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "the Host header names neither this server's address nor localhost; start it with --allow-host to accept \
                 another name",
            )),
        }
    }

    /// Returns the origin to name in the response, if the request has an allowed one that is not the server's own.
    fn check_origin(&self, headers: &HeaderMap, host: &str) -> Result<Option<HeaderValue>, ApiError> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(None) };
        let refused = || {
            ApiError::new(
                StatusCode::FORBIDDEN,
                "requests of this origin are not accepted; start the server with --allow-origin to accept it",
            )
        };
        let text = origin.to_str().ok().filter(|_| origins.next().is_none()).ok_or_else(refused)?;
        if self.allow_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)) {
            return Ok(Some(origin.clone()));
        }
        // https: behind a proxy.
        let of_scheme =
            |scheme: &str| text.strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host));
        if of_scheme("http://") || of_scheme("https://") { Ok(None) } else { Err(refused()) }
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.key else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|text| {
            let (scheme, key) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let given = digest(given.unwrap_or_default());
        // Every byte is looked at, wherever the first difference is.
        let difference = key.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        match std::hint::black_box(difference) {
            0 => Ok(()),
            _ => Err(ApiError {
                code: Some("invalid_api_key"),
                ..ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "the key is missing or wrong; send the header Authorization: Bearer KEY",
                )
            }),
        }
    }
}

/// Returns the name in `name:port`.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Checks that a body is JSON. On Ollama's paths the type may be absent, or what curl sends where none is given; a page of
/// another origin that sends such a form is refused by its origin.
fn check_content_type(headers: &HeaderMap, may_be_absent: bool) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = given.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("application/json") => Ok(()),
        None | Some("application/x-www-form-urlencoded") if may_be_absent => Ok(()),
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON; send the header Content-Type: application/json",
        )),
    }
}

fn add_cors(headers: &mut HeaderMap, origin: HeaderValue) {
    let fixed: [(HeaderName, &'static str); 4] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
        (header::VARY, "Origin"),
    ];
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    fixed.into_iter().for_each(|(name, value)| drop(headers.insert(name, HeaderValue::from_static(value))));
}

/// Returns the route of a path, for logs and metrics: a client's own text goes into neither.
fn route(path: &str) -> &str {
    match path {
        _ if crate::paths::PATHS.contains(&path) => path,
        _ if path.starts_with("/v1/models/") => "/v1/models/{id}",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            bound: Some([127, 0, 0, 1].into()),
            allow_hosts: vec!["code.example".into()],
            allow_origins: vec!["https://editor.example".into()],
            key: Some(digest("secret")),
        }
    }

    fn status(rules: &Rules, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let checked = rules.check_sender(&request).and_then(|_| rules.check_request(&request));
        checked.map_or_else(|e| e.status.as_u16(), |()| 200)
    }

    #[test]
    fn hosts_are_checked_on_every_path() {
        let rules = Rules { key: None, ..rules() };
        for (host, expected) in [
            ("127.0.0.1:8080", 200),
            ("127.0.0.1", 200),
            ("localhost:1", 200),
            ("LOCALHOST", 200),
            ("code.example", 200),
            ("evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.2", 403),
            ("[::1]:80", 403),
            ("localhost@evil.example", 403),
            ("", 403),
            (":80", 403),
        ] {
            for path in ["/", "/health", "/v1/models", "/nowhere"] {
                assert_eq!(status(&rules, "GET", path, &[("host", host)]), expected, "{host} {path}");
            }
        }
        assert_eq!(status(&rules, "GET", "/", &[]), 400);
        assert_eq!(status(&rules, "GET", "/", &[("host", "localhost"), ("host", "evil.example")]), 400);
        assert_eq!(status(&rules, "GET", "http://evil.example/", &[("host", "localhost")]), 403);
    }

    #[test]
    fn origins_of_others_are_refused() {
        let rules = Rules { key: None, ..rules() };
        for (origin, expected) in [
            ("http://localhost:8080", 200),
            ("https://editor.example", 200),
            ("http://localhost:3000", 403),
            ("http://127.0.0.1:8080", 403),
            ("https://example.org", 403),
            ("null", 403),
            ("", 403),
        ] {
            for method in ["GET", "POST", "OPTIONS"] {
                let headers =
                    [("host", "localhost:8080"), ("origin", origin), ("content-type", "application/json")];
                assert_eq!(status(&rules, method, "/health", &headers), expected, "{method} {origin}");
            }
        }
    }

    #[test]
    fn a_key_is_asked_for_everywhere_but_at_the_door() {
        let rules = rules();
        let with = |path: &str, key: &str| {
            status(&rules, "GET", path, &[("host", "localhost"), ("authorization", key)])
        };
        for (key, expected) in [
            ("Bearer secret", 200),
            ("bearer secret", 200),
            ("Bearer wrong", 401),
            ("Bearer", 401),
            ("Bearer ", 401),
            ("secret", 401),
            ("Basic secret", 401),
            ("", 401),
        ] {
            assert_eq!(with("/v1/models", key), expected, "{key}");
        }
        assert_eq!(
            [with("/", ""), with("/health", ""), with("/metrics", ""), with("/x", "")],
            [200, 200, 401, 401]
        );
    }

    #[test]
    fn a_body_is_json() {
        let rules = Rules { key: None, ..rules() };
        let post = |path: &str, content_type: Option<&str>| {
            let headers = [("host", "localhost"), ("content-type", content_type.unwrap_or_default())];
            status(&rules, "POST", path, &headers[..1 + usize::from(content_type.is_some())])
        };
        assert_eq!(post("/v1/completions", Some("application/json; charset=utf-8")), 200);
        assert_eq!(post("/v1/completions", Some("text/plain")), 415);
        assert_eq!(post("/v1/completions", None), 415);
        assert_eq!(post("/api/generate", None), 200);
        assert_eq!(post("/api/generate", Some("application/x-www-form-urlencoded")), 200);
        assert_eq!(post("/api/generate", Some("text/plain")), 415);
    }
}
