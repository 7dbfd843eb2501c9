//! Attempts to break out of the sandbox, made before anything is judged.

use super::config::setup_error;
use super::policy::{ResourceLimits, system_runtime};
use super::run::{Resource, Sandbox, Termination};
use super::task::EntryPoint;
use codelsi_engine::{Error, Result, ScratchFolder};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Makes one [`EscapeAttempt`] in a locked-down child.
pub const ENTRY: EntryPoint = EntryPoint { name: "selftest", main: attempt_escape };

fn attempt_escape(attempt: &str) -> i32 {
    serde_json::from_str::<EscapeAttempt>(attempt).expect("written by `attempt_end`").run()
}

/// One attempt to escape, made after the lockdown. It exits with 0 if it was blocked, with 1 if it succeeded.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum EscapeAttempt {
    /// Opens sockets of every kind, to the network and to the host.
    Network,
    /// Reads a file that only the harness may read, the system accounts, the harness's environment.
    Read { secret: PathBuf },
    /// Writes outside the folder, and replaces a file that may only be read.
    Write { outside: PathBuf, readable: PathBuf },
    /// Sends SIGKILL to a process of the harness.
    Signal { victim: i32 },
    /// Writes inside the folder, which must work.
    OwnFolder,
    /// Never ends.
    Sleep,
    /// Allocates memory until stopped.
    Memory,
    /// Starts processes until stopped; each would outlive it. `mark` is in their command lines.
    Processes { shell: PathBuf, mark: String },
    /// Leaves one process behind and ends.
    Orphan { shell: PathBuf, mark: String },
}

impl EscapeAttempt {
    fn run(self) -> i32 {
        let succeeded = match self {
            EscapeAttempt::Network => network(),
            EscapeAttempt::Read { secret } => {
                [&secret, Path::new("/etc/shadow"), Path::new("/etc/passwd"), Path::new("/proc/1/environ")]
                    .iter()
                    .any(|path| fs::File::open(path).is_ok())
            }
            EscapeAttempt::Write { outside, readable } => {
                fs::write(&outside, "x").is_ok()
                    || fs::write(&readable, "x").is_ok()
                    || fs::remove_file(&readable).is_ok()
                    || fs::hard_link(&readable, "linked").is_ok()
            }
            EscapeAttempt::Signal { victim } => {
                // In a PID namespace this number may name another process: the harness checks that the victim lives.
                let _ = Pid::from_raw(victim).map(|pid| kill_process(pid, Signal::KILL));
                false
            }
            EscapeAttempt::OwnFolder => fs::write("own", "x").is_err() || fs::read("own").is_err(),
            EscapeAttempt::Sleep => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            EscapeAttempt::Memory => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1u8; 1 << 22]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            EscapeAttempt::Processes { shell, mark } => loop {
                sleeper(&shell, &mark);
                std::thread::sleep(Duration::from_millis(1));
            },
            EscapeAttempt::Orphan { shell, mark } => {
                sleeper(&shell, &mark);
                false
            }
        };
        i32::from(succeeded)
    }
}

fn network() -> bool {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};
    TcpStream::connect_timeout(&([127, 0, 0, 1], 9).into(), Duration::from_millis(200))
        .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        || TcpListener::bind("127.0.0.1:0").is_ok()
        || UdpSocket::bind("0.0.0.0:0").is_ok()
        || UnixListener::bind("socket").is_ok()
        || UnixDatagram::unbound().is_ok()
}

/// Starts a process that ignores signals and holds none of the standard streams.
fn sleeper(shell: &Path, mark: &str) {
    let mut command = Command::new(shell);
    command.args(["-c", "trap '' TERM HUP INT; sleep 600; :", mark]);
    drop(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
}

/// Makes all attempts in `sandbox` and compares each one's end with the expected one.
///
/// # Errors
/// Names the first protection that failed.
pub fn check(sandbox: &Sandbox) -> Result<()> {
    let dir = ScratchFolder::new()?;
    let (secret, readable, outside) =
        (dir.path().join("secret"), dir.path().join("readable"), dir.path().join("out"));
    for file in [&secret, &readable] {
        fs::write(file, "s").map_err(|e| Error::io(file, e))?;
    }
    let shell = ["/bin/sh", "/usr/bin/sh"].map(PathBuf::from).into_iter().find(|p| p.exists());
    let shell = shell.ok_or_else(|| Error::new("no /bin/sh to test the sandbox with"))?;
    let mark = format!("codelsi-selftest-{}-{}", std::process::id(), dir.path().display());
    let blocked = Termination::Exited(0);
    let attempts = [
        ("write inside its folder", EscapeAttempt::OwnFolder, blocked),
        ("network", EscapeAttempt::Network, blocked),
        ("read outside", EscapeAttempt::Read { secret }, blocked),
        (
            "write outside",
            EscapeAttempt::Write { outside: outside.clone(), readable: readable.clone() },
            blocked,
        ),
        ("time limit", EscapeAttempt::Sleep, Termination::LimitExceeded(Resource::Wall)),
        ("memory limit", EscapeAttempt::Memory, Termination::LimitExceeded(Resource::Memory)),
        (
            "process limit",
            EscapeAttempt::Processes { shell: shell.clone(), mark: mark.clone() },
            Termination::LimitExceeded(Resource::Processes),
        ),
        ("processes left behind", EscapeAttempt::Orphan { shell, mark: mark.clone() }, blocked),
    ];
    for (name, attempt, expected) in attempts {
        let end = attempt_end(sandbox, attempt, &readable)?;
        if end != expected {
            return Err(Error::new(format!("protection failed: {name} ({end:?})")));
        }
        if survives(&mark) {
            return Err(Error::new(format!("protection failed: {name} left a process alive")));
        }
    }
    if outside.exists() || !readable.exists() {
        return Err(Error::new("protection failed: write outside"));
    }
    check_signal_is_blocked(sandbox, &readable)
}

/// Makes one attempt within limits that are soon reached.
fn attempt_end(sandbox: &Sandbox, attempt: EscapeAttempt, readable: &Path) -> Result<Termination> {
    let wall = Duration::from_secs(if matches!(attempt, EscapeAttempt::Sleep) { 1 } else { 20 });
    // On a busy machine many processes can pass a small limit of memory before they are counted.
    let memory = if matches!(attempt, EscapeAttempt::Processes { .. }) { 1 << 30 } else { 96 << 20 };
    let limits = ResourceLimits {
        wall,
        cpu: wall,
        memory,
        processes: 8,
        threads: 64,
        disk: 1 << 20,
        may_remove_files: false,
    };
    let folder = ScratchFolder::new()?;
    let mut paths = system_runtime();
    paths.push(readable.to_path_buf());
    Ok(sandbox.run(ENTRY.task(&attempt), folder.path(), &paths, limits)?.end)
}

/// Checks that a process of the harness survives an attempt to kill it.
fn check_signal_is_blocked(sandbox: &Sandbox, readable: &Path) -> Result<()> {
    let mut victim = Command::new("sleep").arg("60").spawn().map_err(|e| setup_error("sleep", e))?;
    let attempt = attempt_end(sandbox, EscapeAttempt::Signal { victim: victim.id() as i32 }, readable);
    let alive = matches!(victim.try_wait(), Ok(None));
    let _ = victim.kill();
    let _ = victim.wait();
    match alive {
        true => attempt.map(drop),
        false => Err(Error::new("protection failed: signal to the harness")),
    }
}

/// Returns true if a process with the mark in its command line still runs.
fn survives(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
}
