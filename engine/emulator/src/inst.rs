//! The decoded instruction: what the interpreter executes.

use crate::ptx::Space;

/// Lanes of a warp.
pub const LANES: usize = 32;
/// All lanes.
pub const FULL: u32 = u32::MAX;

/// How a register is stored: a row of 32 words, a row of 32 double words, or one bit per lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// 8 to 32 bits; narrower values are kept zero-extended.
    Word,
    Double,
    Predicate,
}

/// An operand: a row of the warp's registers or of the kernel's constants, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    pub const NONE: Slot = Slot(0x6000);
    /// The number of rows of a class that can be addressed.
    pub const LIMIT: usize = 0x2000;

    pub fn register(class: Class, index: usize) -> Slot {
        Slot((class as u16) << 13 | index as u16)
    }

    pub fn constant(class: Class, index: usize) -> Slot {
        Slot(0x8000 | (class as u16) << 13 | index as u16)
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0 == Slot::NONE.0
    }

    #[inline(always)]
    pub fn is_constant(self) -> bool {
        self.0 & 0x8000 != 0
    }

    #[inline(always)]
    pub fn class(self) -> Class {
        match self.0 >> 13 & 3 {
            0 => Class::Word,
            1 => Class::Double,
            _ => Class::Predicate,
        }
    }

    #[inline(always)]
    pub fn index(self) -> usize {
        (self.0 & 0x1fff) as usize
    }
}

/// The most destinations and sources of one instruction: `mma` has 4 and 10.
pub const MAX_DST: usize = 4;
pub const MAX_SRC: usize = 10;

/// A decoded instruction.
#[derive(Clone, Debug)]
pub struct Inst {
    pub op: Op,
    /// The guard predicate, `Slot::NONE` when there is none.
    pub guard: Slot,
    pub guard_negated: bool,
    pub dst: [Slot; MAX_DST],
    pub src: [Slot; MAX_SRC],
    /// Address offset, branch target, or other constant.
    pub imm: i64,
    pub kind: Kind,
}

/// A function of one lane: up to four operands as bits, and a constant.
pub type LaneFn = fn(&[u64; 4], u32) -> u64;

/// How a lane function's result depends on its operands' bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// Every bit depends on every bit.
    Mix,
    /// The bits of the first operands are moved, as the other operands say.
    Bits(u8),
    /// 16-bit halves are independent.
    Halves,
}

/// Integer operations that exist for words and double words alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int {
    Add,
    Sub,
    Mul,
    Mad,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Not,
    Neg,
}

/// Float operations on 32 bits in round-to-nearest, without saturation: those that inner loops are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    Add,
    Sub,
    Mul,
    Fma,
    Min,
    Max,
    Neg,
    Abs,
}

/// Conversions that inner loops are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convert {
    U32ToU64,
    S32ToS64,
    U64ToU32,
    S32ToF32,
    U32ToF32,
    F32ToBf16,
    F32ToBf16x2,
    F32ToF16,
    F32ToF16x2,
    F16ToF32,
    Bf16ToF32,
}

/// A comparison; the unordered forms are true when an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// What a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpType {
    U32,
    S32,
    U64,
    S64,
    F32,
    F64,
    F16,
    Bf16,
}

/// How a comparison's result joins the predicate operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    None,
    And,
    Or,
    Xor,
}

/// Operations on predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    Mov,
    Not,
    And,
    Or,
    Xor,
}

/// Whether an access takes part in race detection as a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    Plain,
    /// `.volatile`, `.relaxed`, `.acquire`, `.release`: made to be concurrent.
    Strong,
}

/// A load or store of each lane.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub space: Space,
    /// Bytes of one element.
    pub size: u8,
    /// Elements: 1, 2 or 4.
    pub count: u8,
    /// Loads sign-extend.
    pub signed: bool,
    /// Bits of the destination registers, for loads.
    pub width: u8,
    pub strength: Strength,
}

/// What an atomic does with the old value and its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    Add,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
    AddF32,
    AddF64,
    AddF16x2,
    AddBf16x2,
    AddF16,
    AddBf16,
}

/// Lane permutation of `shfl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `vote` modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// `redux` and `bar.red` operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    Add,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Popc,
}

/// Tensor-core shapes and types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mma {
    /// m16n8k16, bf16 inputs, f32 accumulators.
    Bf16K16,
    /// m16n8k8, bf16 inputs, f32 accumulators.
    Bf16K8,
    /// m16n8k16, f16 inputs, f32 accumulators.
    F16K16,
    /// m16n8k8, f16 inputs, f32 accumulators.
    F16K8,
    /// m16n8k8, tf32 inputs, f32 accumulators.
    Tf32K8,
    /// m16n8k4, tf32 inputs, f32 accumulators.
    Tf32K4,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Nop,
    Mov32,
    Mov64,
    Int32(Int),
    Int64(Int),
    /// 32 x 32 (+ 64) to 64 bits; signed or not.
    MulWide(bool),
    MadWide(bool),
    /// Shifts by a word operand, clamped to the width.
    Shl32,
    ShrU32,
    ShrS32,
    Shl64,
    ShrU64,
    ShrS64,
    /// Any function of three words, by its truth table.
    Lop3(u8),
    /// The flag: subnormal operands and results are flushed to zero.
    Float(Float, bool),
    Convert(Convert),
    /// A function applied lane by lane, its mode, and what it does with uninitialised bits.
    Lanes(LaneFn, u32, Moves),
    /// Adds or subtracts with the carry flag: (subtract, reads it, writes it), words or double words.
    Carry {
        subtract: bool,
        read: bool,
        write: bool,
        double: bool,
    },
    /// Destinations: p and, optionally, q.
    Setp(CmpType, Cmp, Join, bool),
    /// `src[2]` chooses.
    Selp32,
    Selp64,
    Logic(Logic),
    /// Two words to a double word and back; two 16-bit halves to a word and back.
    Pack64,
    Unpack64,
    Pack32,
    Unpack32,
    /// Four 16-bit parts of a double word.
    PackQuarters,
    UnpackQuarters,
    Clock,
    Load(Access),
    Store(Access),
    Atom {
        space: Space,
        op: Atomic,
        size: u8,
    },
    Shuffle(Shuffle),
    Vote(Vote),
    ActiveMask,
    MatchAny,
    MatchAll,
    Redux(Reduce),
    /// `bar.warp.sync`.
    WarpSync,
    /// `src[0]` id, `src[1]` thread count.
    Barrier,
    BarrierArrive,
    /// As `Barrier`; `src[2]` the predicate.
    BarrierReduce(Reduce),
    /// Matrices, and whether each is transposed.
    LoadMatrix(u8, bool),
    StoreMatrix(u8, bool),
    Mma(Mma),
    /// Bytes per lane; `src[0]` destination, `src[1]` source, `src[2]` source size if given; `imm` and `dst` unused.
    CopyAsync(u8),
    CopyCommit,
    /// Groups that may stay pending are `imm`.
    CopyWait,
    CopyWaitAll,
    Fence,
    /// Target is `imm`.
    Branch,
    /// Target list number is `imm`; `src[0]` the index.
    BranchIndexed,
    Exit,
    Trap,
}

/// What kind of work an instruction is, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Float,
    /// Approximations, divisions and roots.
    Special,
    Mma,
    /// Loads, stores and atomics.
    Memory,
    Barrier,
    Branch,
    /// Moves, predicate logic, shuffles, votes, fences.
    Other,
}

impl Kind {
    /// The number of kinds.
    pub const COUNT: usize = 8;
    pub const ALL: [Kind; Kind::COUNT] = [
        Kind::Integer,
        Kind::Float,
        Kind::Special,
        Kind::Mma,
        Kind::Memory,
        Kind::Barrier,
        Kind::Branch,
        Kind::Other,
    ];
}
