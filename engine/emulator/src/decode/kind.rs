//! What kind of work an opcode is, for the counters.

use crate::inst::Kind;
use crate::ptx::Instruction;

/// The kind of work of an opcode.
pub fn kind(i: &Instruction<'_>) -> Kind {
    const FLOATS: [&str; 7] = ["f32", "f64", "f16", "f16x2", "bf16", "bf16x2", "tf32"];
    let of_float = i.opcode.iter().any(|part| FLOATS.contains(part));
    match i.opcode[0] {
        "ld" | "ldu" | "st" | "atom" | "red" | "ldmatrix" | "stmatrix" => Kind::Memory,
        "cp" if i.opcode.contains(&"global") => Kind::Memory,
        "bar" | "barrier" | "cp" => Kind::Barrier,
        "mma" => Kind::Mma,
        "bra" | "brx" | "call" | "ret" | "exit" | "trap" => Kind::Branch,
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => Kind::Special,
        "div" if of_float => Kind::Special,
        "add" | "sub" | "mul" | "fma" | "mad" | "min" | "max" | "neg" | "abs" | "setp" | "set" | "cvt"
        | "copysign" | "testp" => {
            if of_float {
                Kind::Float
            } else {
                Kind::Integer
            }
        }
        "mov" | "cvta" | "selp" | "slct" | "shfl" | "vote" | "match" | "activemask" | "membar" | "fence" => {
            Kind::Other
        }
        "and" | "or" | "xor" | "not" if i.opcode.last() == Some(&"pred") => Kind::Other,
        "nanosleep" | "prefetch" | "prefetchu" | "discard" | "applypriority" | "createpolicy" => Kind::Other,
        _ => Kind::Integer,
    }
}
