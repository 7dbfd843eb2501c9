//! The private file tree of a judged program: its folder, the readable paths, nothing else.

use super::config::{SandboxConfig, setup_error};
use super::task::ChildTask;
use codelsi_engine::Result;
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::fs;
use std::path::{Path, PathBuf};

/// Assembles the tree on a small in-memory file system and makes it the root of this mount namespace.
pub fn pivot_into_private_root(config: &SandboxConfig) -> Result<()> {
    let root = &config.root;
    let os = |path: &Path| {
        let step = path.display().to_string();
        move |e: rustix::io::Errno| setup_error(&step, e)
    };
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(os(root))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", root, "tmpfs", flags, c"size=1m,nr_inodes=1k,mode=755")
        .map_err(os(root))?;
    for path in outermost(&config.readable) {
        bind(root, path, true)?;
    }
    bind(root, &config.folder, false)?;
    link_own_executable(config).map_err(|e| setup_error("proc", e))?;
    rustix::process::chdir(root).map_err(os(root))?;
    // The old root lands on top of the new one and is dropped at once.
    rustix::process::pivot_root(".", ".").map_err(os(root))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(os(root))?;
    let read_only = MountFlags::BIND | MountFlags::RDONLY | flags;
    rustix::mount::mount_remount("/", read_only, "").map_err(os(Path::new("/")))
}

/// Returns the paths that lie below none of the others.
fn outermost(paths: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    paths.iter().filter(|path| !paths.iter().any(|other| *path != other && path.starts_with(other)))
}

/// Bind-mounts `path` at the same path below `root`; a symbolic link (`/lib` on many systems) is copied, not followed.
fn bind(root: &Path, path: &Path, read_only: bool) -> Result<()> {
    let io = |e: std::io::Error| setup_error(&path.display().to_string(), e);
    let os = |e: rustix::io::Errno| io(e.into());
    let target = root.join(path.strip_prefix("/").unwrap_or(path));
    fs::create_dir_all(target.parent().unwrap_or(root)).map_err(io)?;
    let kind = path.symlink_metadata().map_err(io)?.file_type();
    if kind.is_symlink() {
        let to = path.read_link().map_err(io)?;
        return rustix::fs::symlinkat(&to, CWD, &target).map_err(os);
    } else if kind.is_dir() {
        fs::create_dir_all(&target).map_err(io)?;
    } else {
        fs::File::create(&target).map_err(io)?;
    }
    rustix::mount::mount_bind_recursive(path, &target).map_err(os)?;
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | locked_flags(&target).map_err(os)?;
    if !path.starts_with("/dev") {
        flags |= MountFlags::NODEV;
    }
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount_remount(&target, flags, "").map_err(os)
}

/// Returns the flags of a mount that a user namespace is not permitted to clear.
fn locked_flags(target: &Path) -> rustix::io::Result<MountFlags> {
    let now = rustix::fs::statvfs(target)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let set = pairs.into_iter().filter(|(flag, _)| now.contains(*flag));
    Ok(set.fold(MountFlags::empty(), |flags, (_, flag)| flags | flag))
}

/// Creates `/proc/self/exe`, by which programs find the files of their installation: the only entry of `/proc`.
fn link_own_executable(config: &SandboxConfig) -> std::io::Result<()> {
    let ChildTask::Exec { program, .. } = &config.task else { return Ok(()) };
    let folder = config.root.join("proc/self");
    fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(program, folder.join("exe"))
}
