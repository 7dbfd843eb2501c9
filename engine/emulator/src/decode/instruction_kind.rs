//! Classification of opcodes for the counters.

use crate::inst::InstructionKind;
use crate::ptx::Instruction;

/// Returns the kind of an instruction.
pub fn instruction_kind(i: &Instruction<'_>) -> InstructionKind {
    const FLOATS: [&str; 7] = ["f32", "f64", "f16", "f16x2", "bf16", "bf16x2", "tf32"];
    let of_float = i.opcode.iter().any(|part| FLOATS.contains(part));
    match i.opcode[0] {
        "ld" | "ldu" | "st" | "atom" | "red" | "ldmatrix" | "stmatrix" => InstructionKind::Memory,
        "cp" if i.opcode.contains(&"global") => InstructionKind::Memory,
        "bar" | "barrier" | "cp" => InstructionKind::Barrier,
        "mma" => InstructionKind::Mma,
        "bra" | "brx" | "call" | "ret" | "exit" | "trap" => InstructionKind::Branch,
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => InstructionKind::Special,
        "div" if of_float => InstructionKind::Special,
        "add" | "sub" | "mul" | "fma" | "mad" | "min" | "max" | "neg" | "abs" | "setp" | "set" | "cvt"
        | "copysign" | "testp" => {
            if of_float {
                InstructionKind::Float
            } else {
                InstructionKind::Integer
            }
        }
        "mov" | "cvta" | "selp" | "slct" | "shfl" | "vote" | "match" | "activemask" | "membar" | "fence" => {
            InstructionKind::Other
        }
        "and" | "or" | "xor" | "not" if i.opcode.last() == Some(&"pred") => InstructionKind::Other,
        "nanosleep" | "prefetch" | "prefetchu" | "discard" | "applypriority" | "createpolicy" => {
            InstructionKind::Other
        }
        _ => InstructionKind::Integer,
    }
}
