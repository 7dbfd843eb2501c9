//! Placement of allocations in one range of memory: the same requests in the same order get the same addresses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Alignment of every slot in bytes, the one of the driver's allocations.
const ALIGNMENT: usize = 256;

/// The bytes of a range that are in use. An allocation takes the first gap that is large enough (first fit), so the
/// same requests in the same order get the same slots.
#[derive(Clone, Default)]
pub(super) struct ArenaLayout(Arc<Mutex<Placements>>);

#[derive(Default)]
struct Placements {
    /// End of each slot in use, by its start.
    taken: BTreeMap<usize, usize>,
    /// The highest end of a slot so far.
    height: usize,
}

/// A slot of the range, released when dropped.
pub(super) struct ArenaSlot {
    layout: ArenaLayout,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl ArenaLayout {
    /// Allocates a slot of `bytes` bytes.
    pub(super) fn take(&self, bytes: usize) -> ArenaSlot {
        let size = bytes.max(1).next_multiple_of(ALIGNMENT);
        let placements = &mut *self.0.lock().unwrap();
        let mut start = 0;
        for (&next, &end) in &placements.taken {
            if start + size <= next {
                break;
            }
            start = end;
        }
        placements.taken.insert(start, start + size);
        placements.height = placements.height.max(start + size);
        ArenaSlot { layout: self.clone(), start, end: start + size }
    }

    /// Size in bytes of a range that would hold all slots so far.
    pub(super) fn height(&self) -> usize {
        self.0.lock().unwrap().height
    }

    /// True when every slot has been released.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().taken.is_empty()
    }
}

impl Drop for ArenaSlot {
    fn drop(&mut self) {
        self.layout.0.lock().unwrap().taken.remove(&self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_before_the_range_grows() {
        let layout = ArenaLayout::default();
        let [a, b, c] = [300, 100, 0].map(|bytes| layout.take(bytes));
        assert_eq!([a.start, b.start, c.start, layout.height()], [0, 512, 768, 1024]);
        drop((a, c));
        let [large, small] = [600, 512].map(|bytes| layout.take(bytes));
        assert_eq!([large.start, small.start, layout.height()], [768, 0, 1536]);
        drop((b, large));
        assert!(!layout.is_empty());
        drop(small);
        assert!(layout.is_empty());
    }
}
