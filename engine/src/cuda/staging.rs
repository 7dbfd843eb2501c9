//! Asynchronous uploads through page-locked memory: one buffer is filled while the other is copied (double buffering).

use super::Cuda;
use super::driver::{Event, Pinned, Stream};
use crate::{At, Error, Result, Tensor};
use std::sync::Arc;

/// Two page-locked buffers that take turns, and the stream that copies them to the device.
pub struct Staging {
    cuda: Arc<Cuda>,
    stream: Stream,
    halves: [StagingBuffer; 2],
    next: usize,
}

struct StagingBuffer {
    memory: Box<dyn Pinned>,
    /// Happens when the device has copied the content.
    copied: Option<Event>,
}

impl Staging {
    /// Allocates two buffers of `bytes` bytes each. Only tensors that exist already may be uploaded to.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn new(cuda: &Arc<Cuda>, bytes: usize) -> Result<Self> {
        let half = || Ok(StagingBuffer { memory: cuda.driver().pinned(bytes)?, copied: None });
        let stream = cuda.copy_stream()?;
        // Allocations are ordered in the compute stream: this stream must not write to them earlier.
        cuda.wait(stream, &cuda.record(Stream::COMPUTE)?)?;
        Ok(Staging { cuda: cuda.clone(), stream, halves: [half()?, half()?], next: 0 })
    }

    /// Uploads `bytes` bytes, which `fill` writes, to byte `offset` of `to`. They have arrived after
    /// [`Staging::wait`]; `to` must not be used before.
    ///
    /// # Errors
    /// When `fill` fails; when the range exceeds `to` or a buffer, or `to` lives elsewhere; or when the device fails.
    pub fn upload(
        &mut self,
        to: &Tensor,
        offset: usize,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let half = &mut self.halves[self.next];
        self.next = 1 - self.next;
        let address = self.cuda.address(to)?;
        if offset + bytes > to.byte_len() || bytes > half.memory.len() {
            return Err(Error::new(format!("bytes {offset}..+{bytes} cannot be uploaded to {to:?} at once")));
        }
        if let Some(copied) = half.copied.take() {
            self.cuda.driver().wait_event(&copied)?;
        }
        let from = &mut half.memory[..bytes];
        fill(from)?;
        // SAFETY: the half is not touched again, or freed, before `copied` has happened.
        unsafe { self.cuda.driver().upload_async(self.stream, address + offset as u64, from) }
            .at(self.cuda.name())?;
        // Without an event, only an idle device has certainly read the buffer.
        let record = || self.cuda.record(self.stream);
        half.copied = Some(record().or_else(|e| self.cuda.synchronize().and(Err(e)))?);
        Ok(())
    }

    /// Blocks until all uploads are done.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn wait(&mut self) -> Result<()> {
        let copied = self.halves.iter_mut().filter_map(|half| half.copied.take());
        copied.collect::<Vec<_>>().iter().try_for_each(|event| self.cuda.driver().wait_event(event))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The device may still be reading the buffers.
        let _ = self.wait();
    }
}
