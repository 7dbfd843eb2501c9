//! Faults: failed checks of a kernel, with everything that is needed to find the cause.

use std::fmt;

/// The check that failed, with the corresponding tool of NVIDIA's compute-sanitizer in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access outside the allocation, variable or window that it points into (memcheck).
    OutOfBounds,
    /// An address that is not a multiple of the access size (memcheck).
    Misaligned,
    /// An access to an allocation that was freed (memcheck).
    UseAfterFree,
    /// Uninitialised data used for an address, a branch, or a value stored in global memory (initcheck).
    Uninitialised,
    /// A warp or block collective executed by only some of the lanes it needs (synccheck).
    Divergent,
    /// Warps that wait at a barrier that others never reach (synccheck).
    Deadlock,
    /// Two threads of a block access the same byte of shared memory with no barrier between, one of them writing
    /// (racecheck).
    SharedRace,
    /// Two blocks of a launch, or two threads of a block with no barrier between, access the same byte of global
    /// memory, one of them writing.
    GlobalRace,
    /// The destination of an asynchronous copy accessed before the wait, or a copy never waited for (racecheck).
    AsyncCopy,
    /// The kernel executed `trap`, or a device-side `assert` failed.
    Trap,
    /// A block executed more instructions than [`Gpu::set_instruction_limit`](crate::Gpu::set_instruction_limit)
    /// allows.
    Endless,
    /// An operand value that the instruction does not allow.
    Invalid,
}

/// A failed check of a kernel. Its `Display` is one line: kernel, check, what happened, block, thread, PTX and CUDA
/// line.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The check that failed.
    pub kind: FaultKind,
    /// Name of the kernel.
    pub kernel: String,
    /// Line of the PTX text, counted from 1; 0 when no single instruction is to blame.
    pub ptx_line: u32,
    /// CUDA file and line, if the PTX has line information (`-lineinfo`).
    pub cuda: Option<(String, u32)>,
    /// Index of the block, `ctaid`.
    pub block: [u32; 3],
    /// Index of the thread, `tid`: the first lane concerned, if the check identifies one.
    pub thread: Option<[u32; 3]>,
    /// Description of what happened, with the addresses and names concerned.
    pub detail: String,
}

/// A failed check as a warp raises it: the block adds kernel, lines, block and thread to make it a [`Fault`].
#[derive(Debug)]
pub(crate) struct LaneFault {
    pub kind: FaultKind,
    pub lane: Option<u32>,
    pub detail: String,
    /// The other instruction concerned, and its role: "written", "read", "loaded", "copied".
    pub related: Option<(&'static str, u32)>,
}

impl LaneFault {
    /// Adds the other instruction concerned.
    pub fn with_related(mut self: Box<Self>, role: &'static str, pc: u32) -> Box<Self> {
        self.related = Some((role, pc));
        self
    }
}

/// Result of an operation that may raise a fault.
pub(crate) type LaneResult<T = ()> = Result<T, Box<LaneFault>>;

/// Raises a fault, with the lane to blame if there is one.
#[cold]
#[inline(never)]
pub(crate) fn lane_fault(kind: FaultKind, lane: Option<u32>, detail: impl Into<String>) -> Box<LaneFault> {
    Box::new(LaneFault { kind, lane, detail: detail.into(), related: None })
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::OutOfBounds => "out of bounds",
            FaultKind::Misaligned => "misaligned",
            FaultKind::UseAfterFree => "use after free",
            FaultKind::Uninitialised => "uninitialised data",
            FaultKind::Divergent => "divergent collective",
            FaultKind::Deadlock => "deadlock",
            FaultKind::SharedRace => "data race in shared memory",
            FaultKind::GlobalRace => "data race in global memory",
            FaultKind::AsyncCopy => "asynchronous copy",
            FaultKind::Trap => "trap",
            FaultKind::Endless => "endless kernel",
            FaultKind::Invalid => "invalid operand",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "{}: {}: {} in block ({x}, {y}, {z})", self.kernel, self.kind, self.detail)?;
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        if self.ptx_line > 0 {
            write!(f, ", PTX line {}", self.ptx_line)?;
        }
        match &self.cuda {
            Some((file, line)) => write!(f, ", {file}:{line}"),
            None => Ok(()),
        }
    }
}
