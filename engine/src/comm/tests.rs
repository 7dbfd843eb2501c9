//! Both transports give the same bits; ranks that fail, vanish, hang or go apart end the run with a reason.

use super::*;
use crate::{DType, Device, Label};
use std::net::TcpListener;
use std::time::Instant;

const SOON: Duration = Duration::from_millis(1500);

fn tensor(x: &[f32]) -> Tensor {
    Device::cpu().tensor(Label::Scratch, [x.len()], x).unwrap()
}

fn empty(n: usize) -> Tensor {
    Device::cpu().empty(Label::Scratch, [n], DType::F32)
}

/// Runs `f` on every rank, over threads, and returns the results.
fn on_threads<T: Send>(world: usize, timeout: Duration, f: impl Fn(HostComm) -> T + Sync) -> Vec<T> {
    let f = &f;
    std::thread::scope(|scope| {
        let ranks: Vec<_> = Threads::group_within(world, timeout)
            .into_iter()
            .map(|comm| scope.spawn(move || f(comm)))
            .collect();
        ranks.into_iter().map(|r| r.join().unwrap()).collect()
    })
}

fn rendezvous(rank: usize, world: usize, port: u16, timeout: Duration) -> Rendezvous {
    Rendezvous { address: "127.0.0.1".into(), port, rank, world, timeout }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs `f` on every rank, over sockets, and returns the results.
fn on_sockets<T: Send>(world: usize, timeout: Duration, f: impl Fn(HostComm) -> T + Sync) -> Vec<T> {
    let (f, port) = (&f, free_port());
    std::thread::scope(|scope| {
        let connect = move |rank| Sockets::connect(&rendezvous(rank, world, port, timeout)).unwrap();
        let ranks: Vec<_> = (0..world).map(|rank| scope.spawn(move || f(connect(rank)))).collect();
        ranks.into_iter().map(|r| r.join().unwrap()).collect()
    })
}

fn both<T: Send>(world: usize, f: impl Fn(HostComm) -> T + Sync) -> [Vec<T>; 2] {
    let timeout = Duration::from_secs(20);
    [on_threads(world, timeout, &f), on_sockets(world, timeout, &f)]
}

#[test]
fn sums_come_in_rank_order_on_every_rank() {
    // 1 + 2^24 - 2^24 is 0 or 1 in f32, by the order of addition.
    let values = [1.0f32, 16777216.0, -16777216.0];
    for sums in both(3, |c| {
        let (mut sum, mut max) = (tensor(&[values[c.rank()]]), tensor(&[values[c.rank()]]));
        c.all_reduce(&mut sum, ReduceOp::Sum).unwrap();
        c.all_reduce(&mut max, ReduceOp::Max).unwrap();
        assert!(c.seconds() > 0.0);
        [sum, max].map(|x| x.slice::<f32>().unwrap()[0])
    }) {
        assert_eq!(sums, [[(values[0] + values[1]) + values[2], values[1]]; 3]);
    }
}

#[test]
fn gather_and_scatter_are_each_other_s_shapes() {
    for results in both(2, |c| {
        let mut all = tensor(&[0.0; 4]);
        c.all_gather(&tensor(&[c.rank() as f32, 10.0]), &mut all).unwrap();
        let mut mine = tensor(&[0.0; 2]);
        c.reduce_scatter(&all, &mut mine).unwrap();
        [all, mine].map(|x| x.to_vec::<f32>().unwrap())
    }) {
        let all = vec![0.0, 10.0, 1.0, 10.0];
        assert_eq!(results, [[all.clone(), vec![0.0, 20.0]], [all, vec![2.0, 20.0]]]);
    }
}

#[test]
fn gathers_ahead_fill_each_tensor() {
    for results in both(3, |c| {
        let rank = c.rank() as f32;
        let gathers = vec![(tensor(&[rank]), empty(3)), (tensor(&[rank, 10.0]), empty(6))];
        let mut coming = c.all_gather_async(gathers).unwrap();
        [1, 0].map(|i| coming.wait(i).unwrap().to_vec::<f32>().unwrap())
    }) {
        assert_eq!(results, vec![[vec![0.0, 10.0, 1.0, 10.0, 2.0, 10.0], vec![0.0, 1.0, 2.0]]; 3]);
    }
}

#[test]
fn broadcasts_carry_each_tensor_from_its_rank_also_beside_other_calls() {
    // Rank 1 gives two tensors, rank 2 one, rank 0 none; at the same time the main link sums.
    for results in both(3, |c| {
        let rank = c.rank() as f32;
        let mut parts = [(1, 2), (2, 3), (1, 1)].map(|(owner, n)| {
            let t = if owner == c.rank() { tensor(&vec![rank + n as f32 / 8.0; n]) } else { empty(n) };
            (owner, t)
        });
        let mut sum = tensor(&[rank]);
        std::thread::scope(|scope| {
            let beside = c.secondary();
            scope.spawn(|| beside.broadcast(&mut parts).unwrap());
            c.all_reduce(&mut sum, ReduceOp::Sum).unwrap();
            c.barrier().unwrap();
        });
        let mut read = parts.map(|(_, t)| t.to_vec::<f32>().unwrap()).to_vec();
        read.push(sum.to_vec::<f32>().unwrap());
        read
    }) {
        assert_eq!(results, vec![vec![vec![1.25; 2], vec![2.375; 3], vec![1.125], vec![3.0]]; 3]);
    }
}

/// Returns the error of a barrier on every rank except `odd`, which runs `odd_one` instead; none waits longer than
/// [`SOON`].
fn ends(world: usize, odd: usize, odd_one: impl Fn(HostComm) + Sync) -> [Vec<String>; 2] {
    let f = |c: HostComm| {
        if c.rank() == odd {
            odd_one(c);
            return None;
        }
        let started = Instant::now();
        let error = c.barrier().unwrap_err().to_string();
        assert!(started.elapsed() < SOON + Duration::from_millis(500), "{error}");
        assert_eq!(c.barrier().unwrap_err().to_string(), error, "there is no way back");
        Some(error)
    };
    [on_threads(world, SOON, f), on_sockets(world, SOON, f)].map(|all| all.into_iter().flatten().collect())
}

#[test]
fn a_rank_that_fails_tells_the_others_why() {
    for odd in [0, 1, 2] {
        for errors in ends(3, odd, |c| c.abort("the disk is full")) {
            assert_eq!(errors, vec![format!("rank {odd}: the disk is full"); 2]);
        }
    }
}

#[test]
fn a_rank_that_vanishes_is_named() {
    for odd in [0, 1] {
        let [threads, sockets] = ends(3, odd, drop);
        assert_eq!(threads, vec![format!("rank {odd} has left the run"); 2]);
        for error in sockets {
            assert!(error.contains(&format!("rank {odd} is gone")), "{error}");
        }
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_in_time() {
    for errors in ends(3, 1, |_c| std::thread::sleep(SOON.mul_f64(1.2))) {
        for error in errors {
            assert!(error.starts_with("rank 1 did not come to barrier"), "{error}");
        }
    }
    let [_, sockets] = ends(2, 0, |_c| std::thread::sleep(SOON.mul_f64(1.2)));
    assert!(sockets[0].starts_with("rank 0 did not come"), "{sockets:?}");
}

#[test]
fn a_watch_sees_a_rank_go_while_nobody_calls() {
    use super::heartbeat::Heartbeat;
    use std::sync::{Arc, mpsc::channel};
    let f = |c: HostComm| {
        let host = Arc::new(c);
        let (sender, received) = channel();
        let heartbeat =
            Heartbeat::start(host.clone(), Arc::default(), move |why| sender.send(why.to_string()).unwrap());
        host.barrier().unwrap();
        if host.rank() == 1 {
            host.abort("the fan stopped");
            return String::new();
        }
        let why = received.recv_timeout(SOON * 2).unwrap();
        drop(heartbeat);
        why
    };
    for received in [on_threads(3, SOON, f), on_sockets(3, SOON, f)] {
        assert_eq!(received, ["rank 1: the fan stopped", "", "rank 1: the fan stopped"]);
    }
}

#[test]
fn ranks_that_went_apart_are_told_what_each_called() {
    let f = |c: HostComm| {
        let mut x = tensor(&vec![0.0; 1 + c.rank()]);
        c.all_reduce(&mut x, ReduceOp::Sum).unwrap_err().to_string()
    };
    for errors in both(2, f) {
        for error in errors {
            assert!(error.contains("rank 0 is in all_reduce of 8 bytes"), "{error}");
            assert!(error.contains("rank 1 in all_reduce of 16 bytes of F32 as call 0"), "{error}");
        }
    }
}

#[test]
fn ranks_of_other_runs_and_missing_ones_are_refused_at_the_start() {
    let start = |peers: &[(usize, usize)]| -> Vec<String> {
        let port = free_port();
        std::thread::scope(|scope| {
            let all: Vec<_> = peers
                .iter()
                .map(|&(rank, world)| {
                    scope.spawn(move || {
                        let connected = Sockets::connect(&rendezvous(rank, world, port, SOON));
                        connected.err().map_or(String::new(), |e| e.to_string())
                    })
                })
                .collect();
            all.into_iter().map(|r| r.join().unwrap()).collect()
        })
    };
    let errors = start(&[(0, 2), (1, 3)]);
    assert!(errors.iter().all(|e| e.contains("rank 1 is of 3 ranks, rank 0 of 2")), "{errors:?}");
    assert!(start(&[(0, 2)])[0].contains("rank 1 did not connect"));
    assert!(start(&[(1, 2)])[0].contains("rank 0 does not listen"));
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let error = Sockets::connect(&rendezvous(0, 2, port, SOON)).err().unwrap().to_string();
    assert!(error.contains("cannot listen") && error.contains("MASTER_PORT"), "{error}");
}

#[test]
fn strangers_on_the_port_are_not_listened_to() {
    use std::io::Write;
    let port = free_port();
    std::thread::scope(|scope| {
        let hub = scope.spawn(move || Sockets::connect(&rendezvous(0, 2, port, SOON * 4)).unwrap());
        let mut stranger = loop {
            match std::net::TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::yield_now(),
            }
        };
        stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let peer = scope.spawn(move || Sockets::connect(&rendezvous(1, 2, port, SOON * 4)).unwrap());
        let (hub, peer) = (hub.join().unwrap(), peer.join().unwrap());
        scope.spawn(move || peer.barrier().unwrap());
        hub.barrier().unwrap();
    });
}

#[test]
fn a_watch_sees_a_rank_that_lives_and_does_not_come() {
    use super::heartbeat::Heartbeat;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;
    let (sender, received) = channel();
    let ranks: Vec<_> = Threads::group_within(3, Duration::from_secs(1))
        .into_iter()
        .map(|host| {
            let (come, sender) = (Arc::new(AtomicU64::new(0)), sender.clone());
            let heartbeat = Heartbeat::start(Arc::new(host), come.clone(), move |why| {
                let _ = sender.send(why.to_string());
            });
            (come, heartbeat)
        })
        .collect();
    // All come and go on, one after the other; then rank 1 stays away.
    let come = |rank: usize| {
        ranks[rank].0.fetch_add(1, Ordering::Relaxed);
    };
    for _ in 0..3 {
        (0..3).for_each(come);
        assert!(received.recv_timeout(Duration::from_millis(700)).is_err(), "nobody hangs");
    }
    [0, 2].into_iter().for_each(come);
    let why = received.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(why, "rank 1 hangs: it has come to 3 collectives between cards, others to 4, for 1 s");
}
