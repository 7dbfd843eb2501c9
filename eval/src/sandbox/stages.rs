//! The child's side: what each stage does after it was started.

use super::task::Task;
use super::{Isolation, Limits, lock, mounts};
use codelsi_engine::{At, Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{self as os, Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The first argument of every stage; the second is the stage.
pub const MARK: &str = "--codelsi-sandbox-stage";
/// This very binary, even when its file was replaced meanwhile.
pub const SELF: &str = "/proc/self/exe";
/// Written to standard output before anything hostile runs; output without it at its head is a failed set-up.
pub const READY: &[u8] = b"codelsi-sandbox: ready\n";

/// All that the stages need to know, sent down the chain as one line of standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub isolation: Isolation,
    /// The one folder that can be written to.
    pub folder: PathBuf,
    /// An empty folder where the namespace's file tree is put together.
    pub root: PathBuf,
    pub readable: Vec<PathBuf>,
    pub limits: Limits,
    pub task: Task,
}

/// Runs the stage this process was started as, if any.
pub fn enter() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(MARK) {
        return;
    }
    let code = match args.next().as_deref() {
        Some("outer") => read_plan().and_then(|plan| outer(&plan)),
        Some("init") => read_plan().and_then(|plan| init(&plan, None)),
        Some("run") => read_plan().and_then(run),
        _ => Err(Error::new("no such stage")),
    };
    std::process::exit(code.unwrap_or_else(|e| {
        eprintln!("sandbox: {e}");
        125
    }))
}

fn outer(plan: &Plan) -> Result<i32> {
    // SAFETY: this process was just started, has one thread and owns no descriptor beyond the standard three.
    unsafe { isolate(plan.isolation)? };
    let _ = os::setsid();
    if plan.isolation == Isolation::Landlock {
        return init(plan, Some(std::io::stdin()));
    }
    let mut child = start("init", plan)?;
    let waited = wait(&child, Some(std::io::stdin()));
    if waited.is_err() {
        // The end of a namespace's first process is the end of all in it.
        let _ = child.kill();
    }
    let code = exit_code(&mut child);
    waited.and(code)
}

/// Starts the last stage and outlives all that comes of it. `lifeline` ends when the harness does.
fn init(plan: &Plan, lifeline: Option<std::io::Stdin>) -> Result<i32> {
    // In a PID namespace orphans come to its first process by themselves.
    os::set_child_subreaper(Some(os::getpid())).map_err(|e| failed("subreaper", e))?;
    if lifeline.is_none() {
        die_with_parent()?;
    }
    let mut child = start("run", plan)?;
    let waited = wait(&child, lifeline);
    // The group cannot be left (the filter denies setsid and setpgid), and a signal to a group is atomic against fork.
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        let _ = os::kill_process_group(group, Signal::KILL);
    }
    let code = exit_code(&mut child);
    while let Ok(Some(_)) = os::wait(WaitOptions::empty()) {}
    waited.and(code)
}

/// Locks this process down and does the task. All before [`READY`] is ours; nothing after it is trusted.
fn run(plan: Plan) -> Result<i32> {
    die_with_parent()?;
    let _ = os::setsid();
    if plan.isolation == Isolation::Namespaces {
        mounts::enter_own_tree(&plan).at("mounts")?;
    }
    std::env::set_current_dir(&plan.folder).map_err(|e| Error::io(&plan.folder, e))?;
    lock::down(&plan)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(READY).and_then(|()| stdout.flush()).map_err(|e| failed("standard output", e))?;
    Ok(plan.task.perform())
}

/// Leaves the host's namespaces and marks every inherited descriptor but the standard three to close on exec.
///
/// # Safety
/// The process has a single thread, and no code of it relies on a descriptor above 2 staying open over `exec`.
unsafe fn isolate(isolation: Isolation) -> Result<()> {
    // SAFETY: plain system call on numbers; with CLOEXEC nothing closes under this process's own feet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if closed != 0 {
        return Err(failed("close_range", std::io::Error::last_os_error()));
    }
    if isolation == Isolation::Landlock {
        return Ok(());
    }
    let (uid, gid) = (os::geteuid().as_raw(), os::getegid().as_raw());
    let flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS;
    // SAFETY: no descriptor table is unshared, and there is no other thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| failed("namespaces", e))?;
    // Root inside is the caller outside, so that capabilities in the namespace last over the stages' execs.
    for (file, map) in
        [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        std::fs::write(format!("/proc/self/{file}"), map).map_err(|e| failed(file, e))?;
    }
    Ok(())
}

/// Starts the next stage: this binary again, with the plan on its standard input.
fn start(stage: &str, plan: &Plan) -> Result<Child> {
    let mut command = Command::new(SELF);
    let mut child =
        command.args([MARK, stage]).stdin(Stdio::piped()).spawn().map_err(|e| failed(stage, e))?;
    write_plan(plan, child.stdin.take().expect("piped")).map_err(|e| failed(stage, e))?;
    Ok(child)
}

/// Waits until the child has ended; an error if the lifeline ends first. The child stays unreaped, so its number
/// still names its group.
fn wait(child: &Child, lifeline: Option<std::io::Stdin>) -> Result<()> {
    let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| Error::new("no process"))?;
    let ended = os::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed("pidfd", e))?;
    let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
    fds.extend(lifeline.as_ref().map(|stdin| PollFd::new(stdin, PollFlags::IN)));
    loop {
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(failed("poll", e)),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) => return Err(Error::new("stopped by the harness")),
        }
    }
}

/// The exit code, or 128 and the signal's number as shells have it.
fn exit_code(child: &mut Child) -> Result<i32> {
    let status = child.wait().map_err(|e| failed("wait", e))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn die_with_parent() -> Result<()> {
    os::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| failed("death signal", e))
}

pub fn write_plan(plan: &Plan, mut to: impl Write) -> std::io::Result<()> {
    to.write_all(crate::jsonl::line(plan).as_bytes())?;
    to.flush()
}

fn read_plan() -> Result<Plan> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| failed("plan", e))?;
    serde_json::from_str(&line).map_err(|e| failed("plan", e))
}

/// An operating-system error in one step of the set-up.
pub fn failed(step: &str, error: impl std::fmt::Display) -> Error {
    Error::op(step, error.to_string())
}
