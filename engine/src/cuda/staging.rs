//! Host data on its way to a device: one half of a pinned buffer is filled while the other half travels.

use super::Cuda;
use super::driver::{Event, Pinned, Stream};
use crate::{At, Error, Result, Tensor};
use std::sync::Arc;

/// Two buffers that take turns, and the stream that empties them.
pub struct Staging {
    cuda: Arc<Cuda>,
    stream: Stream,
    halves: [Half; 2],
    next: usize,
}

struct Half {
    memory: Box<dyn Pinned>,
    /// Reached when the device has fetched what was put here.
    fetched: Option<Event>,
}

impl Staging {
    /// Buffers of `bytes` bytes each. Tensors that exist now may be sent to.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(cuda: &Arc<Cuda>, bytes: usize) -> Result<Self> {
        let half = || Ok(Half { memory: cuda.driver().pinned(bytes)?, fetched: None });
        let stream = cuda.copies()?;
        // Memory is allocated in the order of the stream that computes.
        cuda.wait(stream, &cuda.record(Stream::COMPUTE)?)?;
        Ok(Staging { cuda: cuda.clone(), stream, halves: [half()?, half()?], next: 0 })
    }

    /// Has `fill` write `bytes` bytes, which go to `to` from byte `offset` on. They are there after
    /// [`Staging::finish`]; nobody uses `to` before that.
    ///
    /// # Errors
    /// Those of `fill`; when `to` is not that long or lives elsewhere; or when the device fails.
    pub fn send(
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
            return Err(Error::new(format!("bytes {offset}..+{bytes} are not sent to {to:?} at once")));
        }
        if let Some(fetched) = half.fetched.take() {
            self.cuda.driver().finish(&fetched)?;
        }
        let from = &mut half.memory[..bytes];
        fill(from)?;
        // SAFETY: the half is not touched again, or freed, before `fetched` has happened.
        unsafe { self.cuda.driver().fetch(self.stream, address + offset as u64, from) }
            .at(self.cuda.name())?;
        // Without a mark, only an idle device has surely fetched it.
        let record = || self.cuda.record(self.stream);
        half.fetched = Some(record().or_else(|e| self.cuda.synchronize().and(Err(e)))?);
        Ok(())
    }

    /// Returns when everything sent is there.
    ///
    /// # Errors
    /// The driver's.
    pub fn finish(&mut self) -> Result<()> {
        let fetched = self.halves.iter_mut().filter_map(|half| half.fetched.take());
        fetched.collect::<Vec<_>>().iter().try_for_each(|event| self.cuda.driver().finish(event))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The device may still be reading.
        let _ = self.finish();
    }
}
