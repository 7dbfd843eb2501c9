//! The register file of a warp, stored as rows of 32 lanes so that the compiler vectorizes simple operations.

use crate::decode::KernelCode;
use crate::inst::{FULL, LANES, RegisterClass, RegisterSlot};

/// Makes a row from a function of the lane. Unlike `array::from_fn` it is always inlined, into code compiled for the
/// machine's vector instructions.
#[inline(always)]
pub fn row<T: Copy + Default>(mut f: impl FnMut(usize) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for (k, value) in out.iter_mut().enumerate() {
        *value = f(k);
    }
    out
}

/// Row of a 32-bit register: its value in every lane.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct B32Row(pub [u32; LANES]);

/// Row of a 64-bit register: its value in every lane.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct B64Row(pub [u64; LANES]);

/// Constants of a kernel, each broadcast to a row.
#[derive(Debug)]
pub struct ConstantRows {
    b32: Vec<B32Row>,
    b64: Vec<B64Row>,
    predicates: Vec<u32>,
}

impl ConstantRows {
    pub fn new(code: &KernelCode) -> ConstantRows {
        ConstantRows {
            b32: code.b32_constants.iter().map(|&c| B32Row([c; LANES])).collect(),
            b64: code.b64_constants.iter().map(|&c| B64Row([c; LANES])).collect(),
            predicates: code.predicate_constants.iter().map(|&c| if c { FULL } else { 0 }).collect(),
        }
    }

    /// Returns as many rows of zeros: the taint of constants.
    pub fn untainted(code: &KernelCode) -> ConstantRows {
        ConstantRows {
            b32: vec![B32Row([0; LANES]); code.b32_constants.len()],
            b64: vec![B64Row([0; LANES]); code.b64_constants.len()],
            predicates: vec![0; code.predicate_constants.len()],
        }
    }
}

/// Registers of a warp.
#[derive(Debug)]
pub struct Registers<'g> {
    constants: &'g ConstantRows,
    b32: Vec<B32Row>,
    b64: Vec<B64Row>,
    predicates: Vec<u32>,
    /// Carry flag of every lane, one bit each.
    pub carry: u32,
}

/// Replaces the lanes of `mask` by those of `new`.
#[inline(always)]
fn blend<T: Copy>(old: &mut [T; LANES], new: &[T; LANES], mask: u32) {
    if mask == FULL {
        *old = *new;
    } else {
        for k in 0..LANES {
            old[k] = if mask >> k & 1 != 0 { new[k] } else { old[k] };
        }
    }
}

impl<'g> Registers<'g> {
    /// Returns registers with every bit equal to `bit`.
    pub fn new(code: &KernelCode, constants: &'g ConstantRows, bit: bool) -> Registers<'g> {
        let (word, double) = if bit { (u32::MAX, u64::MAX) } else { (0, 0) };
        Registers {
            constants,
            b32: vec![B32Row([word; LANES]); code.b32_rows],
            b64: vec![B64Row([double; LANES]); code.b64_rows],
            predicates: vec![word; code.predicate_rows],
            carry: 0,
        }
    }

    #[inline(always)]
    pub fn b32(&self, s: RegisterSlot) -> &[u32; LANES] {
        let pool = if s.is_constant() { &self.constants.b32 } else { &self.b32 };
        &pool[s.index()].0
    }

    #[inline(always)]
    pub fn b64(&self, s: RegisterSlot) -> &[u64; LANES] {
        let pool = if s.is_constant() { &self.constants.b64 } else { &self.b64 };
        &pool[s.index()].0
    }

    #[inline(always)]
    pub fn predicate(&self, s: RegisterSlot) -> u32 {
        let pool = if s.is_constant() { &self.constants.predicates } else { &self.predicates };
        pool[s.index()]
    }

    #[inline(always)]
    pub fn set_b32(&mut self, d: RegisterSlot, new: &[u32; LANES], mask: u32) {
        blend(&mut self.b32[d.index()].0, new, mask);
    }

    #[inline(always)]
    pub fn set_b64(&mut self, d: RegisterSlot, new: &[u64; LANES], mask: u32) {
        blend(&mut self.b64[d.index()].0, new, mask);
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, d: RegisterSlot, new: u32, mask: u32) {
        let old = &mut self.predicates[d.index()];
        *old = *old & !mask | new & mask;
    }

    /// Reads an operand of any class as bits.
    pub fn bits(&self, s: RegisterSlot) -> [u64; LANES] {
        match s.class() {
            _ if s.is_none() => [0; LANES],
            RegisterClass::B32 => {
                let a = self.b32(s);
                row(|k| a[k] as u64)
            }
            RegisterClass::B64 => *self.b64(s),
            RegisterClass::Predicate => {
                let p = self.predicate(s);
                row(|k| (p >> k & 1) as u64)
            }
        }
    }

    /// Writes a register of any class from bits.
    pub fn set_bits(&mut self, d: RegisterSlot, new: &[u64; LANES], mask: u32) {
        match d.class() {
            RegisterClass::B32 => self.set_b32(d, &row(|k| new[k] as u32), mask),
            RegisterClass::B64 => self.set_b64(d, new, mask),
            RegisterClass::Predicate => {
                let p = (0..LANES).fold(0, |p, k| p | (new[k] as u32 & 1) << k);
                self.set_predicate(d, p, mask);
            }
        }
    }

    /// Returns true if any bit of a register is set in any lane.
    pub fn any_bit(&self, s: RegisterSlot) -> bool {
        match s.class() {
            RegisterClass::B32 => self.b32(s).iter().fold(0, |any, x| any | x) != 0,
            RegisterClass::B64 => self.b64(s).iter().fold(0, |any, x| any | x) != 0,
            RegisterClass::Predicate => self.predicate(s) != 0,
        }
    }

    /// Zeroes the lanes of `mask`.
    pub fn clear(&mut self, d: RegisterSlot, mask: u32) {
        match d.class() {
            RegisterClass::B32 => self.set_b32(d, &[0; LANES], mask),
            RegisterClass::B64 => self.set_b64(d, &[0; LANES], mask),
            RegisterClass::Predicate => self.set_predicate(d, 0, mask),
        }
    }

    /// Returns the value of a 32-bit operand if it is the same in all lanes of `mask`.
    pub fn uniform(&self, s: RegisterSlot, mask: u32) -> Option<u32> {
        let row = self.b32(s);
        let first = row[mask.trailing_zeros() as usize % LANES];
        (0..LANES).all(|k| mask >> k & 1 == 0 || row[k] == first).then_some(first)
    }
}
