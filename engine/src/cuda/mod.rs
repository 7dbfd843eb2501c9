//! CUDA devices: real cards, and the software GPU that runs the same kernels on any machine.
//!
//! A kernel is a [`Source`] taken in by `include_str!` and compiled by NVRTC when it is first used, for the
//! device's own architecture. Ops reach it by [`Cuda::kernel`] and [`Kernel::launch`].

mod accumulate;
mod arena;
mod cache;
mod driver;
#[cfg_attr(not(feature = "emulator"), path = "no_emulator.rs")]
mod emulated;
mod graph;
mod launch;
mod memory;
mod nvrtc;
mod planned;
mod real;
mod resources;
mod signature;
mod staging;

pub use accumulate::ACCUMULATE;
pub use driver::{Event, Grid, Properties, Stream};
pub use emulated::Emulated;
pub use graph::Graphs;
pub use launch::{Arg, Kernel};
pub(crate) use memory::Memory;
pub use nvrtc::{Code, Nvrtc, Source};
pub use resources::Resources;
pub use staging::Staging;

use crate::memory::Ledger;
use crate::tensor::Tensor;
use crate::{At, Error, Result};
use driver::{Driver, Module};
use launch::Entry;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

/// One device: its driver, its books, and the kernels compiled so far.
pub struct Cuda {
    gpu: Gpu,
    name: String,
    ledger: Arc<Ledger>,
    modules: Mutex<HashMap<String, Arc<Loaded>>>,
    kernels: Mutex<HashMap<String, Arc<Entry>>>,
    fences: memory::Fences,
    copies: Mutex<Option<Stream>>,
    watch: Mutex<Option<graph::Watch>>,
}

struct Loaded {
    module: Arc<dyn Module>,
    ptx: String,
}

enum Gpu {
    Real(real::Real),
    Emulated(Box<Emulated>),
    Planned(planned::Planned),
}

impl Cuda {
    /// Card `ordinal`.
    ///
    /// # Errors
    /// When driver, card or compiler are missing or too old: which, and what to do.
    pub fn card(ordinal: usize) -> Result<Self> {
        real::count()?;
        let real = real::Real::new(ordinal, Nvrtc::get()?.version())?;
        Ok(Cuda::new(Gpu::Real(real), format!("cuda:{ordinal}")))
    }

    /// A GPU in software, of architecture `arch`: `sm_80` or `sm_90a`.
    ///
    /// # Errors
    /// When the architecture is unknown, or there is no compiler.
    pub fn emulated(arch: &str) -> Result<Self> {
        Nvrtc::get()?;
        Ok(Cuda::new(Gpu::Emulated(Box::new(Emulated::new(arch)?)), format!("emulated:{arch}")))
    }

    /// A card of these properties on which everything is planned and nothing computed.
    pub fn planned(properties: Properties) -> Self {
        Cuda::new(Gpu::Planned(planned::Planned::new(properties)), "plan".into())
    }

    /// Whether nothing is computed here.
    pub fn is_plan(&self) -> bool {
        matches!(self.gpu, Gpu::Planned(_))
    }

    /// Bytes of memory that are free, and all there are.
    ///
    /// # Errors
    /// The driver's; or when nothing is known of a planned card's memory.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.driver().memory()
    }

    /// Whether NVIDIA's driver is there, be it usable or not.
    pub fn has_driver() -> bool {
        real::has_driver()
    }

    /// The number of cards.
    ///
    /// # Errors
    /// When there is no driver, or it is too old.
    pub fn count() -> Result<usize> {
        real::count()
    }

    fn new(gpu: Gpu, name: String) -> Self {
        Cuda {
            gpu,
            name,
            ledger: Arc::default(),
            modules: Mutex::default(),
            kernels: Mutex::default(),
            fences: memory::Fences::default(),
            copies: Mutex::default(),
            watch: Mutex::default(),
        }
    }

    /// `cuda:0`, `emulated:sm_80`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's books.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What launches depend on.
    pub fn properties(&self) -> &Properties {
        self.driver().properties()
    }

    /// The software GPU, if it is one.
    pub fn emulator(&self) -> Option<&Emulated> {
        match &self.gpu {
            Gpu::Emulated(emulated) => Some(emulated),
            Gpu::Real(_) | Gpu::Planned(_) => None,
        }
    }

    fn driver(&self) -> &dyn Driver {
        match &self.gpu {
            Gpu::Real(real) => real,
            Gpu::Emulated(emulated) => emulated.driver(),
            Gpu::Planned(planned) => planned,
        }
    }

    /// The kernel `name` of `source`, compiled as `variant`, which is one of the source's.
    ///
    /// # Errors
    /// When the source has no such variant or kernel, or does not compile.
    pub fn kernel(&self, source: &'static Source, variant: &str, name: &str) -> Result<Kernel<'_>> {
        let key = format!("{} {variant} {name}", source.name);
        if let Some(entry) = self.kernels.lock().unwrap().get(&key) {
            return Ok(Kernel { cuda: self, entry: entry.clone() });
        }
        let entry = match self.is_plan() {
            true => Entry { module: Arc::new(planned::Nothing), name: name.into(), parameters: Vec::new() },
            false => {
                let loaded = self.module(source, variant)?;
                let parameters = signature::of(&loaded.ptx, name).at(source.name)?;
                Entry { module: loaded.module.clone(), name: name.into(), parameters }
            }
        };
        let entry = Arc::new(entry);
        self.kernels.lock().unwrap().insert(key, entry.clone());
        Ok(Kernel { cuda: self, entry })
    }

    fn module(&self, source: &'static Source, variant: &str) -> Result<Arc<Loaded>> {
        let key = format!("{} {variant}", source.name);
        if let Some(loaded) = self.modules.lock().unwrap().get(&key) {
            return Ok(loaded.clone());
        }
        let source = self.emulator().map_or(source, |emulated| emulated.compiled(source));
        let code = compile(source, variant, &self.properties().arch)?;
        let module = self.driver().load(&code).at(source.name)?;
        let loaded = Arc::new(Loaded { module, ptx: code.ptx });
        self.modules.lock().unwrap().insert(key, loaded.clone());
        Ok(loaded)
    }

    /// Compiles `source` from now on wherever the one of its name is asked for, so that a test can show that the
    /// checks see a bug in a kernel. A card never runs anything but what the program was built with.
    ///
    /// # Errors
    /// When the device is not a software GPU.
    pub fn substitute(&self, source: &'static Source) -> Result<()> {
        let Some(emulated) = self.emulator() else {
            return Err(Error::new(format!(
                "{} takes no other {}: only a software GPU does",
                self.name, source.name
            )));
        };
        emulated.substitute(source);
        let others = |key: &String| !key.starts_with(&format!("{} ", source.name));
        self.modules.lock().unwrap().retain(|key, _| others(key));
        self.kernels.lock().unwrap().retain(|key, _| others(key));
        Ok(())
    }

    /// A further stream, beside the one that ops use.
    ///
    /// # Errors
    /// The driver's.
    pub fn stream(&self) -> Result<Stream> {
        self.driver().stream()
    }

    /// The stream of copies between host and device, made when it is first used.
    ///
    /// # Errors
    /// The driver's.
    pub fn copies(&self) -> Result<Stream> {
        let mut copies = self.copies.lock().unwrap();
        let stream = copies.map_or_else(|| self.stream(), Ok)?;
        *copies = Some(stream);
        Ok(stream)
    }

    /// A mark in `stream`, reached when all that was put there before is done.
    ///
    /// # Errors
    /// The driver's.
    pub fn record(&self, stream: Stream) -> Result<Event> {
        self.driver().record(stream)
    }

    /// What is put into `stream` from now on waits for `event`.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&self, stream: Stream, event: &Event) -> Result<()> {
        self.driver().wait(stream, event)
    }

    /// Milliseconds from one event to another.
    ///
    /// # Errors
    /// The driver's.
    pub fn elapsed(&self, from: &Event, to: &Event) -> Result<f32> {
        self.driver().elapsed(from, to)
    }

    /// True when everything before `event` is done. The software GPU and planned cards finish each call at once.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn is_done(&self, event: &Event) -> Result<bool> {
        match &self.gpu {
            Gpu::Real(real) => real.is_done(event),
            Gpu::Emulated(_) | Gpu::Planned(_) => Ok(true),
        }
    }

    /// The CUDA driver's handle of `stream`, with this card's context made current in the calling thread.
    ///
    /// # Errors
    /// When this is not a card, or the driver fails.
    pub(crate) fn raw_stream(&self, stream: Stream) -> Result<*mut c_void> {
        match &self.gpu {
            Gpu::Real(real) => Ok(real.raw_stream(stream)?.cast()),
            Gpu::Emulated(_) | Gpu::Planned(_) => {
                Err(Error::new(format!("NCCL is for cards, not for {}", self.name)))
            }
        }
    }

    /// Waits until everything started on the device is done.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn synchronize(&self) -> Result<()> {
        self.driver().synchronize()
    }

    /// The refusal of an op that has no kernel.
    pub fn lacks<T>(&self, what: &str) -> Result<T> {
        Err(Error::new(format!("{what} has no CUDA kernel yet: use --device cpu")))
    }

    /// The address of `t`'s first element.
    ///
    /// # Errors
    /// When `t` does not live on this device.
    pub(crate) fn address(&self, t: &Tensor) -> Result<u64> {
        let memory = self.own(Memory::of(t)?, t)?;
        memory.used();
        Ok(memory.address())
    }

    /// The address of `t`'s first element, to write to.
    ///
    /// # Errors
    /// When `t` does not live on this device, or its buffer is shared.
    pub(crate) fn address_mut(&self, t: &mut Tensor) -> Result<u64> {
        t.sole()?;
        self.address(t)
    }

    fn own<'a>(&self, memory: Option<&'a Memory>, t: &Tensor) -> Result<&'a Memory> {
        memory
            .filter(|m| std::ptr::eq(&**m.device(), self))
            .ok_or_else(|| Error::new(format!("{t:?} does not live on {}: copy it there first", self.name)))
    }
}

/// `source` as `variant` for architecture `arch`, from the cache if it is there.
///
/// # Errors
/// When the source has no such variant or does not compile, or there is no compiler.
pub fn compile(source: &Source, variant: &str, arch: &str) -> Result<Code> {
    if !source.variants.contains(&variant) {
        return Err(Error::new(format!("is not made to be compiled as `{variant}`")).at(source.name));
    }
    let fixed = ["--std=c++17", "--generate-line-info", "--ptxas-options=-v"].map(String::from);
    let arch = format!("--gpu-architecture={arch}");
    let defines = variant.split_whitespace().map(|d| format!("-D{d}"));
    let options: Vec<String> = fixed.into_iter().chain([arch]).chain(defines).collect();
    cache::compile(source, &options)
}

#[cfg(test)]
pub(crate) mod tests;
