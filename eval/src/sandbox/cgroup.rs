//! A control group (cgroup v2) for each judged program, where this process's own group is delegated to it: the kernel then counts
//! memory, page tables, buffers of sockets and threads, and enforces their limits.

use super::policy::ResourceLimits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Prefixes of the names of groups, before the number of the process that made them.
const OF_HARNESS: &str = "codelsi-harness-";
const OF_PROGRAM: &str = "codelsi-program-";

/// A group in which this process can make groups that have limits of memory and threads.
#[derive(Debug)]
pub struct Delegation {
    folder: PathBuf,
}

impl Delegation {
    /// Returns the group of this process, if it is usable; asked once. This process may move to a leaf of it.
    pub fn of_this_process() -> Option<&'static Delegation> {
        static FOUND: OnceLock<Option<Delegation>> = OnceLock::new();
        let find = || {
            let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).ok();
            let own = own_group(&read("cgroup")?, &read("mountinfo")?)?;
            Delegation::take(&own, std::process::id()).ok()
        };
        FOUND.get_or_init(find).as_ref()
    }

    /// Makes the group `own` of process `pid` ready to have children with limits.
    fn take(own: &Path, pid: u32) -> io::Result<Self> {
        let in_leaf = own.file_name().is_some_and(|name| name.to_string_lossy().starts_with(OF_HARNESS));
        let folder = if in_leaf { own.parent().unwrap_or(own) } else { own };
        if !has_controllers(&folder.join("cgroup.controllers"))? {
            return Err(io::Error::other("no controllers of memory and pids"));
        }
        if !has_controllers(&folder.join("cgroup.subtree_control"))? {
            enable_controllers(folder, pid)?;
        }
        let delegation = Delegation { folder: folder.to_owned() };
        delegation.sweep();
        delegation.group(&ResourceLimits::multipl_e()).map(|_| delegation)
    }

    /// Makes the group of one program.
    ///
    /// # Errors
    /// When the kernel refuses it or one of its limits.
    pub fn group(&self, limits: &ResourceLimits) -> io::Result<ProgramGroup> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let group = ProgramGroup(self.folder.join(format!("{OF_PROGRAM}{}-{n}", std::process::id())));
        fs::create_dir(&group.0)?;
        group.set("memory.max", &limits.memory.to_string())?;
        // Absent where the kernel has no swap.
        let _ = group.set("memory.swap.max", "0");
        group.set("memory.oom.group", "1")?;
        // The two stages before the program are in the group too.
        group.set("pids.max", &(limits.threads + 2).to_string())?;
        Ok(group)
    }

    /// Removes the groups that processes which have ended left behind.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(OF_HARNESS).or_else(|| name.strip_prefix(OF_PROGRAM));
            let pid = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                // Refused by the kernel while a process is in it.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Returns the folder of the group that `/proc/self/cgroup` names, below the mount that `/proc/self/mountinfo` names.
fn own_group(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(path).strip_prefix(root).ok()?;
        kind.starts_with("cgroup2 ").then(|| Path::new(point).join(below))
    })
}

fn has_controllers(file: &Path) -> io::Result<bool> {
    let text = fs::read_to_string(file)?;
    Ok(["memory", "pids"].iter().all(|wanted| text.split_whitespace().any(|name| name == *wanted)))
}

/// Offers both controllers to the children of a group. A group other than the root may not hold a process then: if this one is
/// alone in it, it moves to a leaf.
fn enable_controllers(folder: &Path, pid: u32) -> io::Result<()> {
    let enable = || write(&folder.join("cgroup.subtree_control"), "+memory +pids");
    // The root alone has no type.
    if !folder.join("cgroup.type").exists() {
        return enable();
    }
    let members = fs::read_to_string(folder.join("cgroup.procs"))?;
    if members.split_whitespace().any(|member| member != pid.to_string()) {
        return Err(io::Error::other("other processes are in the group"));
    }
    let leaf = folder.join(format!("{OF_HARNESS}{pid}"));
    fs::create_dir(&leaf)?;
    let moved = write(&leaf.join("cgroup.procs"), &pid.to_string()).and_then(|()| enable());
    if moved.is_err() {
        let _ = write(&folder.join("cgroup.procs"), &pid.to_string());
        let _ = fs::remove_dir(&leaf);
    }
    moved
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::write(file, text)
}

/// The group of one program; with its end, all processes in it end, and it is removed.
#[derive(Debug)]
pub struct ProgramGroup(PathBuf);

impl ProgramGroup {
    fn set(&self, file: &str, text: &str) -> io::Result<()> {
        write(&self.0.join(file), text)
    }

    /// Moves a process into the group; what it starts later is in it too.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// Returns true if the kernel has ended the program because of its memory.
    pub fn ran_out_of_memory(&self) -> bool {
        self.has_event("memory.events", "oom_kill")
    }

    /// Returns true if the kernel has refused the program a process or a thread.
    pub fn ran_out_of_threads(&self) -> bool {
        self.has_event("pids.events", "max")
    }

    fn has_event(&self, file: &str, event: &str) -> bool {
        let text = fs::read_to_string(self.0.join(file)).unwrap_or_default();
        let count = |line: &str| line.strip_prefix(event)?.trim().parse::<u64>().ok();
        text.lines().filter_map(count).any(|count| count > 0)
    }
}

impl Drop for ProgramGroup {
    fn drop(&mut self) {
        let kill = self.0.join("cgroup.kill");
        if kill.exists() {
            let _ = write(&kill, "1");
        }
        // Its processes need a moment to end.
        for _ in 0..100 {
            match fs::remove_dir(&self.0) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10))
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a group with these controllers, controllers of its children and processes.
    fn group(controllers: &str, enabled: &str, members: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("controllers", controllers),
            ("subtree_control", enabled),
            ("procs", members),
            ("type", "domain"),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(format!("cgroup.{name}")), text).unwrap();
        }
        folder
    }

    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn the_own_group_is_found_below_its_mount() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 none rw\n";
        let found = |cgroup: &str, mounts: &str| own_group(cgroup, mounts);
        assert_eq!(found("0::/user/a.scope\n", mounts).unwrap(), Path::new("/sys/fs/cgroup/user/a.scope"));
        assert_eq!(found("4:memory:/x\n0::/\n", mounts).unwrap(), Path::new("/sys/fs/cgroup"));
        let inner = mounts.replace(" / /sys", " /user /sys");
        assert_eq!(found("0::/user/a", &inner).unwrap(), Path::new("/sys/fs/cgroup/a"));
        assert!(found("0::/other", &inner).is_none() && found("4:memory:/x\n", mounts).is_none());
        assert!(found("0::/", "30 1 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,memory").is_none());
    }

    #[test]
    fn a_process_that_is_alone_moves_to_a_leaf() {
        let folder = group("cpu memory pids", "", "77\n");
        let delegation = Delegation::take(folder.path(), 77).unwrap();
        assert_eq!(read(folder.path(), "codelsi-harness-77/cgroup.procs"), "77");
        assert_eq!(read(folder.path(), "cgroup.subtree_control"), "+memory +pids");
        // A process that is started from the leaf uses the group above it.
        fs::write(folder.path().join("cgroup.subtree_control"), "memory pids\n").unwrap();
        let again = Delegation::take(&folder.path().join("codelsi-harness-77"), 78).unwrap();
        assert_eq!(again.folder, delegation.folder);
    }

    #[test]
    fn a_group_that_is_shared_or_lacks_a_controller_is_left_alone() {
        for (folder, reason) in [
            (group("cpu memory pids", "", "77\n78\n"), "other processes"),
            (group("cpu pids", "", "77\n"), "no controllers"),
        ] {
            let error = Delegation::take(folder.path(), 77).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        }
    }

    #[test]
    fn a_program_has_its_limits_and_its_events() {
        let folder = group("memory pids", "memory pids", "");
        let delegation = Delegation { folder: folder.path().into() };
        let program = delegation.group(&ResourceLimits::multipl_e()).unwrap();
        program.add(9).unwrap();
        let limits = ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cgroup.procs"];
        assert_eq!(limits.map(|file| read(&program.0, file)), ["2147483648", "0", "1", "514", "9"]);
        assert!(!program.ran_out_of_memory() && !program.ran_out_of_threads());
        program.set("memory.events", "low 0\noom 1\noom_kill 0\noom_group_kill 0\n").unwrap();
        program.set("pids.events", "max 0\n").unwrap();
        assert!(!program.ran_out_of_memory() && !program.ran_out_of_threads());
        program.set("memory.events", "oom 1\noom_kill 3\n").unwrap();
        program.set("pids.events", "max 1\n").unwrap();
        assert!(program.ran_out_of_memory() && program.ran_out_of_threads());
    }

    #[test]
    fn groups_of_processes_that_have_ended_are_removed() {
        let folder = group("memory pids", "memory pids", "");
        let own = std::process::id();
        // No process has this number: it is above the kernel's largest.
        let [left, kept, foreign] =
            [format!("{OF_PROGRAM}4999999-0"), format!("{OF_PROGRAM}{own}-7"), "other-4999999".into()]
                .map(|name| folder.path().join(name));
        [&left, &kept, &foreign].iter().for_each(|path| fs::create_dir(path).unwrap());
        Delegation { folder: folder.path().into() }.sweep();
        assert!(!left.exists() && kept.exists() && foreign.exists());
    }
}
