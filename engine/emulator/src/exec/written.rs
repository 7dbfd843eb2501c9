//! What a block has stored in global memory, and which thread did: another thread of the block may read or
//! replace it only after a barrier, as in shared memory.
//!
//! Reads are not recorded, so that a store after another thread's read passes: most of what a kernel reads is
//! never written, and records of it all would cost more than they show.

use super::clock::Clock;
use super::shadow::{Touch, Who};
use super::warp::lanes;
use crate::fault::{Check, FaultKind, trouble};
use std::collections::HashMap;

/// Granules of a page.
const PAGE: usize = 1024;

/// The last plain store to a granule; at time 0 there was none.
#[derive(Clone, Copy, Default)]
struct Store {
    time: u32,
    warp: u8,
    lane: u8,
    pc: u32,
}

/// A block's stores to global memory, by granules as wide as the kernel's narrowest access to it.
pub struct Written {
    /// log2 of a granule's bytes.
    grain: u32,
    numbers: HashMap<usize, usize>,
    pages: Vec<Box<[Store; PAGE]>>,
    /// The page last asked for.
    last: (usize, usize),
    /// Bases of the allocations that have been written.
    bases: Vec<u64>,
}

impl Written {
    pub fn new(grain: u32) -> Written {
        let grain = grain.trailing_zeros();
        let last = (usize::MAX, 0);
        Written { grain, numbers: HashMap::new(), pages: Vec::new(), last, bases: Vec::new() }
    }

    /// Checks a read against the stores so far.
    #[inline(always)]
    pub fn read(&mut self, clock: &Clock, touch: Touch<'_>) -> Check {
        if self.bases.contains(&touch.base) { self.look(clock, touch) } else { Ok(()) }
    }

    fn look(&mut self, clock: &Clock, touch: Touch<'_>) -> Check {
        for k in lanes(touch.mask) {
            for g in touch.granules(k, self.grain) {
                if let Some(page) = self.page(g) {
                    let store = self.pages[page][g % PAGE];
                    self.after(store, clock, touch.who, k, g, "reads")?;
                }
            }
        }
        Ok(())
    }

    /// Records a store, after a check against those before it.
    pub fn write(&mut self, clock: &Clock, touch: Touch<'_>) -> Check {
        if !self.bases.contains(&touch.base) {
            self.bases.push(touch.base);
        }
        let time = clock.time();
        for k in lanes(touch.mask) {
            for g in touch.granules(k, self.grain) {
                let page = self.page(g).unwrap_or_else(|| self.add_page(g));
                let store = self.pages[page][g % PAGE];
                // Lanes of one store that meet are another check's business.
                if store.pc != touch.who.pc || store.warp as u32 != touch.who.warp {
                    self.after(store, clock, touch.who, k, g, "writes")?;
                }
                let (warp, lane) = (touch.who.warp as u8, k as u8);
                self.pages[page][g % PAGE] = Store { time, warp, lane, pc: touch.who.pc };
            }
        }
        Ok(())
    }

    fn page(&mut self, granule: usize) -> Option<usize> {
        let page = granule / PAGE;
        if self.last.0 != page {
            self.last = (page, *self.numbers.get(&page)?);
        }
        Some(self.last.1)
    }

    fn add_page(&mut self, granule: usize) -> usize {
        self.numbers.insert(granule / PAGE, self.pages.len());
        self.pages.push(Box::new([Store::default(); PAGE]));
        self.pages.len() - 1
    }

    #[inline(always)]
    fn after(&self, store: Store, clock: &Clock, who: Who, lane: usize, g: usize, does: &str) -> Check {
        let same = store.warp as u32 == who.warp && store.lane as usize == lane;
        if same || store.time <= clock.known(who.warp, store.warp as u32) {
            return Ok(());
        }
        let detail = format!(
            "{does} {:#x}, which another thread of the block wrote, with no barrier since",
            g << self.grain
        );
        Err(trouble(FaultKind::GlobalRace, Some(lane as u32), detail).also_at(store.pc))
    }
}
