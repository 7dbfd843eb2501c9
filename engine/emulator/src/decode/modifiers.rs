//! The dotted modifiers of an opcode. Each is taken once; a modifier left over makes the instruction unsupported.

use crate::error::{Error, Result};
use crate::inst::RegisterClass;
use crate::lane::convert::CvtType;
use crate::lane::round::Rounding;
use crate::ptx::Instruction;

/// A fundamental type of PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PtxType {
    /// Width in bits, and true if signed. `.b` types are unsigned.
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

impl PtxType {
    pub fn parse(word: &str) -> Option<PtxType> {
        Some(match word {
            "b8" | "u8" => PtxType::Int(8, false),
            "s8" => PtxType::Int(8, true),
            "b16" | "u16" => PtxType::Int(16, false),
            "s16" => PtxType::Int(16, true),
            "b32" | "u32" => PtxType::Int(32, false),
            "s32" => PtxType::Int(32, true),
            "b64" | "u64" => PtxType::Int(64, false),
            "s64" => PtxType::Int(64, true),
            "f16" => PtxType::F16,
            "f16x2" => PtxType::F16x2,
            "bf16" => PtxType::Bf16,
            "bf16x2" => PtxType::Bf16x2,
            "tf32" => PtxType::Tf32,
            "f32" => PtxType::F32,
            "f64" => PtxType::F64,
            "pred" => PtxType::Pred,
            _ => return None,
        })
    }

    pub fn bits(self) -> u32 {
        match self {
            PtxType::Int(bits, _) => bits,
            PtxType::F16 | PtxType::Bf16 => 16,
            PtxType::F16x2 | PtxType::Bf16x2 | PtxType::Tf32 | PtxType::F32 => 32,
            PtxType::F64 => 64,
            PtxType::Pred => 1,
        }
    }

    pub fn class(self) -> RegisterClass {
        match self.bits() {
            1 => RegisterClass::Predicate,
            64 => RegisterClass::B64,
            _ => RegisterClass::B32,
        }
    }

    pub fn is_int(self) -> bool {
        matches!(self, PtxType::Int(..))
    }

    pub fn signed(self) -> bool {
        matches!(self, PtxType::Int(_, true))
    }

    /// Returns the type as `cvt` names it.
    pub fn scalar(self) -> Option<CvtType> {
        Some(match self {
            PtxType::Int(8, false) => CvtType::U8,
            PtxType::Int(8, true) => CvtType::S8,
            PtxType::Int(16, false) => CvtType::U16,
            PtxType::Int(16, true) => CvtType::S16,
            PtxType::Int(32, false) => CvtType::U32,
            PtxType::Int(32, true) => CvtType::S32,
            PtxType::Int(64, false) => CvtType::U64,
            PtxType::Int(64, true) => CvtType::S64,
            PtxType::F16 => CvtType::F16,
            PtxType::Bf16 => CvtType::Bf16,
            PtxType::F32 => CvtType::F32,
            PtxType::F64 => CvtType::F64,
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

    /// Takes a modifier, at any position. Returns true if it was there.
    pub fn take(&mut self, word: &str) -> bool {
        match self.left.iter().position(|w| *w == word) {
            Some(at) => {
                self.left.remove(at);
                true
            }
            None => false,
        }
    }

    /// Takes the first of `words` that is present, and returns its value.
    pub fn take_one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        words.iter().find(|(w, _)| self.take(w)).map(|&(_, value)| value)
    }

    /// Takes a modifier that starts with `prefix`, and returns the rest of it.
    pub fn take_prefixed(&mut self, prefix: &str) -> Option<&'a str> {
        let at = self.left.iter().position(|w| w.starts_with(prefix))?;
        Some(&self.left.remove(at)[prefix.len()..])
    }

    /// Takes the last modifier as the type.
    pub fn take_type(&mut self) -> Result<PtxType> {
        let last = self.left.pop().ok_or_else(|| Error::ptx(0, "an instruction without a type modifier"))?;
        PtxType::parse(last).ok_or_else(|| Error::ptx(0, format!("unknown type '.{last}'")))
    }

    pub fn peek_last(&self) -> Option<&'a str> {
        self.left.last().copied()
    }

    pub fn take_rounding(&mut self) -> Option<Rounding> {
        self.take_one_of(&[
            ("rn", Rounding::Nearest),
            ("rna", Rounding::NearestAway),
            ("rz", Rounding::Zero),
            ("rm", Rounding::Down),
            ("rp", Rounding::Up),
        ])
    }

    /// Checks that every modifier was taken.
    pub fn expect_none_left(&self, i: &Instruction<'_>) -> Result<()> {
        match self.left.is_empty() {
            true => Ok(()),
            false => Err(unsupported(i)),
        }
    }
}

/// Returns the error for an instruction that the software GPU does not support.
pub fn unsupported(i: &Instruction<'_>) -> Error {
    Error::ptx(0, format!("unsupported instruction '{}'", i.opcode.join(".")))
}
