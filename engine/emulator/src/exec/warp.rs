//! A warp: registers, the stack of diverged lanes, and its run loop.

use super::alu;
use super::block::Shared;
use super::grid::Grid;
use super::registers::Registers;
use crate::decode::Special;
use crate::fault::{Check, FaultKind, trouble};
use crate::inst::{Class, FULL, LANES, Slot};

/// Lanes that wait: at `pc` with `mask`, until others come to `rejoin`.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub pc: u32,
    pub mask: u32,
    /// Where these lanes join the frame below.
    pub rejoin: u32,
}

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Exited,
    /// At a barrier; the details are in `Warp::waiting`.
    Barrier,
    /// It has run long enough for now.
    Sliced,
}

/// Instructions a warp runs before others get a turn, so that one that spins cannot starve them.
const SLICE: u32 = 1 << 16;
/// No join point: the frame at the bottom.
const NEVER: u32 = u32::MAX;

/// A warp.
pub struct Warp<'g> {
    pub index: u32,
    pub registers: Registers<'g>,
    /// What runs now.
    pub now: Frame,
    pub stack: Vec<Frame>,
    /// Lanes that exist; a block's last warp may have fewer than 32.
    pub all: u32,
    pub exited: u32,
    /// The taint of the registers, from the first uninitialised bit on, and the load that brought it.
    pub taints: Option<Box<Registers<'g>>>,
    pub first_taint: Option<u32>,
    /// Local memory: word `w` of lane `k` at `32 w + k`; and its taint.
    pub local: Vec<u32>,
    pub local_taint: Vec<u32>,
    pub waiting: Option<super::barrier::Wait>,
    pub copies: super::copy::Copies<'g>,
}

/// The lanes of a mask, ascending.
pub struct Lanes(u32);

/// The lanes of a mask, ascending.
#[inline(always)]
pub fn lanes(mask: u32) -> Lanes {
    Lanes(mask)
}

impl Iterator for Lanes {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let k = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        if k < LANES { Some(k) } else { None }
    }
}

impl DoubleEndedIterator for Lanes {
    #[inline(always)]
    fn next_back(&mut self) -> Option<usize> {
        let k = self.0.checked_ilog2()?;
        self.0 ^= 1 << k;
        Some(k as usize)
    }
}

impl<'g> Warp<'g> {
    pub fn new(grid: &'g Grid<'g>, ctaid: [u32; 3], index: u32) -> Warp<'g> {
        let threads = grid.config.block.iter().product::<u32>();
        let here = (threads - index * LANES as u32).min(LANES as u32);
        let all = if here == 32 { FULL } else { (1 << here) - 1 };
        let mut registers = Registers::new(grid.program, &grid.constants, true);
        for &(row, special) in &grid.program.specials {
            let value = std::array::from_fn(|lane| special_value(special, grid, ctaid, index, lane as u32));
            registers.set_word(Slot::register(Class::Word, row), &value, FULL);
        }
        let local_words = (grid.program.local_bytes as usize).div_ceil(4) * LANES;
        let mut warp = Warp {
            index,
            registers,
            now: Frame { pc: 0, mask: all, rejoin: NEVER },
            stack: Vec::new(),
            all,
            exited: 0,
            taints: None,
            first_taint: None,
            local: vec![u32::MAX; local_words],
            local_taint: vec![u32::MAX; local_words],
            waiting: None,
            copies: super::copy::Copies::default(),
        };
        for &slot in &grid.program.undefined {
            warp.taints(grid).set_bits(slot, &[u64::MAX; LANES], FULL);
        }
        warp
    }

    /// The taint of the registers, made when first needed.
    pub fn taints(&mut self, grid: &'g Grid<'g>) -> &mut Registers<'g> {
        self.taints.get_or_insert_with(|| Box::new(Registers::new(grid.program, &grid.clean, false)))
    }

    /// Lanes that are still running.
    pub fn live(&self) -> u32 {
        self.all & !self.exited
    }

    /// Runs until something stops the warp.
    #[inline(always)]
    pub fn run(&mut self, shared: &mut Shared<'g>) -> Check<Stop> {
        let program = shared.grid.program;
        for _ in 0..SLICE {
            while self.now.pc == self.now.rejoin {
                if !self.pop() {
                    return Ok(Stop::Exited);
                }
            }
            let i = &program.insts[self.now.pc as usize];
            let mask = match i.guard.is_none() {
                true => self.now.mask,
                false => {
                    let p = self.registers.predicate(i.guard);
                    self.now.mask & if i.guard_negated { !p } else { p }
                }
            };
            let executed = &mut shared.executed[i.kind as usize];
            executed.warps += 1;
            executed.threads += mask.count_ones() as u64;
            if self.taints.is_some() {
                self.require_known(i.guard, self.now.mask, "a predicate that controls an instruction")?;
                self.spread_taint(i, mask);
            }
            if alu::execute(&mut self.registers, i, mask) {
                self.now.pc += 1;
            } else if let Some(stop) = self.execute(shared, i, mask)? {
                return Ok(stop);
            }
        }
        Ok(Stop::Sliced)
    }

    /// Takes up the topmost frame with lanes left; false when the warp has ended.
    pub fn pop(&mut self) -> bool {
        while let Some(frame) = self.stack.pop() {
            self.now = Frame { mask: frame.mask & !self.exited, ..frame };
            if self.now.mask != 0 {
                return true;
            }
        }
        self.now.mask = 0;
        false
    }

    /// An error unless all lanes that should are here.
    pub fn require_all(&self, mask: u32, what: &str) -> Check {
        if mask == self.all {
            return Ok(());
        }
        let absent = self.all & !mask;
        let why = match absent & self.exited != 0 {
            true => "have exited",
            false => "are elsewhere",
        };
        let detail = format!("{what} needs all lanes, but lanes {absent:#010x} {why}");
        Err(trouble(FaultKind::Divergent, Some(mask.trailing_zeros() % 32), detail))
    }
}

fn special_value(special: Special, grid: &Grid<'_>, ctaid: [u32; 3], warp: u32, lane: u32) -> u32 {
    let block = grid.config.block;
    match special {
        Special::Tid(axis) => thread(block, warp, lane)[axis as usize],
        Special::Ntid(axis) => block[axis as usize],
        Special::Ctaid(axis) => ctaid[axis as usize],
        Special::Nctaid(axis) => grid.config.grid[axis as usize],
        Special::LaneId => lane,
        Special::WarpId => warp,
        Special::WarpCount => 64,
        Special::LaneMaskEq => 1 << lane,
        Special::LaneMaskLt => (1 << lane) - 1,
        Special::LaneMaskLe => u32::MAX >> (31 - lane),
        Special::LaneMaskGe => !((1 << lane) - 1),
        Special::LaneMaskGt => !(u32::MAX >> (31 - lane)),
        Special::DynamicShared => grid.config.shared,
        Special::TotalShared => grid.shared_bytes,
        Special::Zero => 0,
    }
}

/// `tid` of a lane.
pub fn thread(block: [u32; 3], warp: u32, lane: u32) -> [u32; 3] {
    let n = warp * LANES as u32 + lane;
    [n % block[0], n / block[0] % block[1], n / block[0] / block[1]]
}
