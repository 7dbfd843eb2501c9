//! Device memory: charged to the device's ledger, freed when dropped, and between redzones while ops are checked.

use super::Cuda;
use super::arena::ArenaSlot;
use super::driver::Stream;
use crate::memory::{Charge, DeviceMemory, Label};
use crate::{At, Error, Result, Tensor};
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Size in bytes of the redzones before and after an allocation.
const REDZONE: usize = 256;
/// The byte that redzones are filled with.
const REDZONE_BYTE: u8 = 0xc5;
/// The byte that memory between redzones is filled with: a NaN in f32 and in bf16.
const NAN_BYTE: u8 = 0xff;

/// An allocation on a device, or a view into one.
pub(crate) struct Memory {
    cuda: Arc<Cuda>,
    base: u64,
    /// Bytes between `base` and the content.
    redzone: usize,
    bytes: usize,
    charge: Charge,
    /// The allocation that this is a view into.
    parent: Option<Arc<Memory>>,
    /// The slot in the arena, when it was allocated under capture or in a dry run.
    arena_slot: Option<ArenaSlot>,
    /// Alive as long as the bytes are.
    alive: Arc<()>,
}

/// While they are on, allocations lie between redzones and begin as NaN, except those under capture.
#[derive(Default)]
pub(super) struct Redzones {
    on: AtomicBool,
    broken: Mutex<Option<Error>>,
}

impl Cuda {
    /// Surrounds every allocation from now on with redzones and fills it with NaN, or stops doing so.
    pub fn set_redzones(&self, on: bool) {
        self.redzones.on.store(on, Ordering::Relaxed);
    }

    /// Checks that every redzone was intact when its allocation was freed.
    ///
    /// # Errors
    /// The first since the last call that was overwritten.
    pub fn check_redzones(&self) -> Result<()> {
        self.redzones.broken.lock().unwrap().take().map_or(Ok(()), Err)
    }

    /// Allocates `bytes` bytes of arbitrary content.
    pub(crate) fn alloc(self: &Arc<Self>, label: Label, bytes: usize) -> Result<Memory> {
        let arena_slot = match self.place_in_arena(bytes)? {
            Some((slot, Some(arena))) => {
                let mut view = arena.view(slot.start, label, bytes);
                view.arena_slot = Some(slot);
                return Ok(view);
            }
            Some((slot, None)) => Some(slot),
            None => None,
        };
        let charge = self.ledger().charge(label, bytes);
        let guarded = self.redzones.on.load(Ordering::Relaxed) && arena_slot.is_none();
        let redzone = if guarded { REDZONE } else { 0 };
        let base = self.alloc_or_trim(bytes + 2 * redzone).map_err(|e| match e.is_out_of_memory() {
            false => e.at(self.name()),
            true => {
                let usage = self.ledger().usage().to_string();
                let usage: Vec<&str> = usage.split_whitespace().collect();
                e.at(format!("{bytes} bytes for {} (in use: {})", label.name(), usage.join(" ")))
                    .at(self.name())
            }
        })?;
        let (parent, alive) = (None, Arc::default());
        let memory = Memory { cuda: self.clone(), base, redzone, bytes, charge, parent, arena_slot, alive };
        if redzone > 0 {
            memory.fill_at(base, REDZONE_BYTE, bytes + 2 * redzone)?;
            memory.fill(NAN_BYTE)?;
        }
        Ok(memory)
    }

    /// Allocates from the driver. When no memory is left, it trims the pool and tries again: freed pieces that are too
    /// small for this may still be kept there.
    fn alloc_or_trim(&self, bytes: usize) -> Result<u64> {
        self.driver().alloc(bytes).or_else(|e| match e.is_out_of_memory() {
            true => self.driver().trim().and_then(|()| self.driver().alloc(bytes)),
            false => Err(e),
        })
    }
}

impl Memory {
    /// Returns the CUDA memory that holds `t`; `None` when it lies elsewhere.
    ///
    /// # Errors
    /// The reason why `t` could not be allocated or filled.
    pub(crate) fn of(t: &Tensor) -> Result<Option<&Memory>> {
        Ok(t.device_memory()?.and_then(|memory| (memory as &dyn Any).downcast_ref()))
    }

    pub(crate) fn device(&self) -> &Arc<Cuda> {
        &self.cuda
    }

    /// Bytes of the content.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Returns a view of `bytes` bytes at byte `offset`. It costs nothing in the ledger: its parent is charged.
    ///
    /// # Panics
    /// When the range exceeds the allocation.
    pub(crate) fn view(self: &Arc<Self>, offset: usize, label: Label, bytes: usize) -> Memory {
        assert!(offset + bytes <= self.bytes, "{bytes} bytes at {offset} of {}", self.bytes);
        Memory {
            cuda: self.cuda.clone(),
            base: self.address() + offset as u64,
            redzone: 0,
            bytes,
            charge: self.cuda.ledger().charge(label, 0),
            parent: Some(self.clone()),
            arena_slot: None,
            alive: self.alive.clone(),
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.base + self.redzone as u64
    }

    /// Uploads the first bytes.
    ///
    /// # Panics
    /// When `from` is longer than the allocation.
    pub(crate) fn upload_prefix(&self, from: &[u8]) -> Result<()> {
        assert!(from.len() <= self.bytes, "{} bytes for {}", from.len(), self.bytes);
        self.cuda.driver().upload(Stream::COMPUTE, self.address(), from).at(self.cuda.name())
    }

    /// Copies all bytes of `from`, on the same device, to byte `offset` of this allocation.
    pub(crate) fn copy_at(&self, offset: usize, from: &Memory) -> Result<()> {
        if offset + from.bytes > self.bytes || !Arc::ptr_eq(&self.cuda, &from.cuda) {
            let message = format!("{} bytes at {offset} are not inside {}", from.bytes, self.bytes);
            return Err(Error::new(message).at(self.cuda.name()));
        }
        self.mark_used();
        from.mark_used();
        if self.cuda.is_dry_run() {
            return Ok(());
        }
        let (driver, to) = (self.cuda.driver(), self.address() + offset as u64);
        driver.copy(Stream::COMPUTE, to, from.address(), from.bytes).at(self.cuda.name())
    }

    /// Records the use of these bytes by work under capture, if there is any.
    pub(super) fn mark_used(&self) {
        self.cuda.note_use(&self.alive);
    }

    fn fill_at(&self, at: u64, byte: u8, bytes: usize) -> Result<()> {
        match bytes {
            0 => Ok(()),
            _ if self.cuda.is_dry_run() => Ok(()),
            _ => self.cuda.driver().fill(Stream::COMPUTE, at, byte, bytes).at(self.cuda.name()),
        }
    }

    fn expect(&self, bytes: usize) -> Result<()> {
        match bytes == self.bytes {
            true => Ok(()),
            false => {
                Err(Error::new(format!("{bytes} bytes do not fill {} on {}", self.bytes, self.cuda.name())))
            }
        }
    }

    fn check_redzones(&self) -> Result<()> {
        for (at, side) in [(self.base, "before"), (self.address() + self.bytes as u64, "after")] {
            let mut redzone = [0u8; REDZONE];
            self.cuda.driver().download(Stream::COMPUTE, &mut redzone, at)?;
            if let Some(i) = redzone.iter().position(|&b| b != REDZONE_BYTE) {
                let distance = if side == "before" { REDZONE - i } else { i + 1 };
                let message =
                    format!("a kernel wrote {distance} bytes {side} an allocation of {}", self.bytes);
                return Err(Error::new(message).at(self.cuda.name()));
            }
        }
        Ok(())
    }
}

impl DeviceMemory for Memory {
    fn device_name(&self) -> &str {
        self.cuda.name()
    }

    fn is_planned(&self) -> bool {
        self.cuda.is_plan()
    }

    fn charge(&self) -> &Charge {
        &self.charge
    }

    fn upload(&self, from: &[u8]) -> Result<()> {
        self.expect(from.len())?;
        self.upload_prefix(from)
    }

    fn download(&self, to: &mut [u8]) -> Result<()> {
        self.expect(to.len())?;
        self.cuda.driver().download(Stream::COMPUTE, to, self.address()).at(self.cuda.name())
    }

    fn copy_from(&self, from: &dyn DeviceMemory) -> Result<()> {
        match (from as &dyn Any).downcast_ref::<Memory>() {
            Some(from) if Arc::ptr_eq(&self.cuda, &from.cuda) => {
                self.expect(from.bytes)?;
                self.copy_at(0, from)
            }
            _ => {
                let mut bytes = vec![0; self.bytes];
                from.download(&mut bytes)?;
                self.upload(&bytes)
            }
        }
    }

    fn copy_cyclic(&self, block: &dyn DeviceMemory, mut start: usize) -> Result<()> {
        let block = (block as &dyn Any).downcast_ref::<Memory>().filter(|b| Arc::ptr_eq(&self.cuda, &b.cuda));
        let block =
            block.ok_or_else(|| Error::new("the block lies on another device").at(self.cuda.name()))?;
        let mut done = 0;
        while done < self.bytes && !self.cuda.is_dry_run() {
            let bytes = (block.bytes - start).min(self.bytes - done);
            let (to, from) = (self.address() + done as u64, block.address() + start as u64);
            self.cuda.driver().copy(Stream::COMPUTE, to, from, bytes).at(self.cuda.name())?;
            (done, start) = (done + bytes, 0);
        }
        Ok(())
    }

    fn fill(&self, byte: u8) -> Result<()> {
        self.mark_used();
        self.fill_at(self.address(), byte, self.bytes)
    }

    fn duplicate(&self) -> Result<Box<dyn DeviceMemory>> {
        let copy = self.cuda.alloc(self.charge.label(), self.bytes)?;
        copy.copy_from(self)?;
        Ok(Box::new(copy))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.redzone > 0
            && let Err(broken) = self.check_redzones()
        {
            self.cuda.redzones.broken.lock().unwrap().get_or_insert(broken);
        }
        if self.parent.is_none() {
            self.cuda.release(self.base);
        }
    }
}
