//! When, where and by what command a run was made, for its report.

use crate::command_line;
use crate::placement::Placement;
use codelsi_engine::{Device, Result};
use codelsi_launch::title;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the date, machine, device, program and command of this run as names and values. What the machine does not tell is
/// said to be unknown.
///
/// # Errors
/// When the device is not available.
pub fn environment(placement: Placement) -> Result<Vec<(String, String)>> {
    let device = placement.device.open()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let rows = [
        ("date", utc(now)),
        ("machine", machine()),
        ("processor", first_value("/proc/cpuinfo", "model name").unwrap_or_else(unknown)),
        ("threads", rayon::current_num_threads().to_string()),
        ("device", title(&device)),
        ("driver", driver(&device)),
        ("version", format!("CodeLSI {}", env!("CARGO_PKG_VERSION"))),
        (
            "commit",
            option_env!("CODELSI_COMMIT").unwrap_or("unknown: built outside of a git checkout").to_owned(),
        ),
        ("command", command_line::without_credentials()),
    ];
    Ok(rows.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

fn unknown() -> String {
    "unknown".into()
}

/// Returns the system, its kernel and the memory of the machine.
fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = first_value("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or_else(unknown, |kib| format!("{:.1} GiB", kib / f64::from(1 << 20)));
    format!("{} {} {}, {memory} of memory", std::env::consts::OS, kernel.trim(), std::env::consts::ARCH)
}

/// Returns the driver of a device: NVIDIA's, by its version, on a card; none elsewhere.
fn driver(device: &Device) -> String {
    let version = || {
        let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        text.split_whitespace()
            .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))
            .map(str::to_owned)
    };
    match device {
        Device::Cuda(_) => version().map_or_else(unknown, |version| format!("NVIDIA {version}")),
        _ => "none".into(),
    }
}

/// Returns the value of the first line `NAME: VALUE` of a file.
fn first_value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Formats seconds since 1970 as `2026-11-29 16:08 UTC`.
fn utc(seconds: u64) -> String {
    let (mut days, minutes) = (seconds / 86_400, seconds / 60 % 1_440);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02} {:02}:{:02} UTC", month + 1, days + 1, minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_when_where_and_how_it_was_made() {
        let placement = Placement { device: codelsi_launch::DeviceChoice::Cpu, ..Placement::default() };
        let rows = environment(placement).unwrap();
        let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        let expected =
            ["date", "machine", "processor", "threads", "device", "driver", "version", "commit", "command"];
        assert_eq!(names, expected);
        assert!(rows.iter().all(|(_, value)| !value.is_empty()), "{rows:?}");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        // `date -u -d @N`, around a leap day and a year's end.
        assert_eq!(utc(1_709_164_740), "2024-02-28 23:59 UTC");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59 UTC");
        assert_eq!(utc(1_735_689_600), "2025-01-01 00:00 UTC");
    }
}
