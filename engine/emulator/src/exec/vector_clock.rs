//! The happens-before order of a block's accesses, as a vector clock.
//!
//! Time is a counter that every barrier advances. Each warp keeps, for every warp, the time up to which that warp's
//! accesses happened before its own next one. Its own lanes are included: they are free to diverge, and only
//! `__syncwarp` or a barrier orders what one lane stores and another reads.

use super::warp::lanes;

/// The vector clock of a block's warps.
pub struct VectorClock {
    time: u32,
    /// `known[w][v]`: time up to which warp v's accesses happened before warp w's next one; for v = w, those of other
    /// lanes of the same warp.
    known: Vec<[u32; 32]>,
    /// Minimum of each warp's row: accesses up to this time happened before its next one, whichever warp made them.
    floor: Vec<u32>,
    /// Barrier, warp and row of each `bar.arrive` whose barrier is not complete.
    arrived: Vec<(u32, u32, [u32; 32])>,
}

impl VectorClock {
    pub fn new(warps: u32) -> VectorClock {
        // Absent warps must not lower the floor.
        let known = std::array::from_fn(|v| if v < warps as usize { 0 } else { u32::MAX });
        let warps = warps as usize;
        VectorClock { time: 1, known: vec![known; warps], floor: vec![0; warps], arrived: Vec::new() }
    }

    #[inline(always)]
    pub fn time(&self) -> u32 {
        self.time
    }

    /// Returns the time up to which accesses of warp `other` happened before the next one of any lane of `warp`.
    #[inline(always)]
    pub fn known(&self, warp: u32, other: u32) -> u32 {
        self.known[warp as usize][other as usize]
    }

    /// Returns the time up to which all warps' accesses happened before the next one of any lane of `warp`.
    #[inline(always)]
    pub fn floor(&self, warp: u32) -> u32 {
        self.floor[warp as usize]
    }

    /// Advances time: later accesses have a later time than all so far.
    pub fn advance(&mut self) {
        self.time += 1;
    }

    /// Executes `bar.warp.sync`: orders the accesses of a warp's lanes.
    pub fn warp_sync(&mut self, warp: u32) {
        self.known[warp as usize][warp as usize] = self.time;
        self.update_floor(warp);
        self.time += 1;
    }

    /// Executes `bar.arrive`: the accesses of the warp so far happen before those after the wait at barrier `id`.
    pub fn arrive(&mut self, id: u32, warp: u32) {
        let mut row = self.known[warp as usize];
        row[warp as usize] = self.time;
        self.arrived.push((id, warp, row));
        self.time += 1;
    }

    /// Completes a barrier: the accesses of all arrived warps happen before the next accesses of the waiting ones.
    pub fn complete_barrier(&mut self, id: u32, waiting: u32) {
        let mut joint = [0; 32];
        let mut join = |row: &[u32; 32]| joint.iter_mut().zip(row).for_each(|(j, &c)| *j = c.max(*j));
        for w in lanes(waiting) {
            join(&self.known[w]);
        }
        self.arrived.iter().filter(|a| a.0 == id).for_each(|a| join(&a.2));
        self.arrived.retain(|a| a.0 != id);
        for w in lanes(waiting) {
            joint[w] = self.time;
        }
        for w in lanes(waiting) {
            self.known[w] = joint;
            self.update_floor(w as u32);
        }
        self.time += 1;
    }

    fn update_floor(&mut self, warp: u32) {
        self.floor[warp as usize] = self.known[warp as usize].iter().copied().min().unwrap_or(0);
    }
}
