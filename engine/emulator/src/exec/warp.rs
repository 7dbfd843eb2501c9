//! A warp: registers, the SIMT stack of diverged lanes, and its run loop.

use super::alu;
use super::launch::LaunchContext;
use super::registers::Registers;
use super::thread_block::BlockState;
use super::wait::Counted;
use crate::decode::SpecialRegister;
use crate::fault::{FaultKind, LaneResult, lane_fault};
use crate::inst::{FULL, LANES, RegisterClass, RegisterSlot};

/// An entry of the SIMT stack: the lanes of `mask` continue at `pc` until they reach `reconvergence`.
#[derive(Clone, Copy, Debug)]
pub struct DivergenceEntry {
    pub pc: u32,
    pub mask: u32,
    /// Instruction at which these lanes join the entry below.
    pub reconvergence: u32,
}

/// Reason why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Exited,
    /// It waits at a barrier, described by `Warp::waiting`.
    Barrier,
    /// It has used up its time slice.
    TimeSliceEnded,
    /// It waits for another block.
    Asleep,
}

/// Instructions that a warp executes before others get a turn, so that one that spins cannot starve them.
const TIME_SLICE: u32 = 1 << 16;
/// Reconvergence of the entry at the bottom: none.
const NO_RECONVERGENCE: u32 = u32::MAX;

/// A warp and its execution state.
pub struct Warp<'g> {
    pub index: u32,
    pub registers: Registers<'g>,
    /// The entry that executes now: its `mask` is the active mask.
    pub active: DivergenceEntry,
    pub stack: Vec<DivergenceEntry>,
    /// Mask of the lanes that exist; the last warp of a block may have fewer than 32.
    pub launched: u32,
    pub exited: u32,
    /// Taint of the registers, present from the first uninitialised bit on, and the load that brought that bit.
    pub register_taint: Option<Box<Registers<'g>>>,
    pub taint_source: Option<u32>,
    /// Local memory, word `w` of lane `k` at `32 w + k`, and its taint.
    pub local: Vec<u32>,
    pub local_taint: Vec<u32>,
    pub waiting: Option<super::barrier::BarrierWait>,
    pub copies: super::copy::AsyncCopies<'g>,
    /// True after `nanosleep`, and what the block had counted at the load before it and at the end of the sleep.
    pub asleep: bool,
    pub polled: Option<Counted>,
    pub woken: Option<Counted>,
}

/// Lanes of a mask in ascending order.
pub struct Lanes(u32);

/// Lanes of a mask in ascending order.
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
    pub fn new(launch: &'g LaunchContext<'g>, ctaid: [u32; 3], index: u32) -> Warp<'g> {
        let threads = launch.config.block.iter().product::<u32>();
        let count = (threads - index * LANES as u32).min(LANES as u32);
        let launched = if count == 32 { FULL } else { (1 << count) - 1 };
        let mut registers = Registers::new(launch.code, &launch.constants, true);
        for &(row, special) in &launch.code.specials {
            let value = std::array::from_fn(|lane| special_value(special, launch, ctaid, index, lane as u32));
            registers.set_b32(RegisterSlot::register(RegisterClass::B32, row), &value, FULL);
        }
        let local_words = (launch.code.local_bytes as usize).div_ceil(4) * LANES;
        let mut warp = Warp {
            index,
            registers,
            active: DivergenceEntry { pc: 0, mask: launched, reconvergence: NO_RECONVERGENCE },
            stack: Vec::new(),
            launched,
            exited: 0,
            register_taint: None,
            taint_source: None,
            local: vec![u32::MAX; local_words],
            local_taint: vec![u32::MAX; local_words],
            waiting: None,
            copies: super::copy::AsyncCopies::default(),
            asleep: false,
            polled: None,
            woken: None,
        };
        for &slot in &launch.code.read_before_write {
            warp.taint_registers(launch).set_bits(slot, &[u64::MAX; LANES], FULL);
        }
        warp
    }

    /// Returns the taint of the registers, allocated at first use.
    pub fn taint_registers(&mut self, launch: &'g LaunchContext<'g>) -> &mut Registers<'g> {
        self.register_taint
            .get_or_insert_with(|| Box::new(Registers::new(launch.code, &launch.untainted, false)))
    }

    /// Returns the mask of the lanes that have not exited.
    pub fn running(&self) -> u32 {
        self.launched & !self.exited
    }

    /// Executes instructions until something stops the warp.
    #[inline(always)]
    pub fn run(&mut self, block: &mut BlockState<'g>) -> LaneResult<StopReason> {
        let code = block.launch.code;
        self.polled = None;
        self.woken = std::mem::take(&mut self.asleep).then(|| block.counted());
        for _ in 0..TIME_SLICE {
            while self.active.pc == self.active.reconvergence {
                if !self.pop_divergence() {
                    return Ok(StopReason::Exited);
                }
            }
            let i = &code.insts[self.active.pc as usize];
            let mask = match i.guard.is_none() {
                true => self.active.mask,
                false => {
                    let p = self.registers.predicate(i.guard);
                    self.active.mask & if i.guard_negated { !p } else { p }
                }
            };
            let executed = &mut block.executed[i.kind as usize];
            executed.warps += 1;
            executed.threads += mask.count_ones() as u64;
            if self.register_taint.is_some() {
                self.require_known(i.guard, self.active.mask, "a predicate that controls an instruction")?;
                self.propagate_taint(i, mask);
            }
            if alu::execute(&mut self.registers, i, mask) {
                self.active.pc += 1;
            } else if let Some(stop) = self.execute(block, i, mask)? {
                return Ok(stop);
            }
        }
        Ok(StopReason::TimeSliceEnded)
    }

    /// Activates the topmost entry with lanes left. Returns false when the warp has ended.
    pub fn pop_divergence(&mut self) -> bool {
        while let Some(frame) = self.stack.pop() {
            self.active = DivergenceEntry { mask: frame.mask & !self.exited, ..frame };
            if self.active.mask != 0 {
                return true;
            }
        }
        self.active.mask = 0;
        false
    }

    /// Checks that all lanes of the warp execute `what` convergently.
    pub fn require_all(&self, mask: u32, what: &str) -> LaneResult {
        if mask == self.launched {
            return Ok(());
        }
        let absent = self.launched & !mask;
        let why = match absent & self.exited != 0 {
            true => "have exited",
            false => "have diverged",
        };
        let detail =
            format!("{what} must be executed by all lanes of the warp, but lanes {absent:#010x} {why}");
        Err(lane_fault(FaultKind::Divergent, Some(mask.trailing_zeros() % 32), detail))
    }
}

fn special_value(
    special: SpecialRegister,
    launch: &LaunchContext<'_>,
    ctaid: [u32; 3],
    warp: u32,
    lane: u32,
) -> u32 {
    let block = launch.config.block;
    match special {
        SpecialRegister::Tid(axis) => thread(block, warp, lane)[axis as usize],
        SpecialRegister::Ntid(axis) => block[axis as usize],
        SpecialRegister::Ctaid(axis) => ctaid[axis as usize],
        SpecialRegister::Nctaid(axis) => launch.config.grid[axis as usize],
        SpecialRegister::LaneId => lane,
        SpecialRegister::WarpId => warp,
        SpecialRegister::WarpCount => 64,
        SpecialRegister::LaneMaskEq => 1 << lane,
        SpecialRegister::LaneMaskLt => (1 << lane) - 1,
        SpecialRegister::LaneMaskLe => u32::MAX >> (31 - lane),
        SpecialRegister::LaneMaskGe => !((1 << lane) - 1),
        SpecialRegister::LaneMaskGt => !(u32::MAX >> (31 - lane)),
        SpecialRegister::DynamicShared => launch.config.shared_bytes,
        SpecialRegister::TotalShared => launch.shared_bytes,
        SpecialRegister::Zero => 0,
    }
}

/// Returns `tid` of a lane.
pub fn thread(block: [u32; 3], warp: u32, lane: u32) -> [u32; 3] {
    let n = warp * LANES as u32 + lane;
    [n % block[0], n / block[0] % block[1], n / block[0] / block[1]]
}
