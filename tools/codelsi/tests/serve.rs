//! `codelsi serve`: a process that answers until SIGTERM, and refuses to listen where it should not.

#[path = "common/binary.rs"]
mod binary;

use binary::{codelsi, make_model};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts a server; returns it with its address.
fn start(model: &Path) -> (Child, String) {
    let mut command = codelsi();
    command.args(["serve", "--port", "0", "--device", "cpu", "--model"]).arg(model);
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address = lines.find_map(|line| {
        line.unwrap().split_once(" on http://").map(|(names, address)| {
            assert_eq!(names, "serving model");
            address.to_owned()
        })
    });
    // What it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (server, address.expect("the server says where it listens"))
}

fn terminate(server: &Child) {
    let killed = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn sigterm_finishes_what_runs_and_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, address) = start(&make_model(folder.path()));
    let body = r#"{"prompt": "x", "max_tokens": 400, "temperature": 1, "stream": true}"#;
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    terminate(&server);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "the answer is complete");
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn an_idle_server_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, address) = start(&make_model(folder.path()));
    let _idle = TcpStream::connect(&address).unwrap();
    terminate(&server);
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_that_others_reach_has_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let model = make_model(folder.path());
    let refused = |arguments: &[&str], part: &str| {
        let mut command = codelsi();
        let output =
            command.args(["serve", "--port", "0", "--model"]).arg(&model).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.lines().last().is_some_and(|line| line.contains(part)), "{errors}");
    };
    refused(&["--host", "0.0.0.0"], "--api-key-env");
    refused(&["--host", "example.org"], "no IP address");
    refused(&["--api-key-env", "CODELSI_NO_SUCH_KEY"], "holds no key");
    refused(&["--adapter", "a=/nowhere"], "no such adapter folder");
    refused(&["--adapter-dir", "/nowhere/at/all"], "--adapter-dir");
}
