//! The windows of the generic address space.
//!
//! A generic address is a device address, except in the windows of the other state spaces. All windows lie above 4 GiB,
//! so that an address truncated to 32 bits never hits one by chance.

use crate::ptx::StateSpace;

/// First generic address of shared memory.
pub const SHARED: u64 = 0x0100_0000_0000;
/// First generic address of local memory; every thread sees its own.
pub const LOCAL: u64 = 0x0200_0000_0000;
/// First generic address of kernel parameters.
pub const PARAM: u64 = 0x0300_0000_0000;
/// Bytes of each window.
pub const WINDOW: u64 = 1 << 32;
/// The first device address.
pub const DEVICE: u64 = 0x0400_0000_0000;
/// Minimum alignment of local variables in bytes.
pub const LOCAL_ALIGN: u32 = 4;

/// Returns the first address of a state space's window; constants lie in device memory.
pub fn window_base(space: StateSpace) -> u64 {
    match space {
        StateSpace::Shared => SHARED,
        StateSpace::Local => LOCAL,
        StateSpace::Param => PARAM,
        StateSpace::Generic | StateSpace::Global | StateSpace::Const => 0,
    }
}

/// Returns the state space that a generic address lies in.
pub fn state_space_of(address: u64) -> StateSpace {
    let inside = |base: u64| address >= base && address < base + WINDOW;
    if inside(SHARED) {
        StateSpace::Shared
    } else if inside(LOCAL) {
        StateSpace::Local
    } else if inside(PARAM) {
        StateSpace::Param
    } else {
        StateSpace::Global
    }
}

/// Executes `isspacep`; the mode is the state space.
pub fn is_in_window(a: &[u64; 4], mode: u32) -> u64 {
    let space = state_space_of(a[0]);
    (space as u32 == mode || mode == StateSpace::Const as u32 && space == StateSpace::Global) as u64
}
