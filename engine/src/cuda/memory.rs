//! Device memory: charged to the device's books, freed when dropped, fenced while ops are checked.

use super::Cuda;
use super::arena::Seat;
use super::driver::Stream;
use crate::memory::{Charge, DeviceMemory, Label};
use crate::{At, Error, Result, Tensor};
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes of a fence, before and after an allocation.
const FENCE: usize = 256;
/// What a fence is filled with.
const POST: u8 = 0xc5;
/// What memory is filled with: a NaN in f32 and in bf16.
const NAN: u8 = 0xff;

/// Bytes on a device.
pub(crate) struct Memory {
    cuda: Arc<Cuda>,
    base: u64,
    /// Bytes between `base` and the content.
    fence: usize,
    bytes: usize,
    charge: Charge,
    /// Whose bytes these are, if they are some of others'.
    lender: Option<Arc<Memory>>,
    /// The place that work which is watched has given it.
    seat: Option<Seat>,
    /// Lives as long as the bytes do.
    alive: Arc<()>,
}

/// While they are up, allocations stand between fences and begin as NaN, but for those of recorded work.
#[derive(Default)]
pub(super) struct Fences {
    up: AtomicBool,
    broken: Mutex<Option<Error>>,
}

impl Cuda {
    /// Puts fences round every allocation from now on and fills it with NaN, or stops doing so.
    pub fn set_fences(&self, up: bool) {
        self.fences.up.store(up, Ordering::Relaxed);
    }

    /// Whether every fence was whole when its allocation was freed.
    ///
    /// # Errors
    /// The first that was not, since the last call.
    pub fn check_fences(&self) -> Result<()> {
        self.fences.broken.lock().unwrap().take().map_or(Ok(()), Err)
    }

    /// `bytes` bytes of arbitrary content.
    pub(crate) fn alloc(self: &Arc<Self>, label: Label, bytes: usize) -> Result<Memory> {
        let seat = match self.seat(bytes)? {
            Some((seat, Some(arena))) => {
                let mut lent = arena.part(seat.start, label, bytes);
                lent.seat = Some(seat);
                return Ok(lent);
            }
            Some((seat, None)) => Some(seat),
            None => None,
        };
        let charge = self.ledger().charge(label, bytes);
        let fenced = self.fences.up.load(Ordering::Relaxed) && seat.is_none();
        let fence = if fenced { FENCE } else { 0 };
        let base = self.take(bytes + 2 * fence).map_err(|e| match e.is_out_of_memory() {
            false => e.at(self.name()),
            true => {
                let usage = self.ledger().usage().to_string();
                let usage: Vec<&str> = usage.split_whitespace().collect();
                e.at(format!("{bytes} bytes for {} beside {}", label.name(), usage.join(" "))).at(self.name())
            }
        })?;
        let (lender, alive) = (None, Arc::default());
        let memory = Memory { cuda: self.clone(), base, fence, bytes, charge, lender, seat, alive };
        if fence > 0 {
            memory.fill_at(base, POST, bytes + 2 * fence)?;
            memory.fill(NAN)?;
        }
        Ok(memory)
    }

    /// The driver's memory. Where none is left, freed memory that is kept in pieces too small is given back first.
    fn take(&self, bytes: usize) -> Result<u64> {
        self.driver().alloc(bytes).or_else(|e| match e.is_out_of_memory() {
            true => self.driver().trim().and_then(|()| self.driver().alloc(bytes)),
            false => Err(e),
        })
    }
}

impl Memory {
    /// The CUDA memory that holds `t`; `None` when it lies elsewhere.
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

    /// `bytes` bytes from byte `at` on, charged to their lender alone.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn part(self: &Arc<Self>, at: usize, label: Label, bytes: usize) -> Memory {
        assert!(at + bytes <= self.bytes, "{bytes} bytes at {at} of {}", self.bytes);
        Memory {
            cuda: self.cuda.clone(),
            base: self.address() + at as u64,
            fence: 0,
            bytes,
            charge: self.cuda.ledger().charge(label, 0),
            lender: Some(self.clone()),
            seat: None,
            alive: self.alive.clone(),
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.base + self.fence as u64
    }

    /// Sends the first bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn upload_first(&self, from: &[u8]) -> Result<()> {
        assert!(from.len() <= self.bytes, "{} bytes for {}", from.len(), self.bytes);
        self.cuda.driver().upload(Stream::COMPUTE, self.address(), from).at(self.cuda.name())
    }

    /// Takes the bytes of `from`, which lives on the same device, from byte `at` on.
    pub(crate) fn copy_to(&self, at: usize, from: &Memory) -> Result<()> {
        if at + from.bytes > self.bytes || !Arc::ptr_eq(&self.cuda, &from.cuda) {
            let message = format!("{} bytes at {at} are not inside {}", from.bytes, self.bytes);
            return Err(Error::new(message).at(self.cuda.name()));
        }
        self.used();
        from.used();
        if self.cuda.rehearses() {
            return Ok(());
        }
        let (driver, to) = (self.cuda.driver(), self.address() + at as u64);
        driver.copy(Stream::COMPUTE, to, from.address(), from.bytes).at(self.cuda.name())
    }

    /// Tells the work that is watched, if there is any, that it uses these bytes.
    pub(super) fn used(&self) {
        self.cuda.uses(&self.alive);
    }

    fn fill_at(&self, at: u64, byte: u8, bytes: usize) -> Result<()> {
        match bytes {
            0 => Ok(()),
            _ if self.cuda.rehearses() => Ok(()),
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

    fn check_fences(&self) -> Result<()> {
        for (at, side) in [(self.base, "before"), (self.address() + self.bytes as u64, "after")] {
            let mut fence = [0u8; FENCE];
            self.cuda.driver().download(Stream::COMPUTE, &mut fence, at)?;
            if let Some(i) = fence.iter().position(|&b| b != POST) {
                let distance = if side == "before" { FENCE - i } else { i + 1 };
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
        self.upload_first(from)
    }

    fn download(&self, to: &mut [u8]) -> Result<()> {
        self.expect(to.len())?;
        self.cuda.driver().download(Stream::COMPUTE, to, self.address()).at(self.cuda.name())
    }

    fn copy_from(&self, from: &dyn DeviceMemory) -> Result<()> {
        match (from as &dyn Any).downcast_ref::<Memory>() {
            Some(from) if Arc::ptr_eq(&self.cuda, &from.cuda) => {
                self.expect(from.bytes)?;
                self.copy_to(0, from)
            }
            _ => {
                let mut bytes = vec![0; self.bytes];
                from.download(&mut bytes)?;
                self.upload(&bytes)
            }
        }
    }

    fn fill(&self, byte: u8) -> Result<()> {
        self.used();
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
        if self.fence > 0
            && let Err(broken) = self.check_fences()
        {
            self.cuda.fences.broken.lock().unwrap().get_or_insert(broken);
        }
        if self.lender.is_none() {
            self.cuda.release(self.base);
        }
    }
}
