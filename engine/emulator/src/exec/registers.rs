//! A warp's registers as rows of lanes, so that simple operations are loops a compiler vectorizes.

use crate::decode::Program;
use crate::inst::{Class, FULL, LANES, Slot};

/// A value for every lane. Unlike `array::from_fn` it is always inlined, into code compiled for the machine's
/// vectors.
#[inline(always)]
pub fn row<T: Copy + Default>(mut f: impl FnMut(usize) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for (k, value) in out.iter_mut().enumerate() {
        *value = f(k);
    }
    out
}

/// A 32-bit register of all lanes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Words(pub [u32; LANES]);

/// A 64-bit register of all lanes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Doubles(pub [u64; LANES]);

/// A kernel's constants, each spread over a row.
#[derive(Debug)]
pub struct Constants {
    words: Vec<Words>,
    doubles: Vec<Doubles>,
    predicates: Vec<u32>,
}

impl Constants {
    pub fn new(program: &Program) -> Constants {
        Constants {
            words: program.word_constants.iter().map(|&c| Words([c; LANES])).collect(),
            doubles: program.double_constants.iter().map(|&c| Doubles([c; LANES])).collect(),
            predicates: program.predicate_constants.iter().map(|&c| if c { FULL } else { 0 }).collect(),
        }
    }

    /// As many, all zero: the taint of constants.
    pub fn clean(program: &Program) -> Constants {
        Constants {
            words: vec![Words([0; LANES]); program.word_constants.len()],
            doubles: vec![Doubles([0; LANES]); program.double_constants.len()],
            predicates: vec![0; program.predicate_constants.len()],
        }
    }
}

/// A warp's registers.
#[derive(Debug)]
pub struct Registers<'g> {
    constants: &'g Constants,
    words: Vec<Words>,
    doubles: Vec<Doubles>,
    predicates: Vec<u32>,
    /// The carry flag of every lane.
    pub carry: u32,
}

/// The lanes of `mask` from `new`, the others from `old`.
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
    /// Registers all of whose bits are `bit`.
    pub fn new(program: &Program, constants: &'g Constants, bit: bool) -> Registers<'g> {
        let (word, double) = if bit { (u32::MAX, u64::MAX) } else { (0, 0) };
        Registers {
            constants,
            words: vec![Words([word; LANES]); program.words],
            doubles: vec![Doubles([double; LANES]); program.doubles],
            predicates: vec![word; program.predicates],
            carry: 0,
        }
    }

    #[inline(always)]
    pub fn word(&self, s: Slot) -> &[u32; LANES] {
        let pool = if s.is_constant() { &self.constants.words } else { &self.words };
        &pool[s.index()].0
    }

    #[inline(always)]
    pub fn double(&self, s: Slot) -> &[u64; LANES] {
        let pool = if s.is_constant() { &self.constants.doubles } else { &self.doubles };
        &pool[s.index()].0
    }

    #[inline(always)]
    pub fn predicate(&self, s: Slot) -> u32 {
        let pool = if s.is_constant() { &self.constants.predicates } else { &self.predicates };
        pool[s.index()]
    }

    #[inline(always)]
    pub fn set_word(&mut self, d: Slot, new: &[u32; LANES], mask: u32) {
        blend(&mut self.words[d.index()].0, new, mask);
    }

    #[inline(always)]
    pub fn set_double(&mut self, d: Slot, new: &[u64; LANES], mask: u32) {
        blend(&mut self.doubles[d.index()].0, new, mask);
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, d: Slot, new: u32, mask: u32) {
        let old = &mut self.predicates[d.index()];
        *old = *old & !mask | new & mask;
    }

    /// An operand of any class as bits.
    pub fn bits(&self, s: Slot) -> [u64; LANES] {
        match s.class() {
            _ if s.is_none() => [0; LANES],
            Class::Word => {
                let a = self.word(s);
                row(|k| a[k] as u64)
            }
            Class::Double => *self.double(s),
            Class::Predicate => {
                let p = self.predicate(s);
                row(|k| (p >> k & 1) as u64)
            }
        }
    }

    /// Writes a register of any class from bits.
    pub fn set_bits(&mut self, d: Slot, new: &[u64; LANES], mask: u32) {
        match d.class() {
            Class::Word => self.set_word(d, &row(|k| new[k] as u32), mask),
            Class::Double => self.set_double(d, new, mask),
            Class::Predicate => {
                let p = (0..LANES).fold(0, |p, k| p | (new[k] as u32 & 1) << k);
                self.set_predicate(d, p, mask);
            }
        }
    }

    /// Whether any bit of a register is set in any lane.
    pub fn any(&self, s: Slot) -> bool {
        match s.class() {
            Class::Word => self.word(s).iter().fold(0, |any, x| any | x) != 0,
            Class::Double => self.double(s).iter().fold(0, |any, x| any | x) != 0,
            Class::Predicate => self.predicate(s) != 0,
        }
    }

    /// Zeroes the lanes of `mask`.
    pub fn clear(&mut self, d: Slot, mask: u32) {
        match d.class() {
            Class::Word => self.set_word(d, &[0; LANES], mask),
            Class::Double => self.set_double(d, &[0; LANES], mask),
            Class::Predicate => self.set_predicate(d, 0, mask),
        }
    }

    /// The value of a word operand that must be the same in all lanes of `mask`, if it is.
    pub fn uniform(&self, s: Slot, mask: u32) -> Option<u32> {
        let row = self.word(s);
        let first = row[mask.trailing_zeros() as usize % LANES];
        (0..LANES).all(|k| mask >> k & 1 == 0 || row[k] == first).then_some(first)
    }
}
