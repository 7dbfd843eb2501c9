//! The map of the generic address space.
//!
//! A generic address is a device address, except in the windows of the other spaces. All lie above 4 GiB, so
//! that an address cut to 32 bits never hits by chance.

use crate::ptx::Space;

/// Where generic addresses of shared memory begin.
pub const SHARED: u64 = 0x0100_0000_0000;
/// Where generic addresses of local memory begin; every thread sees its own.
pub const LOCAL: u64 = 0x0200_0000_0000;
/// Where generic addresses of kernel parameters begin.
pub const PARAM: u64 = 0x0300_0000_0000;
/// Bytes of each window.
pub const WINDOW: u64 = 1 << 32;
/// The first device address.
pub const DEVICE: u64 = 0x0400_0000_0000;
/// Local variables start at multiples of this.
pub const LOCAL_ALIGN: u32 = 4;

/// The start of a space's window; constants lie in device memory.
pub fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED,
        Space::Local => LOCAL,
        Space::Param => PARAM,
        Space::Generic | Space::Global | Space::Const => 0,
    }
}

/// The space a generic address lies in.
pub fn space_of(address: u64) -> Space {
    let inside = |base: u64| address >= base && address < base + WINDOW;
    if inside(SHARED) {
        Space::Shared
    } else if inside(LOCAL) {
        Space::Local
    } else if inside(PARAM) {
        Space::Param
    } else {
        Space::Global
    }
}

/// `isspacep`: the mode is the space.
pub fn is_in_window(a: &[u64; 4], mode: u32) -> u64 {
    let space = space_of(a[0]);
    (space as u32 == mode || mode == Space::Const as u32 && space == Space::Global) as u64
}
