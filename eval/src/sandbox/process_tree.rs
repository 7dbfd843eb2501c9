//! The resources that a process tree and a folder use at this moment, read from outside.

use rustix::param::clock_ticks_per_second;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// The resource usage of a process and all its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceUsage {
    pub processes: usize,
    pub threads: usize,
    /// Resident bytes, page tables, and what the buffers of open sockets may hold; what is shared counts once per process.
    pub memory: u64,
    /// Processor time of the live processes and of the children that they have waited for.
    pub cpu: Duration,
    /// Time that the live threads have spent runnable but waiting for a processor.
    pub run_delay: Duration,
}

/// Measures the tree below `pid` through `/proc`. Processes that end meanwhile are left out.
pub fn measure(pid: u32) -> ResourceUsage {
    let mut usage = ResourceUsage::default();
    let mut ticks = 0;
    let mut pending = vec![pid];
    while let Some(pid) = pending.pop() {
        usage.processes += 1;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| status_field(&status, name);
        usage.threads += field("Threads:") as usize;
        usage.memory += (field("VmRSS:") + field("VmPTE:")) * 1024 + sockets(pid) * socket_buffer();
        ticks += cpu_ticks(pid).unwrap_or(0);
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            usage.run_delay += run_delay(&thread.path()).unwrap_or_default();
            push_children(&thread.path(), &mut pending);
        }
    }
    usage.cpu = Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64);
    usage
}

/// Returns the number in a line of `/proc/PID/status`; memory is in KiB.
fn status_field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn sockets(pid: u32) -> u64 {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:")).count() as u64
}

/// Bytes that the kernel may hold of what was written to one socket; the filter refuses to change its size.
fn socket_buffer() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let size = fs::read_to_string("/proc/sys/net/core/wmem_default").ok();
        size.and_then(|text| text.trim().parse().ok()).unwrap_or(212_992)
    })
}

fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in parentheses, may hold anything; utime, stime, cutime, cstime are fields 14-17.
    let fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).take(4);
    fields.map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn run_delay(thread: &Path) -> Option<Duration> {
    let stat = fs::read_to_string(thread.join("schedstat")).ok()?;
    stat.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
}

fn push_children(thread: &Path, pids: &mut Vec<u32>) {
    let list = fs::read_to_string(thread.join("children")).unwrap_or_default();
    pids.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
}

/// Sums the bytes of the files below a folder without following links. Each entry counts as one block (4 KiB) at least;
/// stops once the sum exceeds `limit`.
pub fn folder_bytes(folder: &Path, limit: u64) -> u64 {
    let mut bytes = 0;
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.len().max(4096);
            if bytes > limit {
                return bytes;
            }
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_this_process_and_a_child() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let parent_usage = measure(std::process::id());
        let child_usage = measure(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            parent_usage.processes >= 2
                && parent_usage.memory > child_usage.memory
                && child_usage.processes == 1,
            "{parent_usage:?} {child_usage:?}"
        );
    }

    /// Measures a child, because the threads and files of this process change with the tests that run beside this one.
    #[test]
    fn threads_and_sockets_are_counted() {
        let (reading, writing) = std::os::unix::net::UnixStream::pair().unwrap();
        let streams = [std::os::fd::OwnedFd::from(reading), writing.into()];
        let [reading, writing] = streams.map(std::process::Stdio::from);
        let mut child =
            std::process::Command::new("sleep").arg("60").stdin(reading).stdout(writing).spawn().unwrap();
        let (usage, sockets) = (measure(child.id()), sockets(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((usage.threads, sockets), (1, 2));
        assert!(usage.memory >= 2 * socket_buffer(), "{usage:?}");

        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || ended.recv());
        let usage = measure(std::process::id());
        drop(end);
        let _ = thread.join();
        assert!(usage.threads >= 2, "{usage:?}");
    }

    #[test]
    fn the_lines_of_a_status_are_read() {
        let status = "Name:\tVmPTE: 9\nVmPTE:\t    4100 kB\nThreads:\t3\n";
        assert_eq!((status_field(status, "VmPTE:"), status_field(status, "Threads:")), (4100, 3));
    }

    #[test]
    fn a_folder_is_measured_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![0; 10_000]).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("sub/loop")).unwrap();
        assert_eq!(folder_bytes(dir.path(), u64::MAX), 10_000 + 2 * 4096);
        assert!(folder_bytes(dir.path(), 5000) > 5000);
    }
}
