//! Host memory of tensors: blocks of a heap of huge pages, and small ones from the system's allocator.
//!
//! A processor remembers the places of a few thousand pages. Weights and activations in pages of 4 KiB overflow that
//! list, and under a hypervisor each miss walks two tables: plain reading then runs at half of memory's speed. Huge
//! pages hold 2 MiB. A matrix of a small model is less than one, so blocks share chunks.
//!
//! A step frees what it allocated, in other sizes and another order. Freed ranges keep their memory for the next blocks, as
//! far as the plan allows; neighbours become one, and a block takes the smallest that holds it.

use bytemuck::{Pod, Zeroable};
use memmap2::{Advice, MmapMut, MmapRaw, UncheckedAdvice};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of the address space of a chunk; larger blocks have one of their own.
const CHUNK: usize = 64 << 20;
/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a page: the least that a block of the heap has, and its alignment.
const PAGE: usize = 4 << 10;

/// One cache line: the alignment of small blocks.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct CacheLine([u8; 64]);

/// Memory of one tensor, aligned to cache lines.
pub(crate) enum HostBlock {
    Small(Vec<CacheLine>),
    Large(ChunkRange),
}

impl HostBlock {
    pub fn bytes(&self) -> &[u8] {
        match self {
            HostBlock::Small(lines) => bytemuck::cast_slice(lines),
            HostBlock::Large(range) => range.bytes(),
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            HostBlock::Small(lines) => bytemuck::cast_slice_mut(lines),
            HostBlock::Large(range) => range.bytes_mut(),
        }
    }
}

/// The allocator of blocks.
#[derive(Default)]
pub(crate) struct HostHeap {
    /// Chunks by the address of their first byte.
    chunks: BTreeMap<usize, Arc<MmapRaw>>,
    /// Free ranges by address. Neighbours of one kind in one chunk are one range.
    free: BTreeMap<usize, FreeRange>,
    /// Bytes of free ranges that hold memory.
    kept: usize,
}

#[derive(Clone, Copy)]
struct FreeRange {
    len: usize,
    /// False where the system gives zeroed memory at the first touch.
    holds_memory: bool,
}

impl HostHeap {
    /// The bytes of memory that free ranges hold.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Allocates a block of at least `bytes`, of arbitrary content. Free ranges hold at most `most_kept` bytes of memory
    /// afterwards: the rest is returned to the system.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub fn alloc(&mut self, bytes: usize, most_kept: usize) -> HostBlock {
        let block = match bytes < PAGE {
            true => HostBlock::Small(bytemuck::zeroed_vec(bytes.div_ceil(size_of::<CacheLine>()))),
            false => HostBlock::Large(
                self.place(bytes.next_multiple_of(PAGE))
                    .unwrap_or_else(|e| panic!("out of host memory: {bytes} bytes more: {e}")),
            ),
        };
        self.give_back(most_kept);
        block
    }

    /// Takes `len` bytes, a multiple of a page, out of the free ranges.
    fn place(&mut self, len: usize) -> io::Result<ChunkRange> {
        let first = match self.kept_range(len).or_else(|| self.free_span(len)) {
            Some(first) => first,
            None => self.grow(len)?,
        };
        self.take(first..first + len);
        let (start, chunk) = self.chunks.range(..=first).next_back().expect("a place is in a chunk");
        Ok(ChunkRange { chunk: chunk.clone(), range: first - start..first - start + len })
    }

    /// Takes a block back.
    pub fn free(&mut self, block: HostBlock) {
        if let HostBlock::Large(block) = block {
            let first = block.chunk.as_ptr().addr() + block.range.start;
            self.insert(first..first + block.range.len(), true);
        }
    }

    /// Returns the start of the smallest free range of `len` bytes that holds memory.
    fn kept_range(&self, len: usize) -> Option<usize> {
        let fitting = self.free.iter().filter(|(_, range)| range.holds_memory && range.len >= len);
        fitting.min_by_key(|(_, range)| range.len).map(|(&first, _)| first)
    }

    /// Returns the start of `len` free bytes, of which as many as possible hold memory.
    fn free_span(&self, len: usize) -> Option<usize> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (&first, range) in &self.free {
            match spans.last_mut() {
                Some(span) if span.end == first && !self.chunks.contains_key(&first) => span.end += range.len,
                _ => spans.push(first..first + range.len),
            }
        }
        let places =
            spans.iter().filter(|span| span.len() >= len).flat_map(|span| [span.start, span.end - len]);
        places.rev().max_by_key(|&place| self.memory_in(place..place + len))
    }

    /// Returns how many bytes of a range of free ones hold memory.
    fn memory_in(&self, range: Range<usize>) -> usize {
        let overlap = |(&first, free): (&usize, &FreeRange)| {
            range.end.min(first + free.len).saturating_sub(range.start.max(first))
        };
        self.free.range(..range.end).filter(|(_, free)| free.holds_memory).map(overlap).sum()
    }

    /// Maps a chunk that holds a block, and returns its start.
    fn grow(&mut self, len: usize) -> io::Result<usize> {
        let chunk = map_chunk(len.next_multiple_of(CHUNK))?;
        let first = chunk.as_ptr().addr();
        let range = first..first + chunk.len();
        self.chunks.insert(first, Arc::new(chunk));
        self.insert(range, false);
        Ok(first)
    }

    /// Removes a range from the free ones, which hold it.
    fn take(&mut self, range: Range<usize>) {
        let overlapping =
            |(&first, free): (&usize, &FreeRange)| (first + free.len > range.start).then_some((first, *free));
        let taken: Vec<_> = self.free.range(..range.end).rev().map_while(overlapping).collect();
        for (first, free) in taken {
            self.free.remove(&first);
            let rest = [first..range.start, range.end..first + free.len];
            for rest in rest.iter().filter(|rest| !rest.is_empty()) {
                self.free.insert(rest.start, FreeRange { len: rest.len(), ..free });
            }
            let left: usize = rest.iter().map(Range::len).sum();
            self.kept -= if free.holds_memory { free.len - left } else { 0 };
        }
    }

    /// Adds a range to the free ones.
    fn insert(&mut self, mut range: Range<usize>, holds_memory: bool) {
        self.kept += if holds_memory { range.len() } else { 0 };
        let alike = |free: &FreeRange| free.holds_memory == holds_memory;
        if let Some(free) = self.free.get(&range.end).copied().filter(alike)
            && !self.chunks.contains_key(&range.end)
        {
            self.free.remove(&range.end);
            range.end += free.len;
        }
        if let Some((&first, free)) = self.free.range(..range.start).next_back()
            && alike(free)
            && first + free.len == range.start
            && !self.chunks.contains_key(&range.start)
        {
            range.start = first;
        }
        self.free.insert(range.start, FreeRange { len: range.len(), holds_memory });
    }

    /// Returns memory of free ranges to the system until they hold at most `most_kept` bytes. A chunk that is all free and
    /// holds none is unmapped.
    fn give_back(&mut self, most_kept: usize) {
        while self.kept > most_kept {
            let range = self.least_useful(self.kept - most_kept);
            let (&start, chunk) = self.chunks.range(..=range.start).next_back().expect("it is in a chunk");
            // SAFETY: nobody refers to the range: it is free.
            let advised = unsafe {
                chunk.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start - start, range.len())
            };
            debug_assert!(advised.is_ok(), "{advised:?}");
            let chunk_len = chunk.len();
            self.take(range.clone());
            self.insert(range, false);
            if self.free.get(&start).is_some_and(|free| !free.holds_memory && free.len == chunk_len) {
                self.free.remove(&start);
                self.chunks.remove(&start);
            }
        }
    }

    /// Returns part of a free range that holds memory: whole huge pages, of about `excess` bytes, since cutting one makes
    /// small pages of it; the smallest range where there is none.
    fn least_useful(&self, excess: usize) -> Range<usize> {
        let kept =
            || self.free.iter().filter(|(_, free)| free.holds_memory).map(|(&at, free)| at..at + free.len);
        let huge = |range: Range<usize>| {
            let (start, end) = (range.start.next_multiple_of(HUGE_PAGE), range.end / HUGE_PAGE * HUGE_PAGE);
            (start < end).then(|| start.max(end.saturating_sub(excess.next_multiple_of(HUGE_PAGE)))..end)
        };
        let pages = kept().filter_map(huge).min_by_key(Range::len);
        pages.or_else(|| kept().min_by_key(Range::len)).expect("some range holds memory")
    }
}

/// Maps zeroed memory, in huge pages where the system has them.
fn map_chunk(len: usize) -> io::Result<MmapRaw> {
    let chunk = MmapMut::map_anon(len)?;
    // Refused by a kernel without huge pages: ordinary ones do as well.
    let _ = chunk.advise(Advice::HugePage);
    Ok(chunk.into())
}

/// Part of a chunk; the last one unmaps it, if the heap does not hold it either.
pub(crate) struct ChunkRange {
    chunk: Arc<MmapRaw>,
    range: Range<usize>,
}

impl ChunkRange {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies inside of the mapping, which lives as long as `self`; its bytes are initialised (zeroed
        // by the system), and belong to this block alone.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.range.start), self.range.len()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow of `self` is unique, and so is that of the range.
        unsafe {
            std::slice::from_raw_parts_mut(self.chunk.as_mut_ptr().add(self.range.start), self.range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::anonymous_bytes;
    use crate::memory::tests::PROCESS_MEMORY;
    use crate::rng::RngKey;
    use std::sync::PoisonError;

    #[test]
    fn blocks_are_aligned_and_apart_whatever_is_freed_between() {
        let _alone = PROCESS_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut heap, key) = (HostHeap::default(), RngKey { seed: 1, step: 0, site: 0 });
        let mut blocks: Vec<(HostBlock, u8)> = Vec::new();
        for step in 0..2_000 {
            let [choice, freed, size, most_kept] = key.words(step, 0).map(|word| word as usize);
            if blocks.len() > 12 || (!blocks.is_empty() && choice % 5 < 2) {
                let (block, mark) = blocks.swap_remove(freed % blocks.len());
                assert!(block.bytes().iter().all(|&x| x == mark), "step {step}");
                heap.free(block);
            }
            let bytes = [0, 1, PAGE - 1, PAGE, 70_000, HUGE_PAGE + 1, 3 * HUGE_PAGE][size % 7];
            let most_kept = most_kept % (4 * HUGE_PAGE);
            let (mut block, mark) = (heap.alloc(bytes, most_kept), step as u8);
            assert!(block.bytes().len() >= bytes && block.bytes().as_ptr().addr().is_multiple_of(64));
            assert!(heap.kept() <= most_kept);
            block.bytes_mut().fill(mark);
            blocks.push((block, mark));
        }
        let large = |block: &HostBlock| matches!(block, HostBlock::Large(_)).then(|| block.bytes().len());
        let used: usize = blocks.iter().filter_map(|(block, _)| large(block)).sum();
        let free: usize = heap.free.values().map(|free| free.len).sum();
        assert_eq!(used + free, heap.chunks.values().map(|chunk| chunk.len()).sum::<usize>());
    }

    #[test]
    fn a_block_takes_the_smallest_range_that_holds_memory_and_neighbours_become_one() {
        let mut heap = HostHeap::default();
        let address = |block: &HostBlock| block.bytes().as_ptr().addr();
        let sizes = [5, 1, 3, 1].map(|pages| pages * PAGE);
        let [large, kept, small, last] = sizes.map(|bytes| heap.alloc(bytes, 0));
        let places = [&large, &small].map(address);
        heap.free(large);
        heap.free(small);
        let again = heap.alloc(2 * PAGE, CHUNK);
        assert_eq!(address(&again), places[1]);
        heap.free(again);
        heap.free(kept);
        // All that is before the last block.
        let joined = heap.alloc(9 * PAGE, CHUNK);
        assert_eq!((address(&joined), heap.kept()), (places[0], 0));
        assert_eq!(address(&last), places[0] + 9 * PAGE);
    }

    #[test]
    fn memory_that_is_not_kept_is_returned() {
        let _alone = PROCESS_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heap = HostHeap::default();
        let mut blocks = [(); 2].map(|()| heap.alloc(24 << 20, 0));
        blocks.iter_mut().for_each(|block| block.bytes_mut().fill(1));
        let before = anonymous_bytes().unwrap();
        let [freed, kept] = blocks;
        heap.free(freed);
        assert!(anonymous_bytes().unwrap() + (4 << 20) > before);
        let other = heap.alloc(PAGE, 0);
        assert!(anonymous_bytes().unwrap() + (20 << 20) < before);
        assert!(kept.bytes().iter().all(|&x| x == 1));
        heap.free(kept);
        heap.free(other);
        heap.give_back(0);
        assert!(heap.chunks.is_empty() && heap.free.is_empty());
    }
}
