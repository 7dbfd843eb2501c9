//! A stand-in for a server that speaks OpenAI's protocol.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request: its first line, its headers in small letters, its body.
pub type HttpRequest = (String, String, Value);

/// A server that answers with what `answer` makes of a request and the number of those before it, as status and body.
pub struct TestServer {
    pub address: String,
    seen: Arc<Mutex<Vec<HttpRequest>>>,
}

impl TestServer {
    pub fn start(answer: impl Fn(&HttpRequest, usize) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        TestServer { address, seen }
    }

    pub fn seen(&self) -> Vec<HttpRequest> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<HttpRequest>>,
    answer: &dyn Fn(&HttpRequest, usize) -> (u16, Value),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut headers, mut line) = (String::new(), String::new(), String::new());
    reader.read_line(&mut first).unwrap();
    while reader.read_line(&mut line).unwrap() > 2 {
        headers += &line.to_lowercase();
        line.clear();
    }
    let length = headers.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let request = (first.trim().to_owned(), headers, serde_json::from_slice(&body).unwrap());
    let before = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let (status, body) = answer(&request, before);
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nRetry-After: 0.05\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

/// A response of `n` choices.
pub fn choices(n: u64, choice: impl Fn() -> Value) -> Value {
    json!({ "choices": (0..n).map(|_| choice()).collect::<Vec<_>>() })
}
