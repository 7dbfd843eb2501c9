//! Attempts to break out, made before anything is judged.

use super::run::{End, Limit};
use super::stages::failed;
use super::{Limits, Sandbox, Task, system_runtime};
use codelsi_engine::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One attempt, run behind the locks. It exits with 0 when it was held back, with 1 when it got through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Attempt {
    /// Sockets of every kind, to the network and to the host.
    Network,
    /// Reading a file that only the harness may read, system accounts, the harness's environment.
    Read { secret: PathBuf },
    /// Writing outside the folder, and replacing what may only be read.
    Write { outside: PathBuf, readable: PathBuf },
    /// A deadly signal to a process of the harness.
    Signal { victim: i32 },
    /// Writing inside the folder, which must work.
    OwnFolder,
    /// Never ends.
    Sleep,
    /// Takes memory until stopped.
    Memory,
    /// Starts processes until stopped; each would outlive it. `mark` shows in their command lines.
    Processes { shell: PathBuf, mark: String },
    /// Leaves one process behind and ends.
    Orphan { shell: PathBuf, mark: String },
}

impl Attempt {
    pub fn run(self) -> i32 {
        let got_through = match self {
            Attempt::Network => network(),
            Attempt::Read { secret } => {
                [&secret, Path::new("/etc/shadow"), Path::new("/etc/passwd"), Path::new("/proc/1/environ")]
                    .iter()
                    .any(|path| fs::File::open(path).is_ok())
            }
            Attempt::Write { outside, readable } => {
                fs::write(&outside, "x").is_ok()
                    || fs::write(&readable, "x").is_ok()
                    || fs::remove_file(&readable).is_ok()
                    || fs::hard_link(&readable, "linked").is_ok()
            }
            Attempt::Signal { victim } => {
                // In a PID namespace the number may be another process's: what counts is the victim.
                let _ = Pid::from_raw(victim).map(|pid| kill_process(pid, Signal::KILL));
                false
            }
            Attempt::OwnFolder => fs::write("own", "x").is_err() || fs::read("own").is_err(),
            Attempt::Sleep => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Attempt::Memory => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1u8; 1 << 22]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Attempt::Processes { shell, mark } => loop {
                sleeper(&shell, &mark);
                std::thread::sleep(Duration::from_millis(1));
            },
            Attempt::Orphan { shell, mark } => {
                sleeper(&shell, &mark);
                false
            }
        };
        i32::from(got_through)
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

/// A process that holds on to nothing and asks not to be found.
fn sleeper(shell: &Path, mark: &str) {
    let mut command = Command::new(shell);
    command.args(["-c", "trap '' TERM HUP INT; sleep 600; :", mark]);
    drop(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
}

/// All attempts, each held to its own end.
pub fn pass(sandbox: &Sandbox) -> Result<()> {
    let dir = tempfile::tempdir().map_err(|e| failed("temporary folder", e))?;
    let (secret, readable, outside) =
        (dir.path().join("secret"), dir.path().join("readable"), dir.path().join("out"));
    for file in [&secret, &readable] {
        fs::write(file, "s").map_err(|e| Error::io(file, e))?;
    }
    let shell = ["/bin/sh", "/usr/bin/sh"].map(PathBuf::from).into_iter().find(|p| p.exists());
    let shell = shell.ok_or_else(|| Error::new("no /bin/sh to test the sandbox with"))?;
    let mark = format!("codelsi-selftest-{}-{}", std::process::id(), dir.path().display());
    let held = End::Exited(0);
    let attempts = [
        ("write inside its folder", Attempt::OwnFolder, held),
        ("network", Attempt::Network, held),
        ("read outside", Attempt::Read { secret }, held),
        ("write outside", Attempt::Write { outside: outside.clone(), readable: readable.clone() }, held),
        ("time limit", Attempt::Sleep, End::Stopped(Limit::Wall)),
        ("memory limit", Attempt::Memory, End::Stopped(Limit::Memory)),
        (
            "process limit",
            Attempt::Processes { shell: shell.clone(), mark: mark.clone() },
            End::Stopped(Limit::Processes),
        ),
        ("processes left behind", Attempt::Orphan { shell, mark: mark.clone() }, held),
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
    signal_is_held_back(sandbox, &readable)
}

/// Runs one attempt within limits that are soon reached.
fn attempt_end(sandbox: &Sandbox, attempt: Attempt, readable: &Path) -> Result<End> {
    let wall = Duration::from_secs(if matches!(attempt, Attempt::Sleep) { 1 } else { 20 });
    let limits = Limits { wall, cpu: wall, memory: 96 << 20, processes: 8, disk: 1 << 20, removes: false };
    let folder = tempfile::tempdir().map_err(|e| failed("temporary folder", e))?;
    let mut paths = system_runtime();
    paths.push(readable.to_path_buf());
    Ok(sandbox.run(Task::Attempt(attempt), folder.path(), &paths, limits)?.end)
}

/// A process of the harness outlives an attempt to kill it.
fn signal_is_held_back(sandbox: &Sandbox, readable: &Path) -> Result<()> {
    let mut victim = Command::new("sleep").arg("60").spawn().map_err(|e| failed("sleep", e))?;
    let attempt = attempt_end(sandbox, Attempt::Signal { victim: victim.id() as i32 }, readable);
    let alive = matches!(victim.try_wait(), Ok(None));
    let _ = victim.kill();
    let _ = victim.wait();
    match alive {
        true => attempt.map(drop),
        false => Err(Error::new("protection failed: signal to the harness")),
    }
}

/// Whether a process with the mark in its command line still runs.
fn survives(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.windows(mark.len()).any(|window| window == mark.as_bytes()))
}
