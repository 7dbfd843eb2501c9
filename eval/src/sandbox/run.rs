//! The harness's side of one run: start, drain, watch, stop.

use super::stages::{MARK, Plan, READY, SELF, write_plan};
use super::{Limits, Sandbox, Task, tree};
use codelsi_engine::{At, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a tree is measured; a limit can be overrun for so long.
const TICK: Duration = Duration::from_millis(25);
/// How long the stages may take to end once they are told to, before they are killed from outside.
const GRACE: Duration = Duration::from_secs(2);

/// A limit that a run was stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Wall,
    Cpu,
    Memory,
    Processes,
    Disk,
}

impl Limit {
    /// What there is a limit of.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Wall => "time",
            Limit::Cpu => "processor time",
            Limit::Memory => "memory",
            Limit::Processes => "processes",
            Limit::Disk => "disk",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself: the exit code, or 128 and the number of the signal that ended it.
    Exited(i32),
    Stopped(Limit),
}

/// What one run left behind. Output is bytes of a hostile program: never a protocol, never for a terminal.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub end: End,
    pub stdout: Captured,
    pub stderr: Captured,
    pub seconds: f64,
}

/// The beginning and the end of a stream, however much there was; the middle of a flood is dropped.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Captured {
    const KEPT: usize = 1 << 20;

    fn push(&mut self, bytes: &[u8]) {
        let room = (Self::KEPT - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[room..]);
        if self.tail.len() > 2 * Self::KEPT {
            self.tail.drain(..self.tail.len() - Self::KEPT);
        }
    }

    /// Whether the text occurs in what was kept.
    pub fn contains(&self, text: &str) -> bool {
        let all = [self.head.as_slice(), &self.tail].concat();
        all.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// What was kept, with anything that is no UTF-8 replaced and control characters escaped.
    pub fn printable(&self) -> String {
        let all = [self.head.as_slice(), &self.tail].concat();
        let escape =
            |c: char| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.into() };
        String::from_utf8_lossy(&all).chars().map(escape).collect()
    }

    fn strip_ready(&mut self) -> bool {
        let ready = self.head.starts_with(READY);
        if ready {
            self.head.drain(..READY.len());
        }
        ready
    }
}

impl Sandbox {
    /// Runs `task` in `folder`, the one place where it can write; it can read `readable` besides.
    ///
    /// # Errors
    /// Only when the sandbox itself could not be set up: whatever the program does is an [`Outcome`].
    pub fn run(&self, task: Task, folder: &Path, readable: &[PathBuf], limits: Limits) -> Result<Outcome> {
        let root = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
        let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, e));
        let plan = Plan {
            isolation: self.isolation,
            folder: real(folder)?,
            root: real(root.path())?,
            readable: readable.to_vec(),
            limits,
            task,
        };
        let started = Instant::now();
        let child = self.start(&plan)?;
        let (end, mut stdout, stderr) =
            watch(child, &plan, started).map_err(|e| Error::op("sandbox", e.to_string()))?;
        if !stdout.strip_ready() {
            let said = stderr.printable();
            let last = said.lines().last().unwrap_or("the first stage said nothing").to_string();
            // A limit that strikes before the program has begun is the program's no less.
            return if let End::Stopped(_) = end { Ok(()) } else { Err(Error::op("sandbox", last)) }
                .map(|()| Outcome { end, stdout, stderr, seconds: started.elapsed().as_secs_f64() });
        }
        Ok(Outcome { end, stdout, stderr, seconds: started.elapsed().as_secs_f64() })
    }

    fn start(&self, plan: &Plan) -> Result<Child> {
        let folder = plan.folder.as_os_str();
        let mut child = Command::new(SELF)
            .args([MARK, "outer"])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io(SELF, e))
            .at("sandbox")?;
        let plan_sent = write_plan(plan, child.stdin.as_mut().expect("piped"));
        // A stage that dies at once says why on its standard error.
        drop(plan_sent);
        Ok(child)
    }
}

/// Drains both streams until the tree has ended, measuring it at every tick. Cannot hang: every wait has a bound.
fn watch(mut child: Child, plan: &Plan, started: Instant) -> std::io::Result<(End, Captured, Captured)> {
    let mut streams = [
        (child.stdout.take().map(OwnedFd::from), Captured::default()),
        (child.stderr.take().map(OwnedFd::from), Captured::default()),
    ];
    // Closing the first stage's standard input, on which it waits, tells it to stop everything.
    let mut lifeline = child.stdin.take();
    let mut stopped: Option<(Limit, Instant)> = None;
    let (mut measured, mut starved) = (started, Duration::ZERO);
    while streams.iter().any(|(stream, _)| stream.is_some()) {
        drain(&mut streams)?;
        match stopped {
            None if measured.elapsed() >= TICK => {
                measured = Instant::now();
                if let Some(limit) = overrun(&child, plan, started, &mut starved) {
                    stopped = Some((limit, Instant::now()));
                    lifeline = None;
                }
            }
            None => {}
            Some((_, since)) if since.elapsed() < GRACE => {}
            Some((_, since)) if since.elapsed() < 2 * GRACE => drop(child.kill()),
            Some(_) => break,
        }
    }
    drop(lifeline);
    let end = match stopped {
        Some((limit, _)) => End::Stopped(limit),
        None => End::Exited(child.wait()?.code().unwrap_or(128)),
    };
    let _ = child.try_wait();
    let [(_, stdout), (_, stderr)] = streams;
    Ok((end, stdout, stderr))
}

/// Waits up to a tick for output and takes what there is.
fn drain(streams: &mut [(Option<OwnedFd>, Captured); 2]) -> std::io::Result<()> {
    let open: Vec<_> = streams.iter().filter_map(|(stream, _)| stream.as_ref()).collect();
    let mut fds: Vec<_> = open.iter().map(|stream| PollFd::new(*stream, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
    match poll(&mut fds, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => return Ok(()),
        other => other?,
    };
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
    for (stream, captured) in streams {
        let Some(open) = stream else { continue };
        if ready.next() != Some(true) {
            continue;
        }
        let mut buffer = [0; 1 << 16];
        match rustix::io::read(open, &mut buffer) {
            Ok(0) => *stream = None,
            Ok(n) => captured.push(&buffer[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The first limit that the run is over, if any.
fn overrun(child: &Child, plan: &Plan, started: Instant, starved: &mut Duration) -> Option<Limit> {
    let limits = &plan.limits;
    let now = tree::usage(child.id());
    // What a thread had waited is no longer told when it has ended.
    *starved = now.starved.max(*starved);
    // The stages before the program, which are ours.
    let stages = 2;
    let checks = [
        (is_late(started.elapsed(), *starved, limits.wall), Limit::Wall),
        (now.cpu >= limits.cpu, Limit::Cpu),
        (now.memory >= limits.memory, Limit::Memory),
        (now.processes > limits.processes + stages, Limit::Processes),
    ];
    let found = checks.into_iter().find(|(over, _)| *over).map(|(_, limit)| limit);
    found.or_else(|| (tree::folder_bytes(&plan.folder, limits.disk) > limits.disk).then_some(Limit::Disk))
}

/// Whether the time is up. A program that waits for a processor on a busy machine is not charged for that, within
/// reason, so that verdicts do not depend on what else runs.
fn is_late(elapsed: Duration, starved: Duration, wall: Duration) -> bool {
    elapsed.saturating_sub(starved) >= wall || elapsed >= 4 * wall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_processor_does_not_count_as_running() {
        let s = Duration::from_secs;
        assert!(is_late(s(15), s(0), s(15)) && !is_late(s(20), s(6), s(15)));
        assert!(is_late(s(21), s(6), s(15)) && is_late(s(60), s(59), s(15)));
    }

    #[test]
    fn a_flood_keeps_its_beginning_and_its_end() {
        let mut captured = Captured::default();
        captured.push(b"first ");
        for _ in 0..100 {
            captured.push(&vec![b'x'; 1 << 17]);
        }
        captured.push(b" last");
        assert!(captured.contains("first ") && captured.contains(" last") && !captured.contains("absent"));
        assert!(captured.head.len() + captured.tail.len() <= 3 * Captured::KEPT + 5);
    }

    #[test]
    fn raw_bytes_are_made_printable() {
        let mut captured = Captured::default();
        captured.push(&[0x1b, b'c', 0xff, b'\n', b'a']);
        assert_eq!(captured.printable(), "\\u{1b}c\u{fffd}\na");
    }
}
