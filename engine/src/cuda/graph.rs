//! Recorded work: what one call put into the compute stream, put there again as a whole.
//!
//! A recording holds addresses and scalars, so whatever changes from one run to the next is read from device memory
//! that stays where it is. What the work allocates lies in an arena that all recordings of a [`Graphs`] share: they
//! run one after another, and each leaves nothing there.

use super::Cuda;
use super::arena::{Seat, Space};
use super::driver::{Recorded, Stream};
use super::memory::Memory;
use crate::memory::Label;
use crate::{At, Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The work of one kind, by its size: each size is done once as it is, recorded the next time, and replayed from then
/// on.
pub struct Graphs {
    cuda: Arc<Cuda>,
    arena: Option<Arc<Memory>>,
    /// None of a size that has been done once.
    sizes: HashMap<usize, Option<Recording>>,
}

struct Recording {
    work: Recorded,
    /// Gone when the memory is that the work reads or writes.
    used: Vec<Weak<()>>,
}

/// While work is watched: where its memory lies, and what else it uses.
pub(super) struct Watch {
    space: Space,
    /// None in a rehearsal, in which nothing is launched, copied or filled.
    arena: Option<Arc<Memory>>,
    used: Vec<Weak<()>>,
    /// Addresses to be freed when the watch ends: a stream that records frees nothing.
    freed: Vec<u64>,
}

impl Graphs {
    /// None yet.
    pub fn new(cuda: &Arc<Cuda>) -> Self {
        Graphs { cuda: cuda.clone(), arena: None, sizes: HashMap::new() }
    }

    /// Does `work`, which is the same for the same `size` and leaves no tensor behind that it made: its results are in
    /// tensors that were there before. The tensors and numbers it uses are those of the run that was recorded.
    ///
    /// # Errors
    /// The work's own; when it cannot be recorded, because it sends, reads, waits or takes other memory every time;
    /// when a tensor that it uses is gone.
    pub fn run(&mut self, size: usize, mut work: impl FnMut() -> Result<()>) -> Result<()> {
        match self.sizes.get(&size) {
            Some(Some(recording)) => self.cuda.replay(recording),
            Some(None) => {
                let recording = self.record(work).at("recording for a graph")?;
                self.cuda.replay(self.sizes.entry(size).or_default().insert(recording))
            }
            None => {
                work()?;
                self.sizes.insert(size, None);
                Ok(())
            }
        }
    }

    /// Takes the memory that a recording of `work` would need, so that it is there later.
    ///
    /// # Errors
    /// The work's own; or when there is no memory left.
    pub fn reserve(&mut self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.rehearse(work).map(drop)
    }

    fn record(&mut self, mut work: impl FnMut() -> Result<()>) -> Result<Recording> {
        let arena = self.rehearse(&mut work)?;
        let driver = self.cuda.driver();
        driver.begin(Stream::COMPUTE)?;
        let (done, watch) = self.cuda.watched(Some(arena), work);
        // The stream must come out of it, whatever the work ran into.
        let recorded = driver.end(Stream::COMPUTE);
        watch.freed.iter().for_each(|&at| driver.free(at));
        done?;
        Ok(Recording { work: recorded?, used: watch.used })
    }

    /// An arena that `work` fits in; recordings in a smaller one go with it.
    fn rehearse(&mut self, work: impl FnOnce() -> Result<()>) -> Result<Arc<Memory>> {
        let (done, watch) = self.cuda.watched(None, work);
        done?;
        let bytes = watch.space.height();
        if let Some(arena) = self.arena.as_ref().filter(|arena| arena.len() >= bytes) {
            return Ok(arena.clone());
        }
        self.sizes.values_mut().for_each(|recording| *recording = None);
        self.arena = None;
        Ok(self.arena.insert(Arc::new(self.cuda.alloc(Label::Graphs, bytes)?)).clone())
    }
}

impl Cuda {
    /// Does `work`, and what was seen of it.
    fn watched(&self, arena: Option<Arc<Memory>>, work: impl FnOnce() -> Result<()>) -> (Result<()>, Watch) {
        let new = || Watch { space: Space::default(), arena, used: Vec::new(), freed: Vec::new() };
        let refuse = |message: &str| Err(Error::new(message).at(self.name()));
        {
            let watch = &mut *self.watch.lock().unwrap();
            if watch.is_some() {
                return (refuse("work is being recorded already"), new());
            }
            *watch = Some(new());
        }
        let done = work();
        let watch = self.watch.lock().unwrap().take().unwrap_or_else(|| unreachable!("nobody else ends it"));
        let empty = watch.space.is_empty();
        (
            done.and_then(
                |()| if empty { Ok(()) } else { refuse("a tensor outlives the work that made it") },
            ),
            watch,
        )
    }

    /// Whether work is only rehearsed.
    pub(super) fn rehearses(&self) -> bool {
        self.watch.lock().unwrap().as_ref().is_some_and(|watch| watch.arena.is_none())
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        if recording.used.iter().any(|used| used.strong_count() == 0) {
            return Err(Error::new("a tensor that recorded work uses is gone").at(self.name()));
        }
        self.driver().replay(Stream::COMPUTE, &recording.work).at(self.name())
    }

    /// A place for `bytes` bytes of the work that is watched, and the arena it lies in if it is recorded.
    pub(super) fn seat(&self, bytes: usize) -> Result<Option<(Seat, Option<Arc<Memory>>)>> {
        let watch = self.watch.lock().unwrap();
        let Some(watch) = &*watch else { return Ok(None) };
        let seat = watch.space.take(bytes);
        if watch.arena.as_ref().is_some_and(|arena| seat.end > arena.len()) {
            let message = "takes more memory than its rehearsal";
            return Err(Error::new(message).at(self.name()));
        }
        Ok(Some((seat, watch.arena.clone())))
    }

    /// The work that is watched uses memory which lives as long as `alive`.
    pub(super) fn uses(&self, alive: &Arc<()>) {
        if let Some(watch) = &mut *self.watch.lock().unwrap()
            && watch.arena.is_some()
            && !watch.used.iter().any(|used| std::ptr::eq(used.as_ptr(), Arc::as_ptr(alive)))
        {
            watch.used.push(Arc::downgrade(alive));
        }
    }

    /// Frees what the driver allocated: at once, or when the recording ends.
    pub(super) fn release(&self, at: u64) {
        if let Some(watch) = &mut *self.watch.lock().unwrap()
            && watch.arena.is_some()
        {
            return watch.freed.push(at);
        }
        self.driver().free(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::{cuda, emulated, probe_with};
    use crate::{DType, Device, Tensor};

    /// Two tensors of 3 elements and the device's recordings.
    fn fixture(device: &Device) -> (Tensor, Tensor, Graphs) {
        let x = device.tensor(Label::Activations, [3], &[1.0f32, 2.0, 3.0]).unwrap();
        (x, device.zeros(Label::Activations, [3], DType::F32), Graphs::new(cuda(device)))
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
        let Some(device) = emulated() else { return };
        let (mut x, mut y, mut graphs) = fixture(&device);
        // As it is; recorded and replayed; replayed, with what was recorded: 10 and not 20.
        for (value, add, wanted, replays) in [(1.0, 5.0, 7.0, 0), (2.0, 10.0, 13.0, 1), (3.0, 20.0, 14.0, 2)]
        {
            x.write(&[value, value, value]).unwrap();
            graphs.run(1, || twice(&device, &mut y, &x, add)).unwrap();
            assert_eq!(first(&y), wanted);
            assert_eq!(cuda(&device).emulator().unwrap().replays(), replays);
        }
        let usage = device.ledger().usage();
        assert_eq!(usage.now[Label::Graphs as usize], 256, "one place, for the tensor between");
        drop((graphs, x, y));
        assert_eq!(device.ledger().usage().total(), 0);
    }

    #[test]
    fn a_larger_recording_takes_the_smaller_ones_arena_and_they_are_made_again() {
        let Some(device) = emulated() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        let replays = || cuda(&device).emulator().unwrap().replays();
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
        // Of size 1, the third run is the second again; the sixth is recorded anew, in the arena of size 2.
        assert_eq!(seen, [3.0, 4.0, 4.0, 6.0, 7.0, 8.0, 8.0, 7.0]);
        assert_eq!((replays(), device.ledger().usage().now[Label::Graphs as usize]), (6, 3 * 256));
    }

    #[test]
    fn what_a_graph_must_not_hold_is_refused_and_the_device_goes_on() {
        let Some(device) = emulated() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        let refused = |graphs: &mut Graphs, work: &mut dyn FnMut() -> Result<()>| {
            graphs.run(1, &mut *work).unwrap();
            graphs.run(1, &mut *work).unwrap_err().to_string()
        };
        let mut sent = device.zeros(Label::Activations, [1], DType::F32);
        let message = refused(&mut graphs, &mut || sent.write(&[1.0f32]));
        assert!(
            message.contains("recording for a graph")
                && message.ends_with("a copy from the host cannot be recorded")
        );
        let mut graphs = Graphs::new(cuda(&device));
        let message = refused(&mut graphs, &mut || x.to_vec::<f32>().map(drop));
        assert!(message.ends_with("a copy to the host cannot be recorded"), "{message}");
        let mut graphs = Graphs::new(cuda(&device));
        let message = refused(&mut graphs, &mut || cuda(&device).synchronize());
        assert!(message.ends_with("waiting for the device cannot be recorded"), "{message}");
        let mut graphs = Graphs::new(cuda(&device));
        let mut larger = 0;
        let message = refused(&mut graphs, &mut || {
            larger += 64;
            twice(&device, &mut device.empty(Label::Scratch, [larger], DType::F32), &x, 0.0)
        });
        assert!(message.contains("takes more memory than its rehearsal"), "{message}");
        let mut kept = None;
        let mut graphs = Graphs::new(cuda(&device));
        let message = refused(&mut graphs, &mut || {
            kept = Some(device.empty(Label::Scratch, [1], DType::F32));
            Ok(())
        });
        assert!(message.ends_with("a tensor outlives the work that made it"), "{message}");
        twice(&device, &mut y, &x, 1.0).unwrap();
        assert_eq!(first(&y), 3.0);
    }

    #[test]
    fn a_rehearsal_takes_the_memory_and_does_nothing() {
        let Some(device) = emulated() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        graphs.reserve(|| twice(&device, &mut y, &x, 1.0)).unwrap();
        assert_eq!((first(&y), device.ledger().usage().now[Label::Graphs as usize]), (0.0, 256));
        for wanted in [3.0, 3.0] {
            graphs.run(1, || twice(&device, &mut y, &x, 1.0)).unwrap();
            assert_eq!((first(&y), device.ledger().usage().now[Label::Graphs as usize]), (wanted, 256));
        }
    }

    #[test]
    fn a_replay_without_its_tensors_is_refused() {
        let Some(device) = emulated() else { return };
        let (x, mut y, mut graphs) = fixture(&device);
        for _ in 0..2 {
            graphs.run(1, || twice(&device, &mut y, &x, 1.0)).unwrap();
        }
        drop(x);
        let error = graphs.run(1, || Ok(())).unwrap_err().to_string();
        assert_eq!(error, "emulated:sm_80: a tensor that recorded work uses is gone");
    }
}
