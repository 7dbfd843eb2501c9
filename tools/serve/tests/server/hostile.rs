//! Requests that no proper client sends: each gets a clear refusal, and the server answers the next.

use crate::client::{connect, exchange, read_answer, request};
use crate::fixture::{TestServer, completion};
use serde_json::{Value, json};
use std::io::Write;

fn is_healthy(server: &TestServer) {
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    server.ask("/v1/completions", &completion("x"));
}

#[test]
fn malformed_bodies_are_refused_in_one_sentence() {
    let server = TestServer::start();
    let deep = format!("{{\"prompt\": {}", "[".repeat(200_000));
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"x\"",
        b"{\"prompt\": \"\xff\xfe\"}",
        b"{\"prompt\": \"\\ud83d\"}",
        b"{\"prompt\": \"x\", \"temperature\": NaN}",
        b"{\"prompt\": \"x\", \"temperature\": 1e999}",
        b"{\"prompt\": {\"a\": 1}}",
        b"{\"prompt\": [1, \"x\"]}",
        deep.as_bytes(),
    ];
    for path in
        ["/v1/completions", "/completion", "/infill", "/api/generate", "/api/chat", "/v1/chat/completions"]
    {
        for body in bodies {
            let answer = server.post_bytes(path, body);
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
            assert_eq!(answer.status, 400, "{path} {shown}: {answer:?}");
            let error = &answer.json()["error"];
            let message = error["message"].as_str().or(error.as_str()).unwrap();
            assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        }
    }
    for prompt in [
        json!([]),
        json!([[]]),
        json!([-1]),
        json!([1.5]),
        json!([99_999_999]),
        json!([4_294_967_296_u64]),
        json!(7),
    ] {
        let answer = server.post("/v1/completions", &json!({"prompt": prompt}));
        assert_eq!(answer.status, 400, "{prompt}: {answer:?}");
    }
    let long = server.post("/v1/completions", &json!({"prompt": "x ".repeat(5_000)}));
    assert_eq!((long.status, &long.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    let longer = server.post("/v1/completions", &json!({"prompt": "x".repeat(1_000_000)}));
    assert_eq!((longer.status, &longer.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    is_healthy(&server);
}

#[test]
fn bodies_too_large_and_of_another_type_are_refused() {
    let server = TestServer::start();
    let large = format!("{{\"prompt\": \"{}\"}}", "x".repeat(17 << 20));
    let answer = server.post_bytes("/v1/completions", large.as_bytes());
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("16 MiB"));
    // Announced alone, in a length that nobody could send.
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\
                Content-Length: 999999999999\r\n\r\n";
    assert_eq!(exchange(server.address, head.as_bytes()).status, 413);
    let plain = request("POST", "/v1/completions", &[("Content-Type", "text/plain")], b"{\"prompt\": \"x\"}");
    assert_eq!(exchange(server.address, &plain).status, 415);
    is_healthy(&server);
}

#[test]
fn hosts_and_origins_of_others_are_refused_without_cors() {
    let server = TestServer::start();
    let send = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        exchange(server.address, &request(method, path, &headers, b"{\"prompt\": \"x\", \"max_tokens\": 1}"))
    };
    let foreign = send("POST", "/v1/completions", &[("Host", "evil.example")]);
    assert_eq!(foreign.status, 403);
    let own = format!("http://{}", server.address);
    let host = server.address.to_string();
    assert_eq!(send("POST", "/v1/completions", &[("Host", &host), ("Origin", &own)]).status, 200);
    for path in ["/", "/health", "/v1/completions", "/api/generate", "/metrics", "/nowhere"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = send(method, path, &[("Origin", "https://example.org")]);
            assert_eq!(answer.status, 403, "{method} {path}");
            assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{answer:?}");
        }
    }
    assert_eq!(send("OPTIONS", "/v1/completions", &[]).status, 204);
    is_healthy(&server);
}

#[test]
fn an_allowed_origin_gets_cors_headers_and_a_key_is_asked_for() {
    let server = TestServer::with(true, |options, _| {
        options.access.allow_origins = vec!["https://editor.example".into()];
        options.access.key = Some("a secret".into());
    });
    let send = |method: &str, path: &str, headers: &[(&str, &str)]| {
        exchange(server.address, &request(method, path, headers, b""))
    };
    let origin = ("Origin", "https://editor.example");
    let preflight = send("OPTIONS", "/v1/models", &[origin, ("Access-Control-Request-Method", "POST")]);
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some(origin.1)));
    for (key, status) in
        [("Bearer a secret", 200), ("Bearer wrong", 401), ("Bearer undefined", 401), ("", 401)]
    {
        let answer = send("GET", "/v1/models", &[origin, ("Authorization", key)]);
        assert_eq!(answer.status, status, "{key}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin.1));
    }
    assert_eq!(send("GET", "/v1/models", &[]).json()["error"]["code"], "invalid_api_key");
    assert_eq!([send("GET", "/", &[]).status, send("GET", "/health", &[]).status], [200, 200]);
    assert_eq!([send("GET", "/nowhere", &[]).status, send("GET", "/metrics", &[]).status], [401, 401]);
}

#[test]
fn paths_and_methods_that_there_are_not() {
    let server = TestServer::start();
    for path in [
        "/v1/../etc/passwd",
        "//v1/models",
        "/V1/models",
        "/v1/models/../completions",
        "/%2e%2e/",
        "/api",
        "/v1/embeddings",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.get("/v1/models/%ff").status, 400);
    let answer = server.get("/v1/completions");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert!(answer.json()["error"]["message"].is_string());
    for head in [
        "GARBAGE",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: \u{e9}",
    ] {
        let answer = exchange(server.address, format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
        assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
    }
    is_healthy(&server);
}

#[test]
fn slow_and_broken_connections_hold_nobody_up() {
    let server = TestServer::start();
    let body = completion("x").to_string();
    let sent = request("POST", "/v1/completions", &[("Content-Type", "application/json")], body.as_bytes());
    // Open, half a head, half a body, and gone in the middle.
    let held: Vec<_> = [0, 20, sent.len() - 5]
        .map(|length| {
            let mut stream = connect(server.address);
            stream.write_all(&sent[..length]).unwrap();
            stream
        })
        .into();
    drop({
        let mut stream = connect(server.address);
        stream.write_all(&sent[..sent.len() - 5]).unwrap();
        stream
    });
    is_healthy(&server);
    for (mut stream, done) in held.into_iter().zip([0, 20, sent.len() - 5]) {
        stream.write_all(&sent[done..]).unwrap();
        assert_eq!(read_answer(stream).status, 200);
    }
}

#[test]
fn more_requests_than_allowed_are_told_to_try_again() {
    let server = TestServer::with(true, |options, _| options.limits.max_requests = 2);
    let long = json!({"prompt": "x", "max_tokens": 400, "temperature": 1, "ignored": null});
    let statuses: Vec<(u16, Option<String>)> = std::thread::scope(|scope| {
        let ask = || {
            let answer = server.post("/v1/completions", &long);
            (answer.status, answer.header("retry-after").map(String::from))
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().any(|(status, _)| *status == 200), "{statuses:?}");
    assert!(
        statuses.iter().all(|(status, after)| *status == 200 || (*status == 429 && after.is_some())),
        "{statuses:?}"
    );
    let many: Value = vec!["x"; 3].into();
    assert_eq!(server.post("/v1/completions", &json!({"prompt": many, "max_tokens": 1})).status, 429);
    server.wait_until_idle();
    is_healthy(&server);
}
