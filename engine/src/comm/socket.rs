//! Ranks that are processes: TCP connections to rank 0, which computes every collective.
//!
//! A message is a tag (u8), the lengths of its header (u32) and its body (u64), little endian, then header and body. A
//! rank sends a call with its bytes and receives a result; either side may send the reason why it ends instead. A
//! process that dies closes its connections, which the others notice.

use super::host::{Call, CollectiveKind, HostComm, Link};
use crate::{DType, Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The bytes that a connection begins with.
const GREETING: &[u8; 8] = b"codelsi1";
const CALL: u8 = 1;
const RESULT: u8 = 2;
const END: u8 = 3;

/// The address at which the ranks of a run connect, and the number of this rank among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// Name or address of the host of rank 0, and its port.
    pub address: String,
    pub port: u16,
    pub rank: usize,
    pub world: usize,
    /// Time that a rank waits for the others, to connect and in every collective. Rank 0 gives up a little sooner, to
    /// tell the others which rank is missing.
    pub timeout: Duration,
}

/// Connects ranks that are processes.
pub struct Sockets;

impl Sockets {
    /// Connects this rank, and returns when every rank is connected.
    ///
    /// # Errors
    /// When a rank is missing, connects twice or belongs to another run; or when the port is taken.
    pub fn connect(rendezvous: &Rendezvous) -> Result<HostComm> {
        let address = format!("{}:{}", rendezvous.address, rendezvous.port);
        let links = if rendezvous.rank == 0 { rendezvous.listen() } else { rendezvous.join() };
        Ok(HostComm::new(links.map_err(|e| e.at(address))?))
    }
}

impl Rendezvous {
    /// Time limit of this rank; that of rank 0 is shorter.
    fn time_limit(&self) -> Duration {
        if self.rank == 0 { self.timeout.mul_f64(0.8) } else { self.timeout }
    }

    fn link(&self, peers: Vec<(usize, TcpStream)>) -> Result<SocketLink> {
        for (_, peer) in &peers {
            let set = peer.set_nodelay(true);
            let set = set.and_then(|()| peer.set_read_timeout(Some(self.time_limit())));
            let set = set.and_then(|()| peer.set_write_timeout(Some(self.time_limit())));
            set.map_err(|e| Error::new(e.to_string()))?;
        }
        let state = Mutex::new(ConnectionState { peers, ended: None });
        Ok(SocketLink { rank: self.rank, world: self.world, time_limit: self.time_limit(), state })
    }

    /// Rank 0: accepts the connections of all other ranks.
    fn listen(&self) -> Result<[SocketLink; 3]> {
        let taken = |e: std::io::Error| {
            Error::new(format!("rank 0 cannot listen: {e}; name a free port in MASTER_PORT"))
        };
        // Ranks on one machine are not reachable from the network.
        let local = self.address == "localhost" || self.address.starts_with("127.");
        let listener =
            TcpListener::bind((if local { "127.0.0.1" } else { "0.0.0.0" }, self.port)).map_err(taken)?;
        listener.set_nonblocking(true).map_err(taken)?;
        let deadline = Instant::now() + self.time_limit();
        let mut links: Connections = [(); 3].map(|()| (0..self.world).map(|_| None).collect());
        let missing_ranks = |links: &Connections| -> Vec<String> {
            let missing = (1..self.world).filter(|&r| links.iter().any(|link| link[r].is_none()));
            missing.map(|r| r.to_string()).collect()
        };
        while !missing_ranks(&links).is_empty() {
            match listener.accept() {
                Ok((peer, _)) => self.admit(peer, &mut links)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let (missing, seconds) =
                        (missing_ranks(&links).join(", "), self.time_limit().as_secs_f64());
                    let message = format!("rank {missing} did not connect within {seconds} s");
                    return Err(Error::new(message));
                }
                Err(e) => return Err(taken(e)),
            }
        }
        let [main, secondary, heartbeat] = links.map(|link| {
            let mut peers: Vec<(usize, TcpStream)> = Vec::new();
            for (rank, peer) in link.into_iter().enumerate() {
                peers.extend(peer.map(|peer| (rank, peer)));
            }
            for (_, peer) in &mut peers {
                send(peer, RESULT, &[], &[]).map_err(|e| Error::new(e.to_string()))?;
            }
            self.link(peers)
        });
        Ok([main?, secondary?, heartbeat?])
    }

    /// Admits a new connection, or sends it the reason why not. One that does not begin with the greeting is ignored.
    fn admit(&self, mut peer: TcpStream, links: &mut Connections) -> Result<()> {
        let mut hello = [0; 17];
        let ready =
            peer.set_nonblocking(false).and_then(|()| peer.set_read_timeout(Some(Duration::from_secs(5))));
        if ready.and_then(|()| peer.read_exact(&mut hello)).is_err() || hello[..8] != *GREETING {
            return Ok(());
        }
        let number =
            |at: usize| u32::from_le_bytes([hello[at], hello[at + 1], hello[at + 2], hello[at + 3]]) as usize;
        let (world, rank, link) = (number(8), number(12), usize::from(hello[16].min(2)));
        let refusal = match links[link].get(rank) {
            _ if world != self.world => format!("rank {rank} is of {world} ranks, rank 0 of {}", self.world),
            None => format!("there is no rank {rank} among {world}"),
            Some(Some(_)) => format!("rank {rank} is there twice"),
            Some(None) => {
                links[link][rank] = Some(peer);
                return Ok(());
            }
        };
        let _ = send(&mut peer, END, &[], refusal.as_bytes());
        Err(Error::new(refusal))
    }

    /// Tries once to connect to rank 0.
    fn reach(&self, deadline: Instant) -> std::io::Result<TcpStream> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut result = Err(ErrorKind::NotFound.into());
        for address in (self.address.as_str(), self.port).to_socket_addrs()? {
            result = TcpStream::connect_timeout(&address, left);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Any other rank: connects each link to rank 0 as soon as that listens.
    fn join(&self) -> Result<[SocketLink; 3]> {
        let deadline = Instant::now() + self.time_limit();
        let connect = |link: u8| -> Result<TcpStream> {
            let mut peer = loop {
                match self.reach(deadline) {
                    Ok(peer) => break peer,
                    Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                    Err(e) => return Err(Error::new(format!("rank 0 does not listen: {e}"))),
                }
            };
            let numbers = [self.world, self.rank].map(|n| (n as u32).to_le_bytes());
            let hello = [&GREETING[..], &numbers[0], &numbers[1], &[link]].concat();
            peer.write_all(&hello).map_err(|e| Error::new(format!("rank 0 does not answer: {e}")))?;
            Ok(peer)
        };
        let links = [connect(0)?, connect(1)?, connect(2)?].map(|peer| {
            let link = self.link(vec![(0, peer)])?;
            let mut state = link.state();
            let welcome = receive(&mut state.peers[0].1).map_err(|e| link.lost(0, "the start", &e))?;
            drop(state);
            match welcome.tag {
                RESULT => Ok(link),
                _ => Err(Error::new(String::from_utf8_lossy(&welcome.body))),
            }
        });
        let [main, secondary, heartbeat] = links;
        Ok([main?, secondary?, heartbeat?])
    }
}

/// Connections by link and rank.
type Connections = [Vec<Option<TcpStream>>; 3];

/// One rank's end of a link: the connections of rank 0 to all others, or of another rank to rank 0.
struct SocketLink {
    rank: usize,
    world: usize,
    time_limit: Duration,
    state: Mutex<ConnectionState>,
}

struct ConnectionState {
    peers: Vec<(usize, TcpStream)>,
    /// The reason why the run ended.
    ended: Option<Error>,
}

impl ConnectionState {
    /// Ends the run and sends the reason to all peers that still listen.
    fn end(&mut self, why: &str) -> Error {
        if self.ended.is_none() {
            for (_, peer) in &mut self.peers {
                let _ = peer.set_write_timeout(Some(Duration::from_secs(1)));
                let _ = send(peer, END, &[], why.as_bytes());
            }
        }
        self.ended.get_or_insert(Error::new(why)).clone()
    }
}

impl SocketLink {
    fn state(&self) -> std::sync::MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Returns the error for a failed read from or write to `peer`.
    fn lost(&self, peer: usize, what: &str, e: &std::io::Error) -> Error {
        Error::new(match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("rank {peer} did not come to {what} within {} s", self.time_limit.as_secs_f64())
            }
            ErrorKind::InvalidData => format!("rank {peer} sent an invalid message"),
            _ => format!("rank {peer} is gone: its connection closed during {what}"),
        })
    }

    /// Rank 0: receives the bytes of every rank, in rank order, and sends each its result.
    fn serve(&self, state: &mut ConnectionState, call: &Call, input: Vec<u8>) -> Result<Vec<u8>> {
        let what = call.to_string();
        let mut inputs = vec![input];
        for (rank, peer) in &mut state.peers {
            let message = receive(peer).map_err(|e| self.lost(*rank, &what, &e))?;
            if message.tag == END {
                return Err(Error::new(String::from_utf8_lossy(&message.body)));
            }
            let received = decode(&message.header).filter(|_| message.tag == CALL);
            let received = received.ok_or_else(|| self.lost(*rank, &what, &ErrorKind::InvalidData.into()))?;
            call.ensure_same(0, &received, *rank)?;
            if message.body.len() != call.sent_by(*rank) {
                return Err(self.lost(*rank, &what, &ErrorKind::InvalidData.into()));
            }
            inputs.push(message.body);
        }
        let is_shared =
            matches!(call.kind, CollectiveKind::Sum | CollectiveKind::Max | CollectiveKind::Gather);
        let own = call.result_for(&inputs, 0)?;
        for (rank, peer) in &mut state.peers {
            let result = if is_shared { None } else { Some(call.result_for(&inputs, *rank)?) };
            let sent = send(peer, RESULT, &[], result.as_deref().unwrap_or(&own));
            sent.map_err(|e| self.lost(*rank, &what, &e))?;
        }
        Ok(own)
    }

    /// Any other rank: sends its bytes to rank 0 and receives the result.
    fn request(&self, state: &mut ConnectionState, call: &Call, input: &[u8]) -> Result<Vec<u8>> {
        let what = call.to_string();
        let hub = &mut state.peers[0].1;
        // Rank 0 may have sent a reason before it closed the connection: report that rather than the close.
        let sent = send(hub, CALL, &encode(call), input);
        let message = receive(hub).map_err(|e| self.lost(0, &what, sent.as_ref().err().unwrap_or(&e)))?;
        match message.tag {
            RESULT => Ok(message.body),
            END => Err(Error::new(String::from_utf8_lossy(&message.body))),
            _ => Err(self.lost(0, &what, &ErrorKind::InvalidData.into())),
        }
    }
}

impl Link for SocketLink {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn exchange(&self, call: Call, input: Vec<u8>) -> Result<Vec<u8>> {
        let mut state = self.state();
        if let Some(why) = &state.ended {
            return Err(why.clone());
        }
        let result = if self.rank == 0 {
            self.serve(&mut state, &call, input)
        } else {
            self.request(&mut state, &call, &input)
        };
        result.map_err(|why| state.end(&why.to_string()))
    }

    fn timeout(&self) -> Duration {
        self.time_limit
    }

    fn abort(&self, why: &str) {
        self.state().end(&format!("rank {}: {why}", self.rank));
    }
}

struct Message {
    tag: u8,
    header: Vec<u8>,
    body: Vec<u8>,
}

fn send(to: &mut TcpStream, tag: u8, header: &[u8], body: &[u8]) -> std::io::Result<()> {
    let lengths = [&[tag][..], &(header.len() as u32).to_le_bytes(), &(body.len() as u64).to_le_bytes()];
    to.write_all(&[&lengths.concat(), header].concat())?;
    to.write_all(body)
}

fn receive(from: &mut TcpStream) -> std::io::Result<Message> {
    let mut lengths = [0; 13];
    from.read_exact(&mut lengths)?;
    let [tag, h0, h1, h2, h3, body @ ..] = lengths;
    let (header, body) = (u32::from_le_bytes([h0, h1, h2, h3]) as u64, u64::from_le_bytes(body));
    Ok(Message { tag, header: read_bytes(from, header)?, body: read_bytes(from, body)? })
}

/// Reads `bytes` bytes. The buffer grows as they arrive, so a false length does not allocate.
fn read_bytes(from: &mut TcpStream, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    match from.take(bytes).read_to_end(&mut data)? as u64 == bytes {
        true => Ok(data),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::I32];

fn encode(call: &Call) -> Vec<u8> {
    let mut bytes = vec![call.kind as u8, call.dtype as u8];
    bytes.extend(call.number.to_le_bytes());
    for (owner, size) in &call.parts {
        bytes.extend([*owner as u64, *size as u64].map(u64::to_le_bytes).concat());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Call> {
    let (&[kind, dtype], rest) = bytes.split_first_chunk()?;
    let (number, parts) = rest.split_first_chunk()?;
    let mut call = Call {
        kind: *CollectiveKind::ALL.get(kind as usize)?,
        dtype: *DTYPES.get(dtype as usize)?,
        number: u64::from_le_bytes(*number),
        parts: Vec::new(),
    };
    for part in parts.chunks(16) {
        let part: [u8; 16] = part.try_into().ok()?;
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| part[i + j])) as usize;
        call.parts.push((word(0), word(8)));
    }
    Some(call)
}
