//! Execution: a launch runs its blocks in parallel over the host's cores, a block its warps one after another.

mod access;
mod address;
mod alu;
mod atomic;
mod barrier;
mod collective;
mod control;
mod copy;
mod footprint;
mod global_shadow;
mod grid_races;
mod last_access;
mod launch;
mod matrix;
mod mma;
mod registers;
mod shared_memory;
mod taint;
mod thread_block;
mod vector_clock;
mod wait;
mod warp;

pub use launch::launch;
