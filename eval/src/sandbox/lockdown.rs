//! The lockdown of the last stage, in an order in which each lock still permits setting the next.

use super::config::{SandboxConfig, setup_error};
use super::policy::Isolation;
use super::seccomp;
use codelsi_engine::Result;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Locks this process down irrevocably. Threads started later, and programs executed later, inherit all locks.
pub fn apply(config: &SandboxConfig) -> Result<()> {
    set_rlimits(config).map_err(|e| setup_error("limits", e))?;
    drop_capabilities().map_err(|e| setup_error("capabilities", e))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| setup_error("no_new_privs", e))?;
    restrict_files(config).map_err(|e| setup_error("landlock", e))?;
    seccomp::install_filters(config.isolation == Isolation::Namespaces)
}

fn set_rlimits(config: &SandboxConfig) -> rustix::io::Result<()> {
    let set = |resource, max| setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max) });
    // The harness measures the whole tree's time; this limit stops a process if the harness is gone.
    set(Resource::Cpu, config.limits.cpu.as_secs() + 5)?;
    set(Resource::Fsize, config.limits.disk)?;
    set(Resource::Nofile, 256)?;
    set(Resource::Core, 0)?;
    set(Resource::Msgqueue, 0)
}

/// Clears all capability sets: bounding and ambient, so that no exec restores one, then the process's own.
fn drop_capabilities() -> rustix::io::Result<()> {
    use rustix::thread as os;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // Fails beyond the kernel's last capability, or without the right to drop any: then there is none to drop.
        let _ = os::remove_capability_from_bounding_set(capability);
    }
    let _ = os::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    os::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Applies as much of Landlock as the kernel supports; the self-test finds out if that is enough.
fn restrict_files(config: &SandboxConfig) -> Result<(), RulesetError> {
    let abi = ABI::V6;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    // Regular files and folders only: no links, sockets or devices.
    let mut write = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir;
    if config.limits.may_remove_files {
        write |= AccessFs::RemoveFile | AccessFs::RemoveDir;
    }
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(&config.readable, read))?
        .add_rules(path_beneath_rules([&config.folder], write))?
        .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
        .restrict_self()?;
    Ok(())
}
