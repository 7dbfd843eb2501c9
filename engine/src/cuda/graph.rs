//! CUDA graphs: the work that one call puts into the compute stream is captured once and then replayed in one launch.
//!
//! A graph holds addresses and scalars, so values that change from one run to the next must be read from device memory
//! at a fixed address. Allocations of the work lie in an arena that all graphs of a [`GraphCache`] share: they run one
//! after another, and none leaves a tensor there.

use super::Cuda;
use super::arena::{ArenaLayout, ArenaSlot};
use super::driver::{CapturedGraph, Stream};
use super::memory::Memory;
use crate::memory::Label;
use crate::{At, Error, Result};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// The graphs of one kind of work, by its size: each size runs directly the first time, is captured the second time,
/// and is replayed from then on.
pub struct GraphCache<Size> {
    cuda: Arc<Cuda>,
    arena: Option<Arc<Memory>>,
    /// `None` for a size that has only run directly so far.
    sizes: HashMap<Size, Option<GraphEntry>>,
}

struct GraphEntry {
    work: CapturedGraph,
    /// The memory that the work reads or writes: dead when it was freed.
    used: Vec<Weak<()>>,
}

/// State while work is captured, or in a dry run: the placement of its memory, and the other memory that it uses.
pub(super) struct Capture {
    layout: ArenaLayout,
    /// `None` in a dry run, which launches, copies and fills nothing.
    arena: Option<Arc<Memory>>,
    used: Vec<Weak<()>>,
    /// Addresses to free after the capture: nothing is freed during one.
    freed: Vec<u64>,
}

impl<Size: Eq + Hash + Copy> GraphCache<Size> {
    /// Returns an empty set of graphs.
    pub fn new(cuda: &Arc<Cuda>) -> Self {
        GraphCache { cuda: cuda.clone(), arena: None, sizes: HashMap::new() }
    }

    /// Runs `work`, directly or as a graph. It must do the same for the same `size`, and write its results to tensors
    /// that existed before. A replay uses the tensors and numbers of the run that was captured.
    ///
    /// # Errors
    /// When the work fails; when it cannot be captured because it copies from or to the host, waits, or allocates
    /// differently each time; when a tensor that it uses was dropped.
    pub fn run(&mut self, size: Size, mut work: impl FnMut() -> Result<()>) -> Result<()> {
        match self.sizes.get(&size) {
            Some(Some(graph)) => self.cuda.replay(graph),
            Some(None) => {
                let graph = self.capture(work).at("capturing a graph")?;
                self.cuda.replay(self.sizes.entry(size).or_default().insert(graph))
            }
            None => {
                work()?;
                self.sizes.insert(size, None);
                Ok(())
            }
        }
    }

    /// Allocates the memory that a graph of `work` needs, in advance.
    ///
    /// # Errors
    /// When the work fails, or the device has no memory left.
    pub fn reserve(&mut self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.dry_run(work).map(drop)
    }

    /// Captures the work of `work`, in an arena that a dry run has sized.
    fn capture(&mut self, mut work: impl FnMut() -> Result<()>) -> Result<GraphEntry> {
        let arena = self.dry_run(&mut work)?;
        let driver = self.cuda.driver();
        driver.begin_capture(Stream::COMPUTE)?;
        let (done, capture) = self.cuda.run_captured(Some(arena), work);
        // The capture must end, also when the work failed.
        let graph = driver.end_capture(Stream::COMPUTE);
        capture.freed.iter().for_each(|&at| driver.free(at));
        done?;
        Ok(GraphEntry { work: graph?, used: capture.used })
    }

    /// Returns an arena that `work` fits in. When a larger one is needed, the graphs in the old one are dropped.
    fn dry_run(&mut self, work: impl FnOnce() -> Result<()>) -> Result<Arc<Memory>> {
        let (done, capture) = self.cuda.run_captured(None, work);
        done?;
        let bytes = capture.layout.height();
        if let Some(arena) = self.arena.as_ref().filter(|arena| arena.len() >= bytes) {
            return Ok(arena.clone());
        }
        self.sizes.values_mut().for_each(|graph| *graph = None);
        self.arena = None;
        Ok(self.arena.insert(Arc::new(self.cuda.alloc(Label::Graphs, bytes)?)).clone())
    }
}

impl Cuda {
    /// Runs `work` under capture (or dry), and returns its result and the capture state.
    fn run_captured(
        &self,
        arena: Option<Arc<Memory>>,
        work: impl FnOnce() -> Result<()>,
    ) -> (Result<()>, Capture) {
        let new_capture =
            || Capture { layout: ArenaLayout::default(), arena, used: Vec::new(), freed: Vec::new() };
        let refuse = |message: &str| Err(Error::new(message).at(self.name()));
        {
            let capture = &mut *self.capture.lock().unwrap();
            if capture.is_some() {
                return (refuse("work is being captured already"), new_capture());
            }
            *capture = Some(new_capture());
        }
        let done = work();
        let capture = self.capture.lock().unwrap().take();
        let capture = capture.unwrap_or_else(|| unreachable!("only this function ends a capture"));
        let empty = capture.layout.is_empty();
        (
            done.and_then(
                |()| if empty { Ok(()) } else { refuse("a tensor outlives the work that made it") },
            ),
            capture,
        )
    }

    /// True during a dry run.
    pub(super) fn is_dry_run(&self) -> bool {
        self.capture.lock().unwrap().as_ref().is_some_and(|capture| capture.arena.is_none())
    }

    fn replay(&self, graph: &GraphEntry) -> Result<()> {
        if graph.used.iter().any(|used| used.strong_count() == 0) {
            return Err(Error::new("a tensor that captured work uses was dropped").at(self.name()));
        }
        self.driver().replay(Stream::COMPUTE, &graph.work).at(self.name())
    }

    /// Places `bytes` bytes for work under capture: the slot, and its arena unless this is a dry run.
    pub(super) fn place_in_arena(&self, bytes: usize) -> Result<Option<(ArenaSlot, Option<Arc<Memory>>)>> {
        let capture = self.capture.lock().unwrap();
        let Some(capture) = &*capture else { return Ok(None) };
        let slot = capture.layout.take(bytes);
        if capture.arena.as_ref().is_some_and(|arena| slot.end > arena.len()) {
            let message = "takes more memory than its dry run";
            return Err(Error::new(message).at(self.name()));
        }
        Ok(Some((slot, capture.arena.clone())))
    }

    /// Records that work under capture uses the memory that lives as long as `alive`.
    pub(super) fn note_use(&self, alive: &Arc<()>) {
        if let Some(capture) = &mut *self.capture.lock().unwrap()
            && capture.arena.is_some()
            && !capture.used.iter().any(|used| std::ptr::eq(used.as_ptr(), Arc::as_ptr(alive)))
        {
            capture.used.push(Arc::downgrade(alive));
        }
    }

    /// Frees memory of the driver, at once or when the capture ends.
    pub(super) fn release(&self, at: u64) {
        if let Some(capture) = &mut *self.capture.lock().unwrap()
            && capture.arena.is_some()
        {
            return capture.freed.push(at);
        }
        self.driver().free(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::{cuda, probe_with, software_gpu};
    use crate::{DType, Device, Tensor};

    /// Two tensors of 3 elements, and graphs of the device.
    fn fixture(device: &Device) -> (Tensor, Tensor, GraphCache<usize>) {
        let x = device.tensor(Label::Activations, [3], &[1.0f32, 2.0, 3.0]).unwrap();
        (x, device.zeros(Label::Activations, [3], DType::F32), GraphCache::new(cuda(device)))
    }

    /// y = x + `add` + 1, by way of a tensor that only lives meanwhile.
    fn twice(device: &Device, y: &mut Tensor, x: &Tensor, add: f32) -> Result<()> {
        let mut between = device.empty(Label::Activations, [3], DType::F32);
        probe_with(cuda(device), &mut between, x, 3, add)?;
        probe_with(cuda(device), y, &between, 3, 1.0)
    }

    fn first(t: &Tensor) -> f32 {
        t.to_vec::<f32>().unwrap()[0]
    }

    #[test]
    fn what_is_replayed_reads_memory_anew_and_numbers_as_they_were() {
        let Some(device) = software_gpu() else { return };
        let (mut x, mut y, mut graphs) = fixture(&device);
        // Direct; captured and replayed; replayed with the captured number, 10 and not 20.
        for (value, add, expected, replays) in
            [(1.0, 5.0, 7.0, 0), (2.0, 10.0, 13.0, 1), (3.0, 20.0, 14.0, 2)]
        {
            x.write(&[value, value, value]).unwrap();
            graphs.run(1, || twice(&device, &mut y, &x, add)).unwrap();
            assert_eq!(first(&y), expected);
            assert_eq!(cuda(&device).emulator().unwrap().replay_count(), replays);
        }
        let usage = device.ledger().usage();
        assert_eq!(usage.now[Label::Graphs as usize], 256, "one slot, for the tensor between");
        drop((graphs, x, y));
        assert_eq!(device.ledger().usage().total(), 0);
    }

    #[test]
    fn a_larger_graph_replaces_the_arena_of_smaller_ones_which_are_captured_again() {
        let Some(device) = software_gpu() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        let replays = || cuda(&device).emulator().unwrap().replay_count();
        let mut run = |size: usize, add| {
            let work = || {
                let room = device.empty(Label::Scratch, [64 * size], DType::F32);
                twice(&device, &mut y, &x, add).map(|()| drop(room))
            };
            graphs.run(size, work).unwrap();
            first(&y)
        };
        let made = [(1, 1.0), (1, 2.0), (1, 3.0), (2, 4.0), (2, 5.0), (1, 6.0), (1, 7.0), (2, 8.0)];
        let seen: Vec<f32> = made.into_iter().map(|(size, add)| run(size, add)).collect();
        // With size 1, the third run repeats the second; the sixth is captured anew, in the arena of size 2.
        assert_eq!(seen, [3.0, 4.0, 4.0, 6.0, 7.0, 8.0, 8.0, 7.0]);
        assert_eq!((replays(), device.ledger().usage().now[Label::Graphs as usize]), (6, 3 * 256));
    }

    #[test]
    fn what_a_graph_must_not_hold_is_refused_and_the_device_goes_on() {
        let Some(device) = software_gpu() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        let refused = |graphs: &mut GraphCache<usize>, work: &mut dyn FnMut() -> Result<()>| {
            graphs.run(1, &mut *work).unwrap();
            graphs.run(1, &mut *work).unwrap_err().to_string()
        };
        let mut sent = device.zeros(Label::Activations, [1], DType::F32);
        let message = refused(&mut graphs, &mut || sent.write(&[1.0f32]));
        assert!(
            message.contains("capturing a graph")
                && message.ends_with("a copy from the host cannot be captured")
        );
        let mut graphs = GraphCache::new(cuda(&device));
        let message = refused(&mut graphs, &mut || x.to_vec::<f32>().map(drop));
        assert!(message.ends_with("a copy to the host cannot be captured"), "{message}");
        let mut graphs = GraphCache::new(cuda(&device));
        let message = refused(&mut graphs, &mut || cuda(&device).synchronize());
        assert!(message.ends_with("waiting for the device cannot be captured"), "{message}");
        let mut graphs = GraphCache::new(cuda(&device));
        let mut larger = 0;
        let message = refused(&mut graphs, &mut || {
            larger += 64;
            twice(&device, &mut device.empty(Label::Scratch, [larger], DType::F32), &x, 0.0)
        });
        assert!(message.contains("takes more memory than its dry run"), "{message}");
        let mut kept = None;
        let mut graphs = GraphCache::new(cuda(&device));
        let message = refused(&mut graphs, &mut || {
            kept = Some(device.empty(Label::Scratch, [1], DType::F32));
            Ok(())
        });
        assert!(message.ends_with("a tensor outlives the work that made it"), "{message}");
        twice(&device, &mut y, &x, 1.0).unwrap();
        assert_eq!(first(&y), 3.0);
    }

    #[test]
    fn a_dry_run_takes_the_memory_and_does_nothing() {
        let Some(device) = software_gpu() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        graphs.reserve(|| twice(&device, &mut y, &x, 1.0)).unwrap();
        assert_eq!((first(&y), device.ledger().usage().now[Label::Graphs as usize]), (0.0, 256));
        for expected in [3.0, 3.0] {
            graphs.run(1, || twice(&device, &mut y, &x, 1.0)).unwrap();
            assert_eq!((first(&y), device.ledger().usage().now[Label::Graphs as usize]), (expected, 256));
        }
    }

    #[test]
    fn a_replay_without_its_tensors_is_refused() {
        let Some(device) = software_gpu() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        for _ in 0..2 {
            graphs.run(1, || twice(&device, &mut y, &x, 1.0)).unwrap();
        }
        drop(x);
        let error = graphs.run(1, || Ok(())).unwrap_err().to_string();
        assert_eq!(error, "emulated:sm_80: a tensor that captured work uses was dropped");
    }
}
