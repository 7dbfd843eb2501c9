//! A planned GPU: it hands out addresses and computes nothing. All code for a card runs on it, so that its ledger
//! predicts that of the card.

use super::driver::{CapturedGraph, DeviceProperties, Driver, DriverModule, Event, Grid, Pinned, Stream};
use super::nvrtc::Code;
use crate::{Error, Result};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A GPU whose addresses have no memory behind them.
pub(super) struct PlannedGpu {
    properties: DeviceProperties,
    next: AtomicU64,
}

/// The module of every kernel.
pub(super) struct PlannedModule;

impl DriverModule for PlannedModule {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl PlannedGpu {
    pub(super) fn new(properties: DeviceProperties) -> Self {
        PlannedGpu { properties, next: AtomicU64::new(256) }
    }
}

impl Driver for PlannedGpu {
    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn memory(&self) -> Result<(usize, usize)> {
        Err(Error::new("a planned card has no memory"))
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        Ok(self.next.fetch_add((bytes as u64).next_multiple_of(256), Ordering::Relaxed))
    }

    fn free(&self, _: u64) {}

    fn trim(&self) -> Result<()> {
        Ok(())
    }

    fn upload(&self, _: Stream, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        Ok(Box::new(vec![0; bytes]))
    }

    unsafe fn upload_async(&self, _: Stream, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Reads zeros: no value read from a device may decide what is allocated next.
    fn download(&self, _: Stream, to: &mut [u8], _: u64) -> Result<()> {
        to.fill(0);
        Ok(())
    }

    fn copy(&self, _: Stream, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn fill(&self, _: Stream, _: u64, _: u8, _: usize) -> Result<()> {
        Ok(())
    }

    fn load(&self, _: &Code) -> Result<Arc<dyn DriverModule>> {
        Ok(Arc::new(PlannedModule))
    }

    unsafe fn launch(&self, _: Stream, _: &dyn DriverModule, _: &str, _: Grid, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn stream(&self) -> Result<Stream> {
        Ok(Stream(1))
    }

    fn record(&self, _: Stream) -> Result<Event> {
        Ok(Event(Box::new(())))
    }

    fn wait(&self, _: Stream, _: &Event) -> Result<()> {
        Ok(())
    }

    fn wait_event(&self, _: &Event) -> Result<()> {
        Ok(())
    }

    fn elapsed(&self, _: &Event, _: &Event) -> Result<f32> {
        Ok(0.0)
    }

    fn begin_capture(&self, _: Stream) -> Result<()> {
        Ok(())
    }

    fn end_capture(&self, _: Stream) -> Result<CapturedGraph> {
        Ok(CapturedGraph(Box::new(())))
    }

    fn replay(&self, _: Stream, _: &CapturedGraph) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
