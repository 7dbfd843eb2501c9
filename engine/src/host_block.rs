//! Blocks of host memory: small ones from the system's allocator, large ones side by side in chunks of huge pages.
//!
//! A processor remembers the places of a few thousand pages. Weights and activations in pages of 4 KiB overflow that
//! list, and under a hypervisor each miss walks two tables: plain reading then runs at half of memory's speed. Huge
//! pages hold 2 MiB. A matrix of a small model is less than one, so blocks share chunks.

use bytemuck::{Pod, Zeroable};
use memmap2::{Advice, MmapMut, MmapRaw, UncheckedAdvice};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes from which on a block lies in a chunk.
const LARGE: usize = 64 << 10;
/// Bytes of the address space of a chunk; larger blocks have one of their own.
const CHUNK: usize = 64 << 20;
/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a page: the alignment of blocks in a chunk, so that a freed one returns all of its memory.
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
    /// The memory's size in bytes: at least what was asked for.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

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

/// The blocks' allocator; it keeps the chunk that is being filled.
#[derive(Default)]
pub(crate) struct HostAllocator {
    chunk: Option<Arc<MmapRaw>>,
    /// Bytes of the chunk that are given away.
    used: usize,
}

impl HostAllocator {
    /// Returns the size in bytes of the block that serves a request.
    pub fn block_len(bytes: usize) -> usize {
        bytes.next_multiple_of(if bytes < LARGE { size_of::<CacheLine>() } else { PAGE })
    }

    /// Allocates a zeroed block of at least `bytes`.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub fn alloc(&mut self, bytes: usize) -> HostBlock {
        let len = Self::block_len(bytes);
        if len < LARGE {
            return HostBlock::Small(bytemuck::zeroed_vec(len / size_of::<CacheLine>()));
        }
        let range = self.range(len);
        HostBlock::Large(range.unwrap_or_else(|e| panic!("out of host memory: {bytes} bytes more: {e}")))
    }

    /// Returns a range that no block has, of the chunk in use or of a new one.
    fn range(&mut self, len: usize) -> io::Result<ChunkRange> {
        if len >= CHUNK {
            return Ok(ChunkRange { chunk: Arc::new(map_chunk(len)?), range: 0..len });
        }
        let chunk = match self.chunk.take() {
            Some(chunk) if self.used + len <= CHUNK => chunk,
            _ => {
                self.used = 0;
                Arc::new(map_chunk(CHUNK)?)
            }
        };
        let range = self.used..self.used + len;
        self.used = range.end;
        self.chunk = Some(chunk.clone());
        Ok(ChunkRange { chunk, range })
    }
}

/// Maps zeroed memory, in huge pages where the system has them.
fn map_chunk(len: usize) -> io::Result<MmapRaw> {
    let chunk = MmapMut::map_anon(len.next_multiple_of(HUGE_PAGE))?;
    // Refused by a kernel without huge pages: ordinary ones do as well.
    let _ = chunk.advise(Advice::HugePage);
    Ok(chunk.into())
}

/// Part of a chunk; dropping it returns its memory to the system, and the last one unmaps the chunk.
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

impl Drop for ChunkRange {
    fn drop(&mut self) {
        // SAFETY: nobody refers to the range any more, and no later block gets it: its content may go.
        let advised = unsafe {
            self.chunk.unchecked_advise_range(UncheckedAdvice::DontNeed, self.range.start, self.range.len())
        };
        debug_assert!(advised.is_ok(), "{advised:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::anonymous_bytes;
    use crate::memory::tests::PROCESS_MEMORY;
    use std::sync::PoisonError;

    #[test]
    fn blocks_are_zeroed_aligned_and_apart() {
        let _alone = PROCESS_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let mut allocator = HostAllocator::default();
        for bytes in [0, 1, LARGE - 1, LARGE, LARGE + 1, 3 << 20, CHUNK - PAGE, CHUNK + 1] {
            let (mut a, b) = (allocator.alloc(bytes), allocator.alloc(bytes));
            assert_eq!(a.len(), HostAllocator::block_len(bytes));
            assert!(a.len() >= bytes && a.bytes().as_ptr().addr().is_multiple_of(64));
            a.bytes_mut().fill(7);
            assert!(b.bytes().iter().all(|&x| x == 0), "{bytes}");
        }
    }

    #[test]
    fn a_freed_block_returns_its_memory_while_its_neighbour_lives() {
        let _alone = PROCESS_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        let mut allocator = HostAllocator::default();
        let mut blocks = [(); 2].map(|()| allocator.alloc(24 << 20));
        blocks.iter_mut().for_each(|block| block.bytes_mut().fill(1));
        let before = anonymous_bytes().unwrap();
        let [freed, kept] = blocks;
        drop(freed);
        assert!(anonymous_bytes().unwrap() + (20 << 20) < before);
        assert!(kept.bytes().iter().all(|&x| x == 1));
    }
}
