//! The harness side of one run: start the child, drain its output, watch its resources, stop it.

use super::cgroup::{Delegation, ProgramGroup};
use super::config::{READY, SELF, STAGE_FLAG, SandboxConfig};
use super::policy::{Isolation, ResourceLimits};
use super::process_tree;
use super::task::ChildTask;
use codelsi_engine::{At, Error, Result, ScratchFolder, printable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Interval between two measurements of the process tree; a limit can be exceeded for that long.
const TICK: Duration = Duration::from_millis(25);
/// Time that the stages have to end after they are asked to stop, before they are killed from outside.
const GRACE: Duration = Duration::from_secs(2);

/// A limited resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Wall,
    Cpu,
    Memory,
    Processes,
    Threads,
    Disk,
}

impl Resource {
    /// Returns the name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Wall => "time",
            Resource::Cpu => "processor time",
            Resource::Memory => "memory",
            Resource::Processes => "processes",
            Resource::Threads => "threads",
            Resource::Disk => "disk",
        }
    }
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// Ended by itself, with this exit code, or 128 plus the number of the signal that ended it.
    Exited(i32),
    /// Stopped by the harness because its limit of this resource was exceeded.
    LimitExceeded(Resource),
}

/// The result of one run. The streams are bytes of a hostile program: never parse them as a protocol, never print them
/// raw to a terminal.
#[derive(Clone, Debug)]
pub struct ProcessOutput {
    pub end: Termination,
    pub stdout: CapturedStream,
    pub stderr: CapturedStream,
    /// Wall time.
    pub seconds: f64,
}

/// The beginning and the end of an output stream, each bounded; the middle of a longer stream is dropped.
#[derive(Clone, Debug, Default)]
pub struct CapturedStream {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl CapturedStream {
    /// Number of bytes kept of the beginning, and minimum kept of the end.
    const KEPT: usize = 1 << 20;

    fn push(&mut self, bytes: &[u8]) {
        let room = (Self::KEPT - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend_from_slice(&bytes[room..]);
        if self.tail.len() > 2 * Self::KEPT {
            self.tail.drain(..self.tail.len() - Self::KEPT);
        }
    }

    /// Returns true if the text occurs in the bytes that were kept.
    pub fn contains(&self, text: &str) -> bool {
        let all = [self.head.as_slice(), &self.tail].concat();
        all.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Returns the bytes that were kept as text: invalid UTF-8 is replaced and control characters are escaped.
    pub fn printable(&self) -> String {
        let all = [self.head.as_slice(), &self.tail].concat();
        printable(&String::from_utf8_lossy(&all), usize::MAX)
    }

    fn strip_ready(&mut self) -> bool {
        let ready = self.head.starts_with(READY);
        if ready {
            self.head.drain(..READY.len());
        }
        ready
    }
}

/// Starts locked-down children, re-executions of the running binary; made once, shared by all workers.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox {
    isolation: Isolation,
    /// The group in which each program gets one of its own, if there is one.
    groups: Option<&'static Delegation>,
}

impl Sandbox {
    /// A sandbox whose self-test has not run.
    pub(super) fn untested(isolation: Isolation) -> Self {
        Sandbox { isolation, groups: None }
    }

    /// The same sandbox with a control group for each program.
    pub(super) fn with_groups(self, groups: &'static Delegation) -> Self {
        Sandbox { groups: Some(groups), ..self }
    }

    /// Returns true if the kernel counts and limits the memory and the threads of each program, instead of samples.
    pub fn has_control_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// The isolation in force.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Runs `task` in `folder`, the only folder that it can write to; it can also read `readable`.
    ///
    /// # Errors
    /// Only when the sandbox itself cannot be set up: every outcome of the program itself is a [`ProcessOutput`].
    pub fn run(
        &self,
        task: ChildTask,
        folder: &Path,
        readable: &[PathBuf],
        limits: ResourceLimits,
    ) -> Result<ProcessOutput> {
        let root = ScratchFolder::new()?;
        let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, e));
        let config = SandboxConfig {
            isolation: self.isolation,
            folder: real(folder)?,
            root: real(root.path())?,
            readable: readable.to_vec(),
            limits,
            task,
        };
        let group = self.groups.map(|groups| groups.group(&limits)).transpose();
        let group = group.map_err(|e| Error::op("control group", e.to_string()))?;
        let started = Instant::now();
        let child = self.start(&config, group.as_ref())?;
        let (end, mut stdout, stderr) = watch(child, &config, group.as_ref(), started)
            .map_err(|e| Error::op("sandbox", e.to_string()))?;
        let begun = stdout.strip_ready();
        let output = ProcessOutput { end, stdout, stderr, seconds: started.elapsed().as_secs_f64() };
        // A limit that is exceeded before the program begins still counts against the program.
        if begun || matches!(end, Termination::LimitExceeded(_)) {
            return Ok(output);
        }
        let stderr = output.stderr.printable();
        let cause = stderr.lines().last().unwrap_or("the first stage printed nothing");
        Err(Error::op("sandbox", cause))
    }

    fn start(&self, config: &SandboxConfig, group: Option<&ProgramGroup>) -> Result<Child> {
        let folder = config.folder.as_os_str();
        let mut child = Command::new(SELF)
            .args([STAGE_FLAG, "outer"])
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
        // The first stage starts nothing before it has read its configuration.
        if let Some(Err(e)) = group.map(|group| group.add(child.id())) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::op("control group", e.to_string()));
        }
        // An error is ignored: a stage that dies at once reports the cause on its standard error.
        let _ = config.send(child.stdin.as_mut().expect("piped"));
        Ok(child)
    }
}

/// Drains both streams until the process tree has ended and measures it at every tick. Every wait is bounded.
fn watch(
    mut child: Child,
    config: &SandboxConfig,
    group: Option<&ProgramGroup>,
    started: Instant,
) -> std::io::Result<(Termination, CapturedStream, CapturedStream)> {
    let mut streams = [
        (child.stdout.take().map(OwnedFd::from), CapturedStream::default()),
        (child.stderr.take().map(OwnedFd::from), CapturedStream::default()),
    ];
    // The first stage waits on its standard input: closing it makes that stage stop everything.
    let mut lifeline = child.stdin.take();
    let mut stopped: Option<(Resource, Instant)> = None;
    let (mut measured, mut run_delay) = (started, Duration::ZERO);
    while streams.iter().any(|(stream, _)| stream.is_some()) {
        drain(&mut streams)?;
        match stopped {
            None if measured.elapsed() >= TICK => {
                measured = Instant::now();
                if let Some(limit) = exceeded_limit(&child, config, group, started, &mut run_delay) {
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
        Some((limit, _)) => Termination::LimitExceeded(limit),
        None => {
            let code = child.wait()?.code().unwrap_or(128);
            group.and_then(refused_by_kernel).map_or(Termination::Exited(code), Termination::LimitExceeded)
        }
    };
    let _ = child.try_wait();
    let [(_, stdout), (_, stderr)] = streams;
    Ok((end, stdout, stderr))
}

/// Waits up to one tick for output and appends it to the captured streams.
fn drain(streams: &mut [(Option<OwnedFd>, CapturedStream); 2]) -> std::io::Result<()> {
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

/// Returns the resource of which the kernel gave the group no more.
fn refused_by_kernel(group: &ProgramGroup) -> Option<Resource> {
    let checks =
        [(group.ran_out_of_memory(), Resource::Memory), (group.ran_out_of_threads(), Resource::Threads)];
    checks.into_iter().find(|(refused, _)| *refused).map(|(_, resource)| resource)
}

/// Returns the first resource whose limit the run exceeds.
fn exceeded_limit(
    child: &Child,
    config: &SandboxConfig,
    group: Option<&ProgramGroup>,
    started: Instant,
    run_delay: &mut Duration,
) -> Option<Resource> {
    let limits = &config.limits;
    let now = process_tree::measure(child.id());
    // The kernel no longer reports the run delay of a thread that has ended: keep the largest sum seen.
    *run_delay = now.run_delay.max(*run_delay);
    // The two stages before the program are trusted processes.
    let stages = 2;
    let checks = [
        (is_late(started.elapsed(), *run_delay, limits.wall), Resource::Wall),
        (now.cpu >= limits.cpu, Resource::Cpu),
        (group.is_none() && now.memory >= limits.memory, Resource::Memory),
        (now.processes > limits.processes + stages, Resource::Processes),
        (now.threads > limits.threads + stages, Resource::Threads),
    ];
    let exceeded = checks.into_iter().find(|(exceeds, _)| *exceeds).map(|(_, resource)| resource);
    let exceeded = exceeded.or_else(|| group.and_then(refused_by_kernel));
    let disk_full = || process_tree::folder_bytes(&config.folder, limits.disk) > limits.disk;
    exceeded.or_else(|| disk_full().then_some(Resource::Disk))
}

/// Returns true if the time is up. Waiting for a processor on a busy machine does not count, up to a bound, so that
/// verdicts do not depend on what else runs.
fn is_late(elapsed: Duration, run_delay: Duration, wall: Duration) -> bool {
    elapsed.saturating_sub(run_delay) >= wall || elapsed >= 4 * wall
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
        let mut captured = CapturedStream::default();
        captured.push(b"first ");
        for _ in 0..100 {
            captured.push(&vec![b'x'; 1 << 17]);
        }
        captured.push(b" last");
        assert!(captured.contains("first ") && captured.contains(" last") && !captured.contains("absent"));
        assert!(captured.head.len() + captured.tail.len() <= 3 * CapturedStream::KEPT + 5);
    }

    #[test]
    fn raw_bytes_are_made_printable() {
        let mut captured = CapturedStream::default();
        captured.push(&[0x1b, b'c', 0xff, b'\n', b'a']);
        assert_eq!(captured.printable(), "\\u{1b}c\u{fffd}\na");
    }
}
