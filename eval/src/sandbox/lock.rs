//! The locks of the last stage, in the order in which each still lets the next be set.

use super::stages::{Plan, failed};
use super::{Isolation, syscalls};
use codelsi_engine::Result;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Gives up every way out for good. Threads started later, and programs executed later, inherit all of it.
pub fn down(plan: &Plan) -> Result<()> {
    limits(plan).map_err(|e| failed("limits", e))?;
    drop_capabilities().map_err(|e| failed("capabilities", e))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| failed("no_new_privs", e))?;
    files(plan).map_err(|e| failed("landlock", e))?;
    syscalls::deny(plan.isolation == Isolation::Namespaces)
}

fn limits(plan: &Plan) -> rustix::io::Result<()> {
    let set = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    // The harness measures the whole tree's time; this stops a process should the harness be gone.
    set(Resource::Cpu, plan.limits.cpu.as_secs() + 5)?;
    set(Resource::Fsize, plan.limits.disk)?;
    set(Resource::Nofile, 256)?;
    set(Resource::Core, 0)?;
    set(Resource::Msgqueue, 0)
}

/// Clears all sets: bounding and ambient so that no exec brings one back, then the process's own.
fn drop_capabilities() -> rustix::io::Result<()> {
    use rustix::thread as os;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // Beyond the kernel's last capability, or without the right to drop any: there is none to drop.
        let _ = os::remove_capability_from_bounding_set(capability);
    }
    let _ = os::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    os::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Landlock, as much of it as the kernel has: whether that is enough is the self-test's to find out.
fn files(plan: &Plan) -> Result<(), RulesetError> {
    let abi = ABI::V6;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
    // No links, sockets or devices.
    let mut write = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir;
    if plan.limits.removes {
        write |= AccessFs::RemoveFile | AccessFs::RemoveDir;
    }
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(&plan.readable, read))?
        .add_rules(path_beneath_rules([&plan.folder], write))?
        .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
        .restrict_self()?;
    Ok(())
}
