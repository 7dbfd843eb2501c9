//! CUDA devices: NVIDIA cards, and the software GPU that runs the same kernels on any machine.
//!
//! A kernel is a [`Source`], embedded by `include_str!` and compiled by NVRTC at its first use, for the device's
//! architecture. Ops launch it through [`Cuda::kernel`] and [`Kernel::launch`].

mod accumulate;
mod arena;
mod cache;
mod card;
mod coverage;
mod driver;
#[cfg_attr(not(feature = "emulator"), path = "no_emulator.rs")]
mod emulated;
mod graph;
mod launch;
mod memory;
mod nvrtc;
mod planned;
mod resources;
mod signature;
mod source;
mod staging;

pub use accumulate::ACCUMULATE;
pub use coverage::{CompiledKernel, Coverage, LaunchKinds};
pub use driver::{DeviceProperties, Event, Grid, Stream};
pub use emulated::EmulatedGpu;
#[cfg(feature = "emulator")]
pub use emulated::LaunchRecord;
pub use graph::GraphCache;
pub use launch::{Arg, Kernel};
pub(crate) use memory::Memory;
pub use nvrtc::{Code, Nvrtc};
pub use resources::KernelResources;
pub use source::{Define, Source, Variant};
pub use staging::Staging;

use crate::memory::Ledger;
use crate::tensor::Tensor;
use crate::{At, Error, Result};
use driver::{Driver, DriverModule};
use launch::KernelEntry;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

/// One CUDA device: its driver, its ledger, and the kernels compiled so far.
pub struct Cuda {
    gpu: Backend,
    name: String,
    ledger: Arc<Ledger>,
    modules: Mutex<HashMap<String, Arc<LoadedModule>>>,
    kernels: Mutex<HashMap<String, Arc<KernelEntry>>>,
    redzones: memory::Redzones,
    copies: Mutex<Option<Stream>>,
    capture: Mutex<Option<graph::Capture>>,
}

struct LoadedModule {
    module: Arc<dyn DriverModule>,
    ptx: String,
}

enum Backend {
    Card(card::Card),
    Emulated(Box<EmulatedGpu>),
    Planned(planned::PlannedGpu),
}

impl Cuda {
    /// Opens the card with the index `ordinal`.
    ///
    /// # Errors
    /// When the driver, the card or the compiler (NVRTC) is missing or too old; the message says what to do.
    pub fn card(ordinal: usize) -> Result<Self> {
        card::count()?;
        let card = card::Card::new(ordinal, Nvrtc::get()?.version())?;
        Ok(Cuda::new(Backend::Card(card), format!("cuda:{ordinal}")))
    }

    /// Returns a GPU emulated in software, of architecture `arch`: `sm_80` or `sm_90a`.
    ///
    /// # Errors
    /// When the architecture is unknown, no compiler (NVRTC) is found, or this build lacks the feature `emulator`.
    pub fn emulated(arch: &str) -> Result<Self> {
        Nvrtc::get()?;
        Ok(Cuda::new(Backend::Emulated(Box::new(EmulatedGpu::new(arch)?)), format!("emulated:{arch}")))
    }

    /// Returns a planned card with these properties: it accounts for memory and computes nothing.
    pub fn planned(properties: DeviceProperties) -> Self {
        Cuda::new(Backend::Planned(planned::PlannedGpu::new(properties)), "plan".into())
    }

    /// True for a planned card, which computes nothing.
    pub fn is_plan(&self) -> bool {
        matches!(self.gpu, Backend::Planned(_))
    }

    /// Returns the free and the total memory in bytes.
    ///
    /// # Errors
    /// When the driver fails, or the card is planned, so that its memory is unknown.
    pub fn memory_info(&self) -> Result<(usize, usize)> {
        self.driver().memory()
    }

    /// True when NVIDIA's driver is installed, usable or not.
    pub fn has_driver() -> bool {
        card::has_driver()
    }

    /// Returns the number of cards.
    ///
    /// # Errors
    /// When the driver is missing or too old.
    pub fn card_count() -> Result<usize> {
        card::count()
    }

    fn new(gpu: Backend, name: String) -> Self {
        Cuda {
            gpu,
            name,
            ledger: Arc::default(),
            modules: Mutex::default(),
            kernels: Mutex::default(),
            redzones: memory::Redzones::default(),
            copies: Mutex::default(),
            capture: Mutex::default(),
        }
    }

    /// The name, e.g. `cuda:0`, `emulated:sm_80`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ledger of the device's memory.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The properties that compilation and launches depend on.
    pub fn properties(&self) -> &DeviceProperties {
        self.driver().properties()
    }

    /// The software GPU behind this device; `None` for a card and a planned card.
    pub fn emulator(&self) -> Option<&EmulatedGpu> {
        match &self.gpu {
            Backend::Emulated(emulated) => Some(emulated),
            Backend::Card(_) | Backend::Planned(_) => None,
        }
    }

    fn driver(&self) -> &dyn Driver {
        match &self.gpu {
            Backend::Card(card) => card,
            Backend::Emulated(emulated) => emulated.driver(),
            Backend::Planned(planned) => planned,
        }
    }

    /// Returns the kernel `name` of `source`, compiled as `variant`, one of the source's variants.
    ///
    /// # Errors
    /// When the source has no such variant or kernel, or does not compile.
    pub fn kernel(&self, source: &'static Source, variant: Variant, name: &str) -> Result<Kernel<'_>> {
        let key = format!("{} {variant} {name}", source.name);
        if let Some(entry) = self.kernels.lock().unwrap().get(&key) {
            return Ok(Kernel { cuda: self, entry: entry.clone() });
        }
        let entry = match self.is_plan() {
            true => KernelEntry {
                module: Arc::new(planned::PlannedModule),
                source: source.name,
                variant,
                name: name.into(),
                parameters: Vec::new(),
            },
            false => {
                let loaded = self.module(source, variant)?;
                let parameters = signature::parameters(&loaded.ptx, name).at(source.name)?;
                let module = loaded.module.clone();
                KernelEntry { module, source: source.name, variant, name: name.into(), parameters }
            }
        };
        let entry = Arc::new(entry);
        self.kernels.lock().unwrap().insert(key, entry.clone());
        Ok(Kernel { cuda: self, entry })
    }

    fn module(&self, source: &'static Source, variant: Variant) -> Result<Arc<LoadedModule>> {
        let key = format!("{} {variant}", source.name);
        if let Some(loaded) = self.modules.lock().unwrap().get(&key) {
            return Ok(loaded.clone());
        }
        let source = self.emulator().map_or(source, |emulated| emulated.compiled(source));
        let code = compile(source, variant, &self.properties().arch)?;
        let module = self.driver().load(&code).at(source.name)?;
        let loaded = Arc::new(LoadedModule { module, ptx: code.ptx });
        self.modules.lock().unwrap().insert(key, loaded.clone());
        Ok(loaded)
    }

    /// Replaces the source of the same name by `source` from now on, so that a test can show that the checks detect a
    /// bug in a kernel. A card only runs the sources that the program was built with.
    ///
    /// # Errors
    /// When the device is not a software GPU.
    pub fn substitute_source(&self, source: &'static Source) -> Result<()> {
        let Some(emulated) = self.emulator() else {
            return Err(Error::new(format!(
                "{} cannot substitute {}: only the software GPU can",
                self.name, source.name
            )));
        };
        emulated.substitute(source);
        let others = |key: &String| !key.starts_with(&format!("{} ", source.name));
        self.modules.lock().unwrap().retain(|key, _| others(key));
        self.kernels.lock().unwrap().retain(|key, _| others(key));
        Ok(())
    }

    /// Returns `taken`, and remembers on a software GPU that a launch decided so: the checks demand cases of both.
    pub fn branch(&self, name: &'static str, taken: bool) -> bool {
        if let Some(emulated) = self.emulator() {
            emulated.coverage().branched(name, taken);
        }
        taken
    }

    /// Creates a stream in addition to the one that ops use.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn stream(&self) -> Result<Stream> {
        self.driver().stream()
    }

    /// Returns the stream for copies between host and device, creating it at the first use.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn copy_stream(&self) -> Result<Stream> {
        let mut copies = self.copies.lock().unwrap();
        let stream = copies.map_or_else(|| self.stream(), Ok)?;
        *copies = Some(stream);
        Ok(stream)
    }

    /// Records an event in `stream`, which happens when all earlier work in it is done.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn record(&self, stream: Stream) -> Result<Event> {
        self.driver().record(stream)
    }

    /// Makes later work in `stream` wait for `event`.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn wait(&self, stream: Stream, event: &Event) -> Result<()> {
        self.driver().wait(stream, event)
    }

    /// Returns the milliseconds from one event to another, waiting for both.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn elapsed(&self, from: &Event, to: &Event) -> Result<f32> {
        self.driver().elapsed(from, to)
    }

    /// True when everything before `event` is done. The software GPU and planned cards finish each call at once.
    ///
    /// # Errors
    /// When the driver fails.
    pub(crate) fn is_done(&self, event: &Event) -> Result<bool> {
        match &self.gpu {
            Backend::Card(card) => card.is_done(event),
            Backend::Emulated(_) | Backend::Planned(_) => Ok(true),
        }
    }

    /// The CUDA driver's handle of `stream`, with this card's context made current in the calling thread.
    ///
    /// # Errors
    /// When this is not a card, or the driver fails.
    pub(crate) fn raw_stream(&self, stream: Stream) -> Result<*mut c_void> {
        match &self.gpu {
            Backend::Card(card) => Ok(card.raw_stream(stream)?.cast()),
            Backend::Emulated(_) | Backend::Planned(_) => {
                Err(Error::new(format!("NCCL is for cards, not for {}", self.name)))
            }
        }
    }

    /// Blocks until all work started on the device is done.
    ///
    /// # Errors
    /// The fault of a kernel, if there was one.
    pub fn synchronize(&self) -> Result<()> {
        self.driver().synchronize()
    }

    /// Returns the error of an op that has no CUDA kernel.
    pub fn no_kernel<T>(&self, what: &str) -> Result<T> {
        Err(Error::new(format!("{what} has no CUDA kernel yet: use --device cpu")))
    }

    /// The address of `t`'s first element.
    ///
    /// # Errors
    /// When `t` does not live on this device.
    pub(crate) fn address(&self, t: &Tensor) -> Result<u64> {
        let memory = self.own(Memory::of(t)?, t)?;
        memory.mark_used();
        Ok(memory.address())
    }

    /// The address of `t`'s first element, to write to.
    ///
    /// # Errors
    /// When `t` does not live on this device, or its buffer is shared.
    pub(crate) fn address_mut(&self, t: &mut Tensor) -> Result<u64> {
        t.ensure_unique()?;
        self.address(t)
    }

    /// Checks that `memory`, which holds `t`, belongs to this device.
    fn own<'a>(&self, memory: Option<&'a Memory>, t: &Tensor) -> Result<&'a Memory> {
        memory
            .filter(|m| std::ptr::eq(&**m.device(), self))
            .ok_or_else(|| Error::new(format!("{t:?} does not live on {}: copy it there first", self.name)))
    }
}

/// Compiles `source` as `variant` for architecture `arch`, or loads the result from the cache.
///
/// # Errors
/// When the source has no such variant or does not compile, or no compiler (NVRTC) is found.
pub fn compile(source: &Source, variant: Variant, arch: &str) -> Result<Code> {
    cache::compile(source, &source.options(variant, arch)?)
}

#[cfg(test)]
pub(crate) mod tests;
