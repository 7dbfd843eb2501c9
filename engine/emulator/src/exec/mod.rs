//! Execution: a launch runs its blocks in parallel over the host's cores, a block its warps one after another.

mod access;
mod access_pattern;
mod address;
mod alu;
mod atomic;
mod barrier;
mod collective;
mod control;
mod copy;
mod global_shadow;
mod grid_races;
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
