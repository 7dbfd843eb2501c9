//! Clients that go away, and the server's end.

use crate::client::{connect, request};
use crate::fixture::TestServer;
use serde_json::json;
use std::io::{Read, Write};

fn long_stream() -> Vec<u8> {
    let body = json!({"prompt": "x", "max_tokens": 480, "temperature": 1, "stream": true, "n": 4});
    let body = body.to_string();
    request("POST", "/v1/completions", &[("Content-Type", "application/json")], body.as_bytes())
}

#[test]
fn a_client_that_goes_away_frees_its_pages() {
    let server = TestServer::start();
    for stream in [true, false] {
        let mut connection = connect(server.address);
        let mut sent = long_stream();
        if !stream {
            let text = String::from_utf8(sent).unwrap();
            sent = text.replace("\"stream\":true", "\"stream\":null").into_bytes();
        }
        connection.write_all(&sent).unwrap();
        while server.metric("codelsi_num_sequences_running") == 0.0 {
            std::thread::yield_now();
        }
        if stream {
            connection.read_exact(&mut [0; 64]).unwrap();
        }
        let before = server.metric("codelsi_generation_tokens_total");
        drop(connection);
        server.wait_until_idle();
        let after = server.metric("codelsi_generation_tokens_total");
        assert!(after - before < 4.0 * 480.0, "it was cancelled");
    }
}

#[test]
fn the_end_waits_for_what_runs_and_takes_no_more() {
    let server = TestServer::start();
    let mut running = connect(server.address);
    running.write_all(&long_stream()).unwrap();
    let mut start = [0; 64];
    running.read_exact(&mut start).unwrap();
    server.begin_drain();
    let refused = server.post("/v1/completions", &json!({"prompt": "x"}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.get("/health").status, 503);
    let address = server.address;
    let answer = std::thread::spawn(move || {
        let mut rest = String::new();
        running.read_to_string(&mut rest).unwrap();
        rest
    });
    server.join();
    assert!(answer.join().unwrap().contains("data: [DONE]"), "the answer is complete");
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}
