//! The seccomp filter: it refuses the system calls that neither a compiler nor a language runtime needs.

use super::config::setup_error;
use codelsi_engine::Result;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};
use std::collections::BTreeMap;

/// The rules by system call number; a call without rules is refused whatever its arguments.
type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls refused whatever their arguments: access to other processes, privileges, mounts, namespaces, the machine, file
/// attributes that Landlock does not cover, memory and files that no limit counts, leaving the process group.
#[rustfmt::skip]
const REFUSED: &[i64] = &[
    libc::SYS_socket, libc::SYS_bind, libc::SYS_listen, libc::SYS_connect,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise, libc::SYS_kcmp,
    libc::SYS_pidfd_open, libc::SYS_pidfd_getfd, libc::SYS_pidfd_send_signal, libc::SYS_setpriority, libc::SYS_ioprio_set,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_fsopen,
    libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr, libc::SYS_chroot,
    libc::SYS_unshare, libc::SYS_setns,
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid,
    libc::SYS_setgroups, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_capset,
    libc::SYS_setsid, libc::SYS_setpgid,
    libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_utimensat,
    libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr,
    libc::SYS_mknodat, libc::SYS_linkat, libc::SYS_name_to_handle_at, libc::SYS_open_by_handle_at, libc::SYS_fanotify_init,
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_msgget, libc::SYS_semget, libc::SYS_mq_open,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_syslog, libc::SYS_personality,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex,
    libc::SYS_clock_adjtime, libc::SYS_vhangup,
];

/// Older forms of these calls that only x86-64 still has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_X86: &[i64] = &[
    libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat,
    libc::SYS_mknod, libc::SYS_link, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_X86: &[i64] = &[];

/// The number of `fchmodat2`, which the libc crate does not name yet.
const FCHMODAT2: i64 = 452;

/// Calls answered with ENOSYS, so that libraries fall back to others: clone3 hides its flags from a filter, io_uring
/// does the work of other calls unfiltered, memory files are memory that no limit counts.
const ABSENT: &[i64] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
];

const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Installs the filters for this process and all its descendants. Without a PID namespace a program may signal itself
/// only.
pub fn install_filters(pid_namespace: bool) -> Result<()> {
    let install =
        |program: BpfProgram| seccompiler::apply_filter(&program).map_err(|e| setup_error("seccomp", e));
    if cfg!(target_arch = "x86_64") {
        install(refuse_x32())?;
    }
    let absent = ABSENT.iter().map(|&call| (call, vec![])).collect();
    install(compile(absent, libc::ENOSYS).map_err(|e| setup_error("seccomp", e))?)?;
    let refused = refused_calls(pid_namespace).map_err(|e| setup_error("seccomp", e))?;
    install(compile(refused, libc::EPERM).map_err(|e| setup_error("seccomp", e))?)
}

fn compile(rules: SyscallRules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
}

fn refused_calls(pid_namespace: bool) -> Result<SyscallRules, seccompiler::BackendError> {
    let when =
        |arg, op, value| SeccompCondition::new(arg, Dword, op, value).and_then(|c| SeccompRule::new(vec![c]));
    let set = |bits| SeccompCmpOp::MaskedEq(bits);
    let mut rules: SyscallRules = REFUSED.iter().chain(REFUSED_X86).map(|&call| (call, vec![])).collect();
    rules.insert(FCHMODAT2, vec![]);
    // Node talks to a child over a pair of connected local sockets; such a pair reaches nobody else.
    rules.insert(libc::SYS_socketpair, vec![when(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?]);
    let namespaces = (0..32).map(|bit| 1 << bit).filter(|bit| NEW_NAMESPACES & bit != 0);
    let namespaces: Result<Vec<_>, _> = namespaces.map(|bit| when(0, set(bit), bit)).collect();
    rules.insert(libc::SYS_clone, namespaces?);
    // The buffers of a socket keep the size that the memory limit counts, and open sockets stay visible to it.
    let buffers = [libc::SO_SNDBUF, libc::SO_RCVBUF, libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE];
    let buffers: Result<Vec<_>, _> =
        buffers.iter().map(|&option| when(2, SeccompCmpOp::Eq, option as u64)).collect();
    rules.insert(libc::SYS_setsockopt, buffers?);
    rules.insert(libc::SYS_prctl, vec![when(0, SeccompCmpOp::Eq, libc::PR_SET_DUMPABLE as u64)?]);
    // A file without a name would escape the disk limit. __O_TMPFILE, without O_DIRECTORY.
    let tmpfile = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u64;
    rules.insert(libc::SYS_openat, vec![when(2, set(tmpfile), tmpfile)?]);
    rules.insert(libc::SYS_ioctl, vec![when(1, SeccompCmpOp::Eq, libc::TIOCSTI)?]);
    rules.insert(libc::SYS_prlimit64, vec![when(0, SeccompCmpOp::Ne, 0)?]);
    if !pid_namespace {
        let own = rustix::process::getpid().as_raw_nonzero().get() as u64;
        for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo]
        {
            rules.insert(call, vec![when(0, SeccompCmpOp::Ne, own)?]);
        }
        rules.insert(libc::SYS_tkill, vec![]);
    }
    Ok(rules)
}

/// Refuses the x32 numbering of system calls, which would bypass a list of x86-64 numbers.
fn refuse_x32() -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const X32: u32 = 0x4000_0000;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
