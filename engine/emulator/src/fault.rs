//! A failed check, with everything a reader needs to find it.

use std::fmt;

/// Which check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access outside the allocation, variable or window it points into.
    OutOfBounds,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// An access to an allocation that was freed.
    UseAfterFree,
    /// Uninitialised data used for an address, a branch, or a result stored in global memory.
    Uninitialised,
    /// A warp collective executed by only some of the lanes it needs.
    Divergent,
    /// Warps that wait for others that will never come.
    Deadlock,
    /// Two warps, or two lanes of one, touch the same shared byte with no barrier between.
    SharedRace,
    /// Two blocks of one launch, or two threads of a block with no barrier between, touch the same global byte,
    /// one of them writing.
    GlobalRace,
    /// An asynchronous copy's destination used before the copy was waited for, or a copy never waited for.
    AsyncCopy,
    /// The kernel executed `trap`, or a failed `assert`.
    Trap,
    /// The kernel ran past the instruction limit.
    Endless,
    /// An operand value the instruction does not allow.
    Invalid,
}

/// A failed check. Its `Display` is one line.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which check.
    pub kind: FaultKind,
    /// The kernel's name.
    pub kernel: String,
    /// The line of the PTX text, counted from 1; 0 when no single instruction is to blame.
    pub ptx_line: u32,
    /// The CUDA source position, where the PTX carries line information.
    pub cuda: Option<(String, u32)>,
    /// The block, `ctaid`.
    pub block: [u32; 3],
    /// The thread, `tid`: the first lane concerned, when the check knows one.
    pub thread: Option<[u32; 3]>,
    /// What happened, with the addresses and names concerned.
    pub detail: String,
}

/// A failed check where it is found: the interpreter adds kernel, line, block and thread.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub kind: FaultKind,
    pub lane: Option<u32>,
    pub detail: String,
    /// The instruction of the other access, where two are to blame.
    pub other: Option<u32>,
}

impl Trouble {
    /// Names the other instruction concerned.
    pub fn also_at(mut self: Box<Self>, pc: u32) -> Box<Self> {
        self.other = Some(pc);
        self
    }
}

/// The result of something that checks.
pub(crate) type Check<T = ()> = std::result::Result<T, Box<Trouble>>;

/// A failed check, by a lane if one is to blame.
#[cold]
#[inline(never)]
pub(crate) fn trouble(kind: FaultKind, lane: Option<u32>, detail: impl Into<String>) -> Box<Trouble> {
    Box::new(Trouble { kind, lane, detail: detail.into(), other: None })
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
