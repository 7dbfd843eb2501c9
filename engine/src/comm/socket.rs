//! Ranks that are processes: TCP connections to rank 0, which does the work of every collective.
//!
//! A frame is `tag u8, header u32, body u64` (lengths, little endian), then both. A rank sends a call with its bytes and
//! gets a result; either side may send why it ends instead. Whoever dies closes its connections, and that is seen.

use super::host::{Call, Host, Kind, Link};
use crate::{DType, Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a greeting begins with.
const GREETING: &[u8; 8] = b"codelsi1";
const CALL: u8 = 1;
const RESULT: u8 = 2;
const END: u8 = 3;

/// Where the ranks of a run meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// Name or address of rank 0's host, and its port.
    pub address: String,
    pub port: u16,
    pub rank: usize,
    pub world: usize,
    /// How long a rank waits for the others, to connect and in every collective. Rank 0 gives up a little sooner, so
    /// that it can tell the others who is missing.
    pub timeout: Duration,
}

/// Ranks that are processes.
pub struct Sockets;

impl Sockets {
    /// Connects this rank; returns when every rank is there.
    ///
    /// # Errors
    /// When ranks are missing, come twice or are of another run; or the port is taken.
    pub fn connect(at: &Rendezvous) -> Result<Host> {
        let place = format!("{}:{}", at.address, at.port);
        let links = if at.rank == 0 { at.listen() } else { at.join() };
        Ok(Host::new(links.map_err(|e| e.at(place))?))
    }
}

impl Rendezvous {
    fn patience(&self) -> Duration {
        if self.rank == 0 { self.timeout.mul_f64(0.8) } else { self.timeout }
    }

    fn wire(&self, peers: Vec<(usize, TcpStream)>) -> Result<Wire> {
        for (_, peer) in &peers {
            let set = peer.set_nodelay(true);
            let set = set.and_then(|()| peer.set_read_timeout(Some(self.patience())));
            let set = set.and_then(|()| peer.set_write_timeout(Some(self.patience())));
            set.map_err(|e| Error::new(e.to_string()))?;
        }
        let line = Mutex::new(Line { peers, ended: None });
        Ok(Wire { rank: self.rank, world: self.world, patience: self.patience(), line })
    }

    /// Rank 0: takes the connections of every other rank.
    fn listen(&self) -> Result<[Wire; 3]> {
        let taken = |e: std::io::Error| {
            Error::new(format!("rank 0 cannot listen: {e}; name a free port in MASTER_PORT"))
        };
        // Ranks of one machine are nobody else's business.
        let here = self.address == "localhost" || self.address.starts_with("127.");
        let listener =
            TcpListener::bind((if here { "127.0.0.1" } else { "0.0.0.0" }, self.port)).map_err(taken)?;
        listener.set_nonblocking(true).map_err(taken)?;
        let deadline = Instant::now() + self.patience();
        let mut links: Connections = [(); 3].map(|()| (0..self.world).map(|_| None).collect());
        let missing = |links: &Connections| -> Vec<String> {
            let missing = (1..self.world).filter(|&r| links.iter().any(|link| link[r].is_none()));
            missing.map(|r| r.to_string()).collect()
        };
        while !missing(&links).is_empty() {
            match listener.accept() {
                Ok((peer, _)) => self.greet(peer, &mut links)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let (missing, seconds) = (missing(&links).join(", "), self.patience().as_secs_f64());
                    let message = format!("rank {missing} did not connect within {seconds} s");
                    return Err(Error::new(message));
                }
                Err(e) => return Err(taken(e)),
            }
        }
        let [main, beside, pulse] = links.map(|link| {
            let mut peers: Vec<(usize, TcpStream)> = Vec::new();
            for (rank, peer) in link.into_iter().enumerate() {
                peers.extend(peer.map(|peer| (rank, peer)));
            }
            for (_, peer) in &mut peers {
                send(peer, RESULT, &[], &[]).map_err(|e| Error::new(e.to_string()))?;
            }
            self.wire(peers)
        });
        Ok([main?, beside?, pulse?])
    }

    /// Seats a newcomer, or tells it why not. Who does not speak our language is not listened to.
    fn greet(&self, mut peer: TcpStream, links: &mut Connections) -> Result<()> {
        let mut hello = [0; 17];
        let ready =
            peer.set_nonblocking(false).and_then(|()| peer.set_read_timeout(Some(Duration::from_secs(5))));
        if ready.and_then(|()| peer.read_exact(&mut hello)).is_err() || hello[..8] != *GREETING {
            return Ok(());
        }
        let number =
            |at: usize| u32::from_le_bytes([hello[at], hello[at + 1], hello[at + 2], hello[at + 3]]) as usize;
        let (world, rank, link) = (number(8), number(12), usize::from(hello[16].min(2)));
        let wrong = match links[link].get(rank) {
            _ if world != self.world => format!("rank {rank} is of {world} ranks, rank 0 of {}", self.world),
            None => format!("there is no rank {rank} among {world}"),
            Some(Some(_)) => format!("rank {rank} is there twice"),
            Some(None) => {
                links[link][rank] = Some(peer);
                return Ok(());
            }
        };
        let _ = send(&mut peer, END, &[], wrong.as_bytes());
        Err(Error::new(wrong))
    }

    /// One attempt at a connection to rank 0.
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

    /// Any other rank: connects each link to rank 0, as soon as it listens.
    fn join(&self) -> Result<[Wire; 3]> {
        let deadline = Instant::now() + self.patience();
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
        let wires = [connect(0)?, connect(1)?, connect(2)?].map(|peer| {
            let wire = self.wire(vec![(0, peer)])?;
            let mut line = wire.line();
            let welcome = receive(&mut line.peers[0].1).map_err(|e| wire.lost(0, "the start", &e))?;
            drop(line);
            match welcome.tag {
                RESULT => Ok(wire),
                _ => Err(Error::new(String::from_utf8_lossy(&welcome.body))),
            }
        });
        let [main, beside, pulse] = wires;
        Ok([main?, beside?, pulse?])
    }
}

/// By link and rank.
type Connections = [Vec<Option<TcpStream>>; 3];

/// One rank's end of a link: the connections of rank 0 to all others, or of another to rank 0.
struct Wire {
    rank: usize,
    world: usize,
    patience: Duration,
    line: Mutex<Line>,
}

struct Line {
    peers: Vec<(usize, TcpStream)>,
    /// Why there will be no further call.
    ended: Option<Error>,
}

impl Line {
    /// Tells everybody, as far as they listen.
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

impl Wire {
    fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What it means that `peer` cannot be read from or written to.
    fn lost(&self, peer: usize, what: &str, e: &std::io::Error) -> Error {
        Error::new(match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("rank {peer} did not come to {what} within {} s", self.patience.as_secs_f64())
            }
            ErrorKind::InvalidData => format!("rank {peer} sent what is no message"),
            _ => format!("rank {peer} is gone: its connection closed during {what}"),
        })
    }

    /// Rank 0's part: takes every rank's bytes, in rank order, and gives each its result.
    fn serve(&self, line: &mut Line, call: &Call, mine: Vec<u8>) -> Result<Vec<u8>> {
        let what = call.to_string();
        let mut given = vec![mine];
        for (rank, peer) in &mut line.peers {
            let frame = receive(peer).map_err(|e| self.lost(*rank, &what, &e))?;
            if frame.tag == END {
                return Err(Error::new(String::from_utf8_lossy(&frame.body)));
            }
            let theirs = decode(&frame.header).filter(|_| frame.tag == CALL);
            let theirs = theirs.ok_or_else(|| self.lost(*rank, &what, &ErrorKind::InvalidData.into()))?;
            call.agree(0, &theirs, *rank)?;
            if frame.body.len() != call.given(*rank) {
                return Err(self.lost(*rank, &what, &ErrorKind::InvalidData.into()));
            }
            given.push(frame.body);
        }
        let same = matches!(call.kind, Kind::Sum | Kind::Max | Kind::Gather);
        let own = call.outcome(&given, 0)?;
        for (rank, peer) in &mut line.peers {
            let theirs = if same { None } else { Some(call.outcome(&given, *rank)?) };
            let sent = send(peer, RESULT, &[], theirs.as_deref().unwrap_or(&own));
            sent.map_err(|e| self.lost(*rank, &what, &e))?;
        }
        Ok(own)
    }

    /// Another rank's part.
    fn ask(&self, line: &mut Line, call: &Call, mine: &[u8]) -> Result<Vec<u8>> {
        let what = call.to_string();
        let hub = &mut line.peers[0].1;
        // Rank 0 may have said why it ended before it closed: that is worth more than the closing.
        let sent = send(hub, CALL, &encode(call), mine);
        let frame = receive(hub).map_err(|e| self.lost(0, &what, sent.as_ref().err().unwrap_or(&e)))?;
        match frame.tag {
            RESULT => Ok(frame.body),
            END => Err(Error::new(String::from_utf8_lossy(&frame.body))),
            _ => Err(self.lost(0, &what, &ErrorKind::InvalidData.into())),
        }
    }
}

impl Link for Wire {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn exchange(&self, call: Call, mine: Vec<u8>) -> Result<Vec<u8>> {
        let mut line = self.line();
        if let Some(why) = &line.ended {
            return Err(why.clone());
        }
        let result = if self.rank == 0 {
            self.serve(&mut line, &call, mine)
        } else {
            self.ask(&mut line, &call, &mine)
        };
        result.map_err(|why| line.end(&why.to_string()))
    }

    fn timeout(&self) -> Duration {
        self.patience
    }

    fn abort(&self, why: &str) {
        self.line().end(&format!("rank {}: {why}", self.rank));
    }
}

struct Frame {
    tag: u8,
    header: Vec<u8>,
    body: Vec<u8>,
}

fn send(to: &mut TcpStream, tag: u8, header: &[u8], body: &[u8]) -> std::io::Result<()> {
    let lengths = [&[tag][..], &(header.len() as u32).to_le_bytes(), &(body.len() as u64).to_le_bytes()];
    to.write_all(&[&lengths.concat(), header].concat())?;
    to.write_all(body)
}

fn receive(from: &mut TcpStream) -> std::io::Result<Frame> {
    let mut lengths = [0; 13];
    from.read_exact(&mut lengths)?;
    let [tag, h0, h1, h2, h3, body @ ..] = lengths;
    let (header, body) = (u32::from_le_bytes([h0, h1, h2, h3]) as u64, u64::from_le_bytes(body));
    Ok(Frame { tag, header: take(from, header)?, body: take(from, body)? })
}

/// `bytes` bytes; the memory grows as they come, so that a length that is a lie asks for nothing.
fn take(from: &mut TcpStream, bytes: u64) -> std::io::Result<Vec<u8>> {
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
        kind: *Kind::ALL.get(kind as usize)?,
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
