//! What a thread may rely on: which accesses of the block's other threads lie in its past.
//!
//! Time is a counter that every barrier advances. Each warp knows, for every warp, up to which time that warp's
//! accesses happened before its own next one: a vector clock. Its own lanes are no exception: they are free to
//! diverge, and only `__syncwarp` or a barrier orders what one stores and another reads.

use super::warp::lanes;

/// The vector clock of a block's warps.
pub struct Clock {
    time: u32,
    /// `known[w][v]`: up to when warp v's accesses lie in warp w's past; for v = w, up to when its lanes know
    /// of each other's.
    known: Vec<[u32; 32]>,
    /// The least of each warp's row: what is not later lies in its past whoever did it.
    floor: Vec<u32>,
    /// Rows of warps that arrived at a barrier without waiting there.
    arrived: Vec<(u32, u32, [u32; 32])>,
}

impl Clock {
    pub fn new(warps: u32) -> Clock {
        // Warps that do not exist never hold anybody back.
        let known = std::array::from_fn(|v| if v < warps as usize { 0 } else { u32::MAX });
        let warps = warps as usize;
        Clock { time: 1, known: vec![known; warps], floor: vec![0; warps], arrived: Vec::new() }
    }

    #[inline(always)]
    pub fn time(&self) -> u32 {
        self.time
    }

    /// Up to when accesses of warp `other` lie in the past of all lanes of `warp`.
    #[inline(always)]
    pub fn known(&self, warp: u32, other: u32) -> u32 {
        self.known[warp as usize][other as usize]
    }

    /// Up to when everybody's accesses do.
    #[inline(always)]
    pub fn floor(&self, warp: u32) -> u32 {
        self.floor[warp as usize]
    }

    /// Makes everything so far earlier than what comes.
    pub fn advance(&mut self) {
        self.time += 1;
    }

    /// `bar.warp.sync`: the lanes of a warp learn of each other's accesses.
    pub fn warp_sync(&mut self, warp: u32) {
        self.known[warp as usize][warp as usize] = self.time;
        self.settle(warp);
        self.time += 1;
    }

    /// `bar.arrive`: what the warp has done so far will be known to those who wait at barrier `id`.
    pub fn arrive(&mut self, id: u32, warp: u32) {
        let mut row = self.known[warp as usize];
        row[warp as usize] = self.time;
        self.arrived.push((id, warp, row));
        self.time += 1;
    }

    /// A barrier is complete: those who waited know of all who came.
    pub fn barrier(&mut self, id: u32, waiting: u32) {
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
            self.settle(w as u32);
        }
        self.time += 1;
    }

    fn settle(&mut self, warp: u32) {
        self.floor[warp as usize] = self.known[warp as usize].iter().copied().min().unwrap_or(0);
    }
}
