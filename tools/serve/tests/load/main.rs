//! Many clients at once: every answer is the one given alone, every page is free at the end, memory is flat, and overload is
//! an answer. Half a minute; five with `CODELSI_FULL=1`.

#[expect(dead_code, reason = "other tests of the server need more of it")]
#[path = "../server/client.rs"]
mod client;
#[expect(dead_code, reason = "other tests of the server need more of it")]
#[path = "../server/fixture.rs"]
mod fixture;

use client::{Answer, connect, read_answer, request};
use codelsi_model::generate::SchedulerConfig;
use codelsi_serve::{KvSize, Limits};
use fixture::{BASE, TestServer, write_adapter};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
/// Kinds of requests.
const REQUESTS: usize = 48;

/// Numbers that a seed decides.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// The i-th request: short and long, greedy and drawn, of the base and of adapters, with beginnings that others share.
fn body(i: usize) -> Value {
    let mut numbers = Numbers(i as u64 + 1);
    let begin = "export function total(xs: number[]): number { return ".repeat(numbers.below(3));
    let (model, temperature) = ([BASE, "one", "two"][numbers.below(3)], [0.0, 0.8][numbers.below(2)]);
    let stop = if numbers.below(2) == 0 { vec![] } else { vec!["z"] };
    json!({
        "model": model,
        "prompt": format!("{begin}{i} {}", "x".repeat(numbers.below(60))),
        "max_tokens": 1 + numbers.below(60),
        "temperature": temperature,
        "n": 1 + numbers.below(3),
        "seed": i,
        "stop": stop,
    })
}

/// Sends a request; returns its open connection.
fn send(server: &TestServer, mut body: Value, stream: bool) -> std::net::TcpStream {
    body["stream"] = stream.into();
    let body = body.to_string();
    let bytes = request("POST", "/v1/completions", &[("Content-Type", "application/json")], body.as_bytes());
    let mut connection = connect(server.address);
    connection.write_all(&bytes).unwrap();
    connection
}

/// The text and reason of each choice, of an answer that is streamed or not.
fn choices(answer: &Answer, stream: bool) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let objects = if stream { answer.events(true) } else { vec![answer.json()] };
    for choice in objects.iter().flat_map(|object| object["choices"].as_array().unwrap()) {
        let index = choice["index"].as_u64().unwrap() as usize;
        all.resize(all.len().max(index + 1), (String::new(), String::new()));
        all[index].0.push_str(choice["text"].as_str().unwrap());
        all[index].1.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    all
}

/// Counts of all clients' requests.
#[derive(Default)]
struct Counts {
    complete: AtomicUsize,
    overloaded: AtomicUsize,
    gone: AtomicUsize,
}

/// One client: until the end it asks in turn, streams, reads slowly, and goes away.
fn client(server: &TestServer, seed: u64, end: Instant, wanted: &[Vec<(String, String)>], counts: &Counts) {
    let mut numbers = Numbers(seed);
    while Instant::now() < end {
        let (i, way) = (numbers.below(REQUESTS), numbers.below(5));
        let stream = way > 0;
        let mut connection = send(server, body(i), stream);
        if way == 1 {
            let mut start = [0; 200];
            let _ = connection.read(&mut start);
            counts.gone.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if way == 2 {
            std::thread::sleep(Duration::from_millis(numbers.below(1500) as u64));
        }
        let answer = read_answer(connection);
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            counts.overloaded.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(choices(&answer, stream), wanted[i], "request {i}, streamed: {stream}");
        counts.complete.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn every_answer_under_load_is_the_one_given_alone() {
    let server = TestServer::with(true, |options, folder| {
        let adapters = [("one", 1), ("two", 2)];
        options.adapters =
            adapters.map(|(name, seed)| (name.into(), write_adapter(&folder.join(name), seed))).to_vec();
        options.limits = Limits {
            scheduler: SchedulerConfig { max_sequences: 24, prefill_chunk: 48, ..SchedulerConfig::default() },
            // Few, so that sequences are preempted and what is cached gives way.
            kv: Some(KvSize::Pages(64)),
            max_requests: CLIENTS / 2,
            max_requests_per_client: usize::MAX,
            ..Limits::default()
        };
    });
    let alone = |i| choices(&read_answer(send(&server, body(i), false)), false);
    let wanted: Vec<_> = (0..REQUESTS).map(alone).collect();
    let full = std::env::var("CODELSI_FULL").is_ok_and(|full| full == "1");
    let (start, time) = (Instant::now(), Duration::from_secs(if full { 300 } else { 30 }));
    let (counts, wanted) = (Counts::default(), &wanted);
    let grown = std::thread::scope(|scope| {
        for seed in 0..CLIENTS as u64 {
            let (server, counts) = (&server, &counts);
            scope.spawn(move || client(server, seed, start + time, wanted, counts));
        }
        std::thread::sleep(time / 3);
        let warm = resident();
        std::thread::sleep(time / 2);
        resident().saturating_sub(warm)
    });
    server.wait_until_idle();
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let preempted = server.metric("codelsi_num_preemptions_total");
    println!(
        "{} answers, {} refused, {} left, {preempted} preemptions, {} KiB more memory",
        count(&counts.complete),
        count(&counts.overloaded),
        count(&counts.gone),
        grown >> 10
    );
    assert!(count(&counts.complete) > 100 && count(&counts.overloaded) > 0 && count(&counts.gone) > 10);
    assert!(preempted > 0.0 && grown < 32 << 20, "{preempted} preemptions, {grown} bytes more");
    assert_eq!(alone(3), wanted[3], "the server is healthy");
}
