//! The decoded instruction: what the interpreter executes.

use crate::ptx::StateSpace;

/// Lanes of a warp.
pub const LANES: usize = 32;
/// All lanes.
pub const FULL: u32 = u32::MAX;

/// The class of a register: a row of 32 values of 32 or 64 bits, or one bit per lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegisterClass {
    /// 8 to 32 bits; narrower values are kept zero-extended.
    B32,
    B64,
    Predicate,
}

/// The row of the register file, or of the kernel's constants, that an operand occupies; or no operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterSlot(u16);

impl RegisterSlot {
    pub const NONE: RegisterSlot = RegisterSlot(0x6000);
    /// Number of rows of a class that can be addressed.
    pub const LIMIT: usize = 0x2000;

    pub fn register(class: RegisterClass, index: usize) -> RegisterSlot {
        RegisterSlot((class as u16) << 13 | index as u16)
    }

    pub fn constant(class: RegisterClass, index: usize) -> RegisterSlot {
        RegisterSlot(0x8000 | (class as u16) << 13 | index as u16)
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0 == RegisterSlot::NONE.0
    }

    #[inline(always)]
    pub fn is_constant(self) -> bool {
        self.0 & 0x8000 != 0
    }

    #[inline(always)]
    pub fn class(self) -> RegisterClass {
        match self.0 >> 13 & 3 {
            0 => RegisterClass::B32,
            1 => RegisterClass::B64,
            _ => RegisterClass::Predicate,
        }
    }

    #[inline(always)]
    pub fn index(self) -> usize {
        (self.0 & 0x1fff) as usize
    }
}

/// Maximum number of destinations and sources of an instruction, which `mma` has.
pub const MAX_DST: usize = 4;
pub const MAX_SRC: usize = 10;

/// A decoded instruction.
#[derive(Clone, Debug)]
pub struct Inst {
    pub op: Opcode,
    /// The guard predicate, `RegisterSlot::NONE` when there is none.
    pub guard: RegisterSlot,
    pub guard_negated: bool,
    pub dst: [RegisterSlot; MAX_DST],
    pub src: [RegisterSlot; MAX_SRC],
    /// Address offset, branch target, or other constant.
    pub imm: i64,
    pub kind: InstructionKind,
}

/// A function of one lane: the bits of up to four operands, and the mode.
pub type LaneFn = fn(&[u64; 4], u32) -> u64;

/// Propagation of taint through a lane function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaintFlow {
    /// Every bit of the result depends on every bit of the operands.
    All,
    /// The bits of the first n operands are moved, controlled by the other operands.
    Moved(u8),
    /// The 16-bit halves are independent.
    Halves,
}

/// Integer operations with a vector form for 32 and 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOp {
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

/// f32 operations that inner loops consist of, in round-to-nearest where nothing else is said: these have a vector form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Min,
    Max,
    Neg,
    Abs,
    /// `fma.rm`, and `cvt.sat`: with `ex2` these make an exponential.
    FmaDown,
    Saturate,
    Ex2,
    Lg2,
    Div,
    Rcp,
    Sqrt,
    Rsqrt,
}

/// Conversions that inner loops consist of: these have a vector form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CvtOp {
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
pub enum CmpOp {
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

/// Operand type of a comparison.
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

/// Boolean operator that combines a comparison with a predicate operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoolOp {
    None,
    And,
    Or,
    Xor,
}

/// Operations on predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredicateOp {
    Mov,
    Not,
    And,
    Or,
    Xor,
}

/// Weak and strong operations of the PTX memory model. Weak ones must be ordered by barriers: racecheck checks that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    Weak,
    /// `.volatile`, `.relaxed`, `.acquire`, `.release`, `.mmio`: may be concurrent.
    Strong,
}

/// A load or store of each lane.
#[derive(Clone, Copy, Debug)]
pub struct MemoryAccess {
    pub space: StateSpace,
    /// Bytes of one element.
    pub size: u8,
    /// Elements: 1, 2 or 4.
    pub count: u8,
    /// Loads sign-extend.
    pub signed: bool,
    /// Width of the destination registers of a load in bits.
    pub width: u8,
    pub strength: Strength,
}

/// Operation of `atom` and `red`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
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

/// Modes of `shfl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// Modes of `vote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

/// Operations of `redux` and `bar.red`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduxOp {
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

/// Shapes and input types of `mma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmaShape {
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

/// Operation of a decoded instruction.
#[derive(Clone, Copy, Debug)]
pub enum Opcode {
    Nop,
    Mov32,
    Mov64,
    Int32(IntOp),
    Int64(IntOp),
    /// 32 x 32 (+ 64) to 64 bits; true for signed.
    MulWide(bool),
    MadWide(bool),
    /// Shifts by a 32-bit amount, clamped to the width.
    Shl32,
    ShrU32,
    ShrS32,
    Shl64,
    ShrU64,
    ShrS64,
    /// Any Boolean function of three operands, by its truth table.
    Lop3(u8),
    /// With true, subnormal operands and results are flushed to zero.
    Float(FloatOp, bool),
    Convert(CvtOp),
    /// A function applied lane by lane, its mode, and how it propagates taint.
    Lanes(LaneFn, u32, TaintFlow),
    /// Adds or subtracts with the carry flag, on 32 or 64 bits.
    Carry {
        subtract: bool,
        read: bool,
        write: bool,
        double: bool,
    },
    /// Destinations: p and, optionally, q.
    Setp(CmpType, CmpOp, BoolOp, bool),
    /// `src[2]` selects.
    Selp32,
    Selp64,
    Logic(PredicateOp),
    /// Two 32-bit registers to one of 64 bits and back; two 16-bit halves to 32 bits and back.
    Pack64,
    Unpack64,
    Pack32,
    Unpack32,
    /// Four 16-bit registers to one of 64 bits and back.
    PackQuarters,
    UnpackQuarters,
    Clock,
    Load(MemoryAccess),
    Store(MemoryAccess),
    Atom {
        space: StateSpace,
        op: AtomicOp,
        size: u8,
    },
    Shuffle(ShuffleMode),
    Vote(VoteMode),
    ActiveMask,
    MatchAny,
    MatchAll,
    Redux(ReduxOp),
    /// `bar.warp.sync`.
    WarpSync,
    /// `src[0]` id, `src[1]` thread count.
    Barrier,
    BarrierArrive,
    /// Like `Barrier`; `src[2]` is the predicate.
    BarrierReduce(ReduxOp),
    /// Number of matrices, and true for `.trans`.
    LoadMatrix(u8, bool),
    StoreMatrix(u8, bool),
    Mma(MmaShape),
    /// Bytes per lane; `src[0]` destination, `src[1]` source, `src[2]` source size if given; `imm` and `dst` unused.
    CopyAsync(u8),
    CopyCommit,
    /// `imm`: number of groups that may stay pending.
    CopyWait,
    CopyWaitAll,
    Fence,
    /// `nanosleep`: a wait for another block, with the load before it.
    Sleep,
    /// `imm`: the target.
    Branch,
    /// `imm`: number of the branch table; `src[0]`: the index in it.
    BranchIndexed,
    Exit,
    Trap,
}

/// Kind of an instruction, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionKind {
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

impl InstructionKind {
    /// The number of kinds.
    pub const COUNT: usize = 8;
    pub const ALL: [InstructionKind; InstructionKind::COUNT] = [
        InstructionKind::Integer,
        InstructionKind::Float,
        InstructionKind::Special,
        InstructionKind::Mma,
        InstructionKind::Memory,
        InstructionKind::Barrier,
        InstructionKind::Branch,
        InstructionKind::Other,
    ];
}
