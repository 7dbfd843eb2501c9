//! Replaces `emulated.rs` in builds without the feature `emulator`: a type that has no values.

use super::coverage::Coverage;
use super::driver::Driver;
use super::source::Source;
use crate::{Error, Result};
use std::sync::MutexGuard;

/// The software GPU; this build has none.
pub enum EmulatedGpu {}

impl EmulatedGpu {
    pub(super) fn new(_arch: &str) -> Result<Self> {
        Err(Error::new(
            "this build has no software GPU: build with cargo's default features, or with --features emulator",
        ))
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        match *self {}
    }

    pub fn set_single_multiprocessor(&self, _single: bool) {
        match *self {}
    }

    pub fn coverage(&self) -> MutexGuard<'_, Coverage> {
        match *self {}
    }

    pub(super) fn compiled(&self, _source: &'static Source) -> &'static Source {
        match *self {}
    }

    pub(super) fn substitute(&self, _source: &'static Source) {
        match *self {}
    }
}
