//! SIGINT and SIGTERM: the first lets the work end in order, the second ends the process at once.

use codelsi_engine::{Error, Result, interrupt};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Handles both signals from now on.
///
/// # Errors
/// When the system refuses.
pub fn handle() -> Result<()> {
    let armed = Arc::new(AtomicBool::new(false));
    let register = |signal: i32| {
        // In this order: the first signal arms the end that the second meets.
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
        flag::register(signal, armed.clone())?;
        flag::register_usize(signal, interrupt::flag(), signal as usize)
    };
    let registered = [SIGINT, SIGTERM].into_iter().try_for_each(|signal| register(signal).map(drop));
    registered.map_err(|e: std::io::Error| Error::new(format!("signals cannot be handled: {e}")))
}

/// The exit code of a process that a signal ended.
pub fn exit_code(signal: usize) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// The command line of this process as a shell takes it, with `flag` if it is not there yet.
pub fn command_line(flag: Option<&str>) -> String {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let missing = flag.filter(|flag| !args.iter().any(|arg| arg == flag));
    args.iter().map(String::as_str).chain(missing).map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !arg.is_empty() && arg.chars().all(plain) {
        true => arg.to_owned(),
        false => format!("'{}'", arg.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_arguments() {
        assert_eq!(quoted("--out=runs/a-1"), "--out=runs/a-1");
        assert_eq!(quoted("it's here"), "'it'\\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
