//! Places in one range of memory, handed out and taken back in the same way every time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What every place begins at a multiple of: as the driver's allocations do.
const ALIGNMENT: usize = 256;

/// Which bytes of a range are taken. A place is the first gap that is large enough: the same requests in the same
/// order are given the same places.
#[derive(Clone, Default)]
pub(super) struct Space(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    /// By their start, their end.
    taken: BTreeMap<usize, usize>,
    /// The highest end so far.
    height: usize,
}

/// A place, given back when dropped.
pub(super) struct Seat {
    space: Space,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Space {
    /// A place of `bytes` bytes.
    pub(super) fn take(&self, bytes: usize) -> Seat {
        let size = bytes.max(1).next_multiple_of(ALIGNMENT);
        let places = &mut *self.0.lock().unwrap();
        let mut start = 0;
        for (&next, &end) in &places.taken {
            if start + size <= next {
                break;
            }
            start = end;
        }
        places.taken.insert(start, start + size);
        places.height = places.height.max(start + size);
        Seat { space: self.clone(), start, end: start + size }
    }

    /// Bytes that everything so far has taken at once.
    pub(super) fn height(&self) -> usize {
        self.0.lock().unwrap().height
    }

    /// Whether every place has been given back.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().taken.is_empty()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.space.0.lock().unwrap().taken.remove(&self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_before_the_range_grows() {
        let space = Space::default();
        let [a, b, c] = [300, 100, 0].map(|bytes| space.take(bytes));
        assert_eq!([a.start, b.start, c.start, space.height()], [0, 512, 768, 1024]);
        drop((a, c));
        let [large, small] = [600, 512].map(|bytes| space.take(bytes));
        assert_eq!([large.start, small.start, space.height()], [768, 0, 1536]);
        drop((b, large));
        assert!(!space.is_empty());
        drop(small);
        assert!(space.is_empty());
    }
}
