//! The child's side: the work of each stage.

use super::config::{READY, SELF, STAGE_FLAG, SandboxConfig, setup_error};
use super::lockdown;
use super::mounts;
use super::policy::Isolation;
use super::task::EntryPoint;
use codelsi_engine::{At, Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{self as os, Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::UnshareFlags;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

/// Runs the stage that this process was started as, if any, and ends the process.
pub fn enter(entries: &[EntryPoint]) {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(STAGE_FLAG) {
        return;
    }
    let code = match args.next().as_deref() {
        Some("outer") => SandboxConfig::receive().and_then(|config| outer(&config)),
        Some("init") => SandboxConfig::receive().and_then(|config| init(&config, None)),
        Some("run") => SandboxConfig::receive().and_then(|config| run(config, entries)),
        _ => Err(Error::new("unknown stage")),
    };
    std::process::exit(code.unwrap_or_else(|e| {
        eprintln!("sandbox: {e}");
        125
    }))
}

/// Leaves the host's namespaces, starts `init` and waits for it.
fn outer(config: &SandboxConfig) -> Result<i32> {
    // SAFETY: this process was just started, has one thread and owns no descriptor beyond the standard three.
    unsafe { isolate(config.isolation)? };
    let _ = os::setsid();
    if config.isolation == Isolation::Landlock {
        return init(config, Some(std::io::stdin()));
    }
    let mut child = start("init", config)?;
    let waited = wait(&child, Some(std::io::stdin()));
    if waited.is_err() {
        // When the first process of a PID namespace ends, the kernel kills all others in it.
        let _ = child.kill();
    }
    let code = exit_code(&mut child);
    waited.and(code)
}

/// Starts the last stage and outlives all its descendants. `lifeline` is closed when the harness ends.
fn init(config: &SandboxConfig, lifeline: Option<std::io::Stdin>) -> Result<i32> {
    // In a PID namespace the kernel gives orphans to the first process without this.
    os::set_child_subreaper(Some(os::getpid())).map_err(|e| setup_error("subreaper", e))?;
    if lifeline.is_none() {
        die_with_parent()?;
    }
    let mut child = start("run", config)?;
    let waited = wait(&child, lifeline);
    // The group cannot be left (the filter denies setsid and setpgid), and a signal to a group is atomic against fork.
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        let _ = os::kill_process_group(group, Signal::KILL);
    }
    let code = exit_code(&mut child);
    while let Ok(Some(_)) = os::wait(WaitOptions::empty()) {}
    waited.and(code)
}

/// Locks this process down and does the task. Output before [`READY`] is ours; nothing after it is trusted.
fn run(config: SandboxConfig, entries: &[EntryPoint]) -> Result<i32> {
    let task = config.task.clone().bind(entries)?;
    die_with_parent()?;
    let _ = os::setsid();
    if config.isolation == Isolation::Namespaces {
        mounts::pivot_into_private_root(&config).at("mounts")?;
    }
    std::env::set_current_dir(&config.folder).map_err(|e| Error::io(&config.folder, e))?;
    lockdown::apply(&config)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(READY).and_then(|()| stdout.flush()).map_err(|e| setup_error("standard output", e))?;
    Ok(task())
}

/// Leaves the host's namespaces and marks every inherited descriptor except the standard three close-on-exec.
///
/// # Safety
/// The process has a single thread, and no code of it relies on a descriptor above 2 staying open over `exec`.
unsafe fn isolate(isolation: Isolation) -> Result<()> {
    // SAFETY: a system call on numbers; with CLOEXEC it closes no descriptor of this process itself.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if closed != 0 {
        return Err(setup_error("close_range", std::io::Error::last_os_error()));
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
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| setup_error("namespaces", e))?;
    // The caller is root inside the namespace, so that its capabilities there survive the execs of the stages.
    for (file, map) in
        [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        std::fs::write(format!("/proc/self/{file}"), map).map_err(|e| setup_error(file, e))?;
    }
    Ok(())
}

/// Starts the next stage: this binary again, with the configuration on its standard input.
fn start(stage: &str, config: &SandboxConfig) -> Result<Child> {
    let mut command = Command::new(SELF);
    let mut child =
        command.args([STAGE_FLAG, stage]).stdin(Stdio::piped()).spawn().map_err(|e| setup_error(stage, e))?;
    config.send(child.stdin.take().expect("piped")).map_err(|e| setup_error(stage, e))?;
    Ok(child)
}

/// Waits until the child has ended; an error if the lifeline is closed first. The child is not reaped, so that its PID
/// still names its process group.
fn wait(child: &Child, lifeline: Option<std::io::Stdin>) -> Result<()> {
    let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| Error::new("no process"))?;
    let ended = os::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| setup_error("pidfd", e))?;
    let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
    fds.extend(lifeline.as_ref().map(|stdin| PollFd::new(stdin, PollFlags::IN)));
    loop {
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(setup_error("poll", e)),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) => return Err(Error::new("stopped by the harness")),
        }
    }
}

/// Returns the exit code, or 128 plus the signal's number, as shells do.
fn exit_code(child: &mut Child) -> Result<i32> {
    let status = child.wait().map_err(|e| setup_error("wait", e))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn die_with_parent() -> Result<()> {
    os::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| setup_error("death signal", e))
}
