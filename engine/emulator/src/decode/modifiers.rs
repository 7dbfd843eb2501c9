//! The dotted modifiers of an opcode. Each is taken once; what is left over makes the instruction unknown.

use crate::error::{Error, Result};
use crate::inst::Class;
use crate::lane::convert::Type;
use crate::lane::round::Rounding;
use crate::ptx::Instruction;

/// A fundamental type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    /// Bits, and whether signed. `.b` types are unsigned.
    Int(u32, bool),
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    Pred,
}

impl Ty {
    pub fn parse(word: &str) -> Option<Ty> {
        Some(match word {
            "b8" | "u8" => Ty::Int(8, false),
            "s8" => Ty::Int(8, true),
            "b16" | "u16" => Ty::Int(16, false),
            "s16" => Ty::Int(16, true),
            "b32" | "u32" => Ty::Int(32, false),
            "s32" => Ty::Int(32, true),
            "b64" | "u64" => Ty::Int(64, false),
            "s64" => Ty::Int(64, true),
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::Bf16,
            "bf16x2" => Ty::Bf16x2,
            "tf32" => Ty::Tf32,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            "pred" => Ty::Pred,
            _ => return None,
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            Ty::Int(bits, _) => bits,
            Ty::F16 | Ty::Bf16 => 16,
            Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32 | Ty::F32 => 32,
            Ty::F64 => 64,
            Ty::Pred => 1,
        }
    }

    pub fn class(self) -> Class {
        match self.bits() {
            1 => Class::Predicate,
            64 => Class::Double,
            _ => Class::Word,
        }
    }

    pub fn is_int(self) -> bool {
        matches!(self, Ty::Int(..))
    }

    pub fn signed(self) -> bool {
        matches!(self, Ty::Int(_, true))
    }

    /// The scalar type as conversions name it.
    pub fn scalar(self) -> Option<Type> {
        Some(match self {
            Ty::Int(8, false) => Type::U8,
            Ty::Int(8, true) => Type::S8,
            Ty::Int(16, false) => Type::U16,
            Ty::Int(16, true) => Type::S16,
            Ty::Int(32, false) => Type::U32,
            Ty::Int(32, true) => Type::S32,
            Ty::Int(64, false) => Type::U64,
            Ty::Int(64, true) => Type::S64,
            Ty::F16 => Type::F16,
            Ty::Bf16 => Type::Bf16,
            Ty::F32 => Type::F32,
            Ty::F64 => Type::F64,
            _ => return None,
        })
    }
}

/// The modifiers not yet taken.
pub struct Modifiers<'a> {
    left: Vec<&'a str>,
}

impl<'a> Modifiers<'a> {
    pub fn of(i: &Instruction<'a>) -> Modifiers<'a> {
        Modifiers { left: i.opcode[1..].to_vec() }
    }

    /// Takes a modifier, wherever it stands.
    pub fn take(&mut self, word: &str) -> bool {
        match self.left.iter().position(|w| *w == word) {
            Some(at) => {
                self.left.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes the first of `words` that is there.
    pub fn one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        words.iter().find(|(w, _)| self.take(w)).map(|&(_, value)| value)
    }

    /// Takes a modifier that starts so, and returns the rest of it.
    pub fn prefixed(&mut self, prefix: &str) -> Option<&'a str> {
        let at = self.left.iter().position(|w| w.starts_with(prefix))?;
        Some(&self.left.remove(at)[prefix.len()..])
    }

    /// Takes the last modifier as the type.
    pub fn ty(&mut self) -> Result<Ty> {
        let last = self.left.pop().ok_or_else(|| Error::ptx(0, "an instruction without a type"))?;
        Ty::parse(last).ok_or_else(|| Error::ptx(0, format!("unknown type '.{last}'")))
    }

    pub fn peek_last(&self) -> Option<&'a str> {
        self.left.last().copied()
    }

    pub fn rounding(&mut self) -> Option<Rounding> {
        self.one_of(&[
            ("rn", Rounding::Nearest),
            ("rna", Rounding::NearestAway),
            ("rz", Rounding::Zero),
            ("rm", Rounding::Down),
            ("rp", Rounding::Up),
        ])
    }

    /// An error unless every modifier was taken.
    pub fn finish(&self, i: &Instruction<'_>) -> Result<()> {
        match self.left.is_empty() {
            true => Ok(()),
            false => Err(unknown(i)),
        }
    }
}

/// The instruction is not one this GPU knows.
pub fn unknown(i: &Instruction<'_>) -> Error {
    Error::ptx(0, format!("unknown instruction '{}'", i.opcode.join(".")))
}
