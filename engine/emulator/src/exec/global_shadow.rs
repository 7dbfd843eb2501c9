//! Racecheck within a block in global memory: a record of which thread stored what. As in shared memory, another thread
//! of the block may read or overwrite it only after a barrier.
//!
//! Reads are not recorded, so a store after another thread's read (a WAR hazard) is not found: most of what a kernel
//! reads is never written, and recording it all would cost more than it shows.

use super::shared_memory::{Accessor, WarpAccess, hazard_after_write};
use super::vector_clock::VectorClock;
use super::warp::lanes;
use crate::fault::{FaultKind, LaneResult, lane_fault};
use std::collections::HashMap;

/// Number of granules in a page.
const PAGE: usize = 1024;

/// The last weak store to a granule; time 0 means that there was none.
#[derive(Clone, Copy, Default)]
struct LastStore {
    time: u32,
    warp: u8,
    lane: u8,
    pc: u32,
}

/// Shadow of the global memory that a block stored to, in granules as wide as the kernel's narrowest access to it.
pub struct GlobalShadow {
    /// log2 of a granule's bytes.
    granule_log2: u32,
    page_index: HashMap<usize, usize>,
    pages: Vec<Box<[LastStore; PAGE]>>,
    /// Page number and index of the page looked up last.
    cached_page: (usize, usize),
    /// Addresses of the allocations that the block has stored to.
    bases: Vec<u64>,
}

impl GlobalShadow {
    pub fn new(granule_log2: u32) -> GlobalShadow {
        let granule_log2 = granule_log2.trailing_zeros();
        let cached_page = (usize::MAX, 0);
        GlobalShadow {
            granule_log2,
            page_index: HashMap::new(),
            pages: Vec::new(),
            cached_page,
            bases: Vec::new(),
        }
    }

    /// Checks that the stores so far happened before a read.
    #[inline(always)]
    pub fn read(&mut self, clock: &VectorClock, access: WarpAccess<'_>) -> LaneResult {
        if self.bases.contains(&access.base) { self.check_read(clock, access) } else { Ok(()) }
    }

    fn check_read(&mut self, clock: &VectorClock, access: WarpAccess<'_>) -> LaneResult {
        for k in lanes(access.footprint.mask) {
            for g in access.granules(k, self.granule_log2) {
                if let Some(page) = self.page(g) {
                    let store = self.pages[page][g % PAGE];
                    self.check_last_store(store, clock, access.accessor, k, g, "reads")?;
                }
            }
        }
        Ok(())
    }

    /// Records a store, after a check that the earlier ones happened before it.
    #[inline(always)]
    pub fn write(&mut self, clock: &VectorClock, access: WarpAccess<'_>) -> LaneResult {
        if !self.bases.contains(&access.base) {
            self.bases.push(access.base);
        }
        let time = clock.time();
        for k in lanes(access.footprint.mask) {
            for g in access.granules(k, self.granule_log2) {
                let page = self.page(g).unwrap_or_else(|| self.add_page(g));
                let store = self.pages[page][g % PAGE];
                // Conflicts between lanes of one store are found by another check.
                if store.pc != access.accessor.pc || store.warp as u32 != access.accessor.warp {
                    self.check_last_store(store, clock, access.accessor, k, g, "writes")?;
                }
                let (warp, lane) = (access.accessor.warp as u8, k as u8);
                self.pages[page][g % PAGE] = LastStore { time, warp, lane, pc: access.accessor.pc };
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn page(&mut self, granule: usize) -> Option<usize> {
        let page = granule / PAGE;
        if self.cached_page.0 != page {
            self.cached_page = (page, *self.page_index.get(&page)?);
        }
        Some(self.cached_page.1)
    }

    #[inline(never)]
    fn add_page(&mut self, granule: usize) -> usize {
        self.page_index.insert(granule / PAGE, self.pages.len());
        self.pages.push(Box::new([LastStore::default(); PAGE]));
        self.pages.len() - 1
    }

    #[inline(always)]
    fn check_last_store(
        &self,
        store: LastStore,
        clock: &VectorClock,
        accessor: Accessor,
        lane: usize,
        g: usize,
        does: &str,
    ) -> LaneResult {
        let same = store.warp as u32 == accessor.warp && store.lane as usize == lane;
        if same || store.time <= clock.known(accessor.warp, store.warp as u32) {
            return Ok(());
        }
        let detail = format!(
            "{} hazard: {does} {:#x}, which another thread of the block wrote, with no barrier since",
            hazard_after_write(does),
            g << self.granule_log2
        );
        Err(lane_fault(FaultKind::GlobalRace, Some(lane as u32), detail).with_related("written", store.pc))
    }
}
