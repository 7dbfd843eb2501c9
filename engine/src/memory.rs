//! Memory accounting, the one place where tensors are allocated: bytes are charged to a label in a device's ledger.

use crate::Result;
use crate::host_block::{HostBlock, HostHeap};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The purpose of an allocation; the memory table has one line per label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Label {
    Weights,
    /// Copies of weights in the order in which products read them.
    PackedWeights,
    Adapters,
    Gradients,
    Moments,
    /// Tensors that the tape keeps for backward.
    Saved,
    /// Outputs of ops.
    Activations,
    /// Working memory of one op.
    Scratch,
    /// Scores over the vocabulary.
    Logits,
    /// Pages of the KV cache.
    Kv,
    /// The arena of captured CUDA graphs.
    Graphs,
}

impl Label {
    /// Every label, in the order of the memory table.
    pub const ALL: [Label; 11] = [
        Label::Weights,
        Label::PackedWeights,
        Label::Adapters,
        Label::Gradients,
        Label::Moments,
        Label::Saved,
        Label::Activations,
        Label::Scratch,
        Label::Logits,
        Label::Kv,
        Label::Graphs,
    ];

    /// The label's name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Label::Weights => "weights",
            Label::PackedWeights => "packed",
            Label::Adapters => "adapters",
            Label::Gradients => "gradients",
            Label::Moments => "moments",
            Label::Saved => "saved",
            Label::Activations => "activations",
            Label::Scratch => "scratch",
            Label::Logits => "logits",
            Label::Kv => "kv",
            Label::Graphs => "graphs",
        }
    }
}

/// Bytes in use now and at the peak, by label and in total.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use now, by label.
    pub now: [usize; Label::ALL.len()],
    /// Bytes by label at the moment the total was highest.
    pub at_peak: [usize; Label::ALL.len()],
    /// The highest total.
    pub peak: usize,
}

impl Usage {
    /// Bytes in use now.
    pub fn total(&self) -> usize {
        self.now.iter().sum()
    }

    /// Bytes of one label at the moment of the peak.
    pub fn at_peak_of(&self, label: Label) -> usize {
        self.at_peak[label as usize]
    }
}

impl fmt::Display for Usage {
    /// Writes the memory table: one line per label in use at the peak, and the peak itself, in MiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        for label in Label::ALL.into_iter().filter(|&l| self.at_peak_of(l) > 0) {
            writeln!(f, "  {:<12}{:>12.1} MiB", label.name(), mib(self.at_peak_of(label)))?;
        }
        write!(f, "  {:<12}{:>12.1} MiB", "peak", mib(self.peak))
    }
}

/// The memory account of one device, and on the CPU its heap.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<LedgerState>,
}

#[derive(Default)]
struct LedgerState {
    usage: Usage,
    heap: HostHeap,
}

impl Ledger {
    /// The bytes in use and the peak so far.
    pub fn usage(&self) -> Usage {
        self.state.lock().unwrap().usage
    }

    /// Resets the peak to the bytes in use now.
    pub fn reset_peak(&self) {
        let usage = &mut self.state.lock().unwrap().usage;
        usage.peak = usage.total();
        usage.at_peak = usage.now;
    }

    /// Charges `bytes` to `label` until the returned charge is dropped.
    pub fn charge(self: &Arc<Self>, label: Label, bytes: usize) -> Charge {
        let usage = &mut self.state.lock().unwrap().usage;
        usage.now[label as usize] += bytes;
        if usage.total() > usage.peak {
            usage.peak = usage.total();
            usage.at_peak = usage.now;
        }
        Charge { ledger: self.clone(), label: AtomicUsize::new(label as usize), bytes }
    }

    /// Allocates host memory, fresh or reused; its content is arbitrary.
    pub(crate) fn alloc(self: &Arc<Self>, label: Label, bytes: usize) -> HostMemory {
        let charge = self.charge(label, bytes);
        let mut block = self.state.lock().unwrap().block(bytes);
        if cfg!(debug_assertions) {
            // A quiet NaN in f32 and in bf16 shows an op that forgets to write.
            bytemuck::cast_slice_mut::<u8, u16>(block.bytes_mut()).fill(0x7fc1);
        }
        HostMemory { block: Some(block), charge }
    }
}

impl LedgerState {
    /// Returns a block of at least `bytes`, reused or fresh. Free memory is kept for reuse as long as the process does not
    /// exceed the peak of the plan.
    fn block(&mut self, bytes: usize) -> HostBlock {
        self.heap.alloc(bytes, self.usage.peak - self.usage.total())
    }
}

/// Bytes charged to a ledger; dropping it releases them.
pub struct Charge {
    ledger: Arc<Ledger>,
    /// Index of the [`Label`] in [`Label::ALL`]; it changes under the lock of the ledger.
    label: AtomicUsize,
    bytes: usize,
}

impl Charge {
    /// The label that the bytes are charged to.
    pub fn label(&self) -> Label {
        Label::ALL[self.label.load(Ordering::Relaxed)]
    }

    /// Moves the bytes to label `to` if they are charged to `from`.
    pub(crate) fn relabel(&self, from: Label, to: Label) {
        let now = &mut self.ledger.state.lock().unwrap().usage.now;
        if self.label() == from {
            self.label.store(to as usize, Ordering::Relaxed);
            now[from as usize] -= self.bytes;
            now[to as usize] += self.bytes;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.state.lock().unwrap().usage.now[self.label() as usize] -= self.bytes;
    }
}

/// Host memory, returned to its ledger when dropped.
pub(crate) struct HostMemory {
    /// Present until the memory is dropped.
    block: Option<HostBlock>,
    charge: Charge,
}

impl HostMemory {
    /// Allocates a copy of the bytes, under the same label.
    pub(crate) fn duplicate(&self) -> HostMemory {
        let mut copy = self.charge.ledger.alloc(self.charge.label(), self.charge.bytes);
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }

    pub(crate) fn charge(&self) -> &Charge {
        &self.charge
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let block = self.block.as_ref().expect("present until it is dropped");
        &block.bytes()[..self.charge.bytes]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let block = self.block.as_mut().expect("present until it is dropped");
        &mut block.bytes_mut()[..self.charge.bytes]
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.charge.ledger.state.lock().unwrap().heap.free(block);
        }
    }
}

/// Memory of a device that the host cannot address; tensors use it through this trait.
pub(crate) trait DeviceMemory: Any + Send + Sync {
    /// The device's name, e.g. `cuda:0`.
    fn device_name(&self) -> &str;

    /// True when the device only plans, so that the memory has no content.
    fn is_planned(&self) -> bool;

    /// The entry in the device's ledger.
    fn charge(&self) -> &Charge;

    /// Writes all bytes from host memory.
    fn upload(&self, from: &[u8]) -> Result<()>;

    /// Reads all bytes into host memory, and returns when they have arrived.
    fn download(&self, to: &mut [u8]) -> Result<()>;

    /// Writes all bytes from another device's memory, or this one's.
    fn copy_from(&self, from: &dyn DeviceMemory) -> Result<()>;

    /// Writes all bytes from `block`, on the same device, read cyclically from byte `start` on.
    fn copy_cyclic(&self, block: &dyn DeviceMemory, start: usize) -> Result<()>;

    /// Sets every byte to `byte`.
    fn fill(&self, byte: u8) -> Result<()>;

    /// Allocates a copy on the same device, under the same label.
    fn duplicate(&self) -> Result<Box<dyn DeviceMemory>>;
}

/// Returns the anonymous resident memory of this process (not backed by a file) in bytes; `None` where the system
/// does not report them.
pub fn anonymous_bytes() -> Option<usize> {
    kilobytes("/proc/self/status", "RssAnon:")
}

/// Returns the bytes of memory that this machine can allocate without swapping; `None` where unknown.
pub fn available_bytes() -> Option<usize> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

fn kilobytes(file: &str, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<usize>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::PoisonError;

    /// Held by tests that read or move the memory of the process.
    pub(crate) static PROCESS_MEMORY: Mutex<()> = Mutex::new(());

    #[test]
    fn labels_follow_the_live_blocks_and_the_peak_stays() {
        let ledger = Arc::new(Ledger::default());
        let a = ledger.alloc(Label::Kv, 100);
        let b = ledger.alloc(Label::Scratch, 5000);
        assert_eq!((a.bytes().len(), ledger.usage().total()), (100, 5100));
        drop(b);
        let usage = ledger.usage();
        assert_eq!((usage.total(), usage.peak, usage.at_peak_of(Label::Scratch)), (100, 5100, 5000));
        ledger.reset_peak();
        assert_eq!(ledger.usage().peak, 100);
    }

    #[test]
    fn the_system_tells_its_memory() {
        let _alone = PROCESS_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let before = anonymous_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(
            anonymous_bytes().unwrap() >= before + (60 << 20) && available_bytes().unwrap() > block.len()
        );
    }

    #[test]
    fn what_a_block_is_for_can_change_once() {
        let ledger = Arc::new(Ledger::default());
        let block = ledger.alloc(Label::Activations, 300);
        block.charge().relabel(Label::Activations, Label::Saved);
        block.charge().relabel(Label::Activations, Label::Kv);
        let now = ledger.usage().now;
        assert_eq!(
            (now[Label::Saved as usize], now[Label::Kv as usize], now.iter().sum::<usize>()),
            (300, 0, 300)
        );
        drop(block);
        assert_eq!(ledger.usage().total(), 0);
    }

    #[test]
    fn freed_blocks_are_reused_and_never_exceed_the_peak() {
        let ledger = Arc::new(Ledger::default());
        let first = ledger.alloc(Label::Scratch, 1 << 16);
        let address = first.bytes().as_ptr();
        drop(first);
        assert_eq!(ledger.alloc(Label::Kv, 1 << 16).bytes().as_ptr(), address);
        let _other = ledger.alloc(Label::Kv, 1 << 15);
        let state = ledger.state.lock().unwrap();
        assert!(state.usage.total() + state.heap.kept() <= state.usage.peak);
    }
}
