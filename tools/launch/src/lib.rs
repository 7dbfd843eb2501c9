//! Placement of a program: a device by its name, and ranks as threads of one process or as processes of a launcher.

#![forbid(unsafe_code)]

pub mod csv;
mod device;
mod environment;
pub mod help;
mod ranks;
mod threads;

pub use device::{DeviceChoice, title};
pub use ranks::{RankOptions, on_all_ranks};
pub use threads::start_threads;
