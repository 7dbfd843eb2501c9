//! Execution: a launch runs its blocks in parallel over the host's cores, a block its warps one after another.

mod access;
mod alu;
mod atomic;
mod barrier;
mod block;
mod clock;
mod collective;
mod control;
mod copy;
mod grid;
mod matrix;
mod mma;
mod pattern;
mod races;
mod registers;
mod shadow;
mod space;
mod taint;
mod warp;
mod written;

pub use grid::launch;
