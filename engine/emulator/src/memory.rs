//! Device memory: allocations and their taint, which marks uninitialised bytes.

use crate::address_space;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Minimum distance in bytes from the end of an allocation to the next one.
const GUARD_BYTES: u64 = 1 << 20;

/// An allocation. Its cells are atomic words: blocks run in parallel, and a kernel may have races.
#[derive(Debug)]
pub struct Allocation {
    pub base: u64,
    pub size: u64,
    words: Box<[AtomicU32]>,
    /// Ones in the bits of every byte that was never written.
    taint: Box<[AtomicU32]>,
    /// False once every byte is known to be initialised.
    maybe_tainted: AtomicBool,
}

fn cells(n: usize) -> Box<[AtomicU32]> {
    // All bits set: NaN in every float format, and tainted.
    (0..n).map(|_| AtomicU32::new(u32::MAX)).collect()
}

impl Allocation {
    fn new(base: u64, size: u64) -> Allocation {
        let n = (size as usize).div_ceil(4);
        let maybe_tainted = AtomicBool::new(size > 0);
        Allocation { base, size, words: cells(n), taint: cells(n), maybe_tainted }
    }

    #[inline(always)]
    pub fn words(&self) -> &[AtomicU32] {
        &self.words
    }

    #[inline(always)]
    pub fn taint(&self) -> &[AtomicU32] {
        &self.taint
    }

    /// Returns true while some byte may be uninitialised.
    #[inline(always)]
    pub fn may_be_tainted(&self) -> bool {
        self.maybe_tainted.load(Relaxed)
    }

    /// Returns true if any of `len` bytes is uninitialised.
    pub fn is_tainted(&self, at: usize, len: usize) -> bool {
        self.may_be_tainted() && self.first_tainted(at, len).is_some()
    }

    /// Clears the flag of [`Self::may_be_tainted`] if every byte is initialised.
    pub fn refresh_taint_flag(&self) {
        if self.may_be_tainted() && self.first_tainted(0, self.size as usize).is_none() {
            self.maybe_tainted.store(false, Relaxed);
        }
    }

    /// Returns the mask of the bits of word `i` that lie in bytes `from..to`.
    fn mask(i: usize, from: usize, to: usize) -> u32 {
        let low = from.saturating_sub(4 * i).min(4) as u32;
        let high = to.saturating_sub(4 * i).min(4) as u32;
        let below = |n: u32| if n == 4 { u32::MAX } else { (1 << (8 * n)) - 1 };
        below(high) & !below(low)
    }

    /// Stores the masked bits of a word and marks them as initialised.
    pub fn store_part(&self, i: usize, value: u32, mask: u32) {
        // The closure always returns a value, so the update never fails.
        let _ = self.words[i].fetch_update(Relaxed, Relaxed, |old| Some(old & !mask | value & mask));
        self.taint[i].fetch_and(!mask, Relaxed);
    }

    fn write_with_taint(
        &self,
        at: usize,
        len: usize,
        value: impl Fn(usize) -> u8,
        taint: impl Fn(usize) -> u8,
    ) {
        for i in at / 4..(at + len).div_ceil(4) {
            let mask = Allocation::mask(i, at, at + len);
            let byte = |k: usize| (4 * i + k).wrapping_sub(at);
            let word = |f: &dyn Fn(usize) -> u8| {
                u32::from_le_bytes(std::array::from_fn(
                    |k| if mask >> (8 * k) & 1 != 0 { f(byte(k)) } else { 0 },
                ))
            };
            let (new, tainted) = (word(&value), word(&taint));
            self.words[i].store(self.words[i].load(Relaxed) & !mask | new, Relaxed);
            self.taint[i].store(self.taint[i].load(Relaxed) & !mask | tainted, Relaxed);
        }
    }

    /// Writes initialised bytes, whole words at once.
    fn write(&self, at: usize, bytes: &[u8]) {
        let head = (at.next_multiple_of(4) - at).min(bytes.len());
        let (first, rest) = bytes.split_at(head);
        let words = rest.chunks_exact(4);
        let last = words.remainder();
        self.write_with_taint(at, head, |k| first[k], |_| 0);
        let cells = self.words[(at + head) / 4..].iter().zip(&self.taint[(at + head) / 4..]);
        for (chunk, (word, taint)) in words.zip(cells) {
            word.store(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]), Relaxed);
            taint.store(0, Relaxed);
        }
        self.write_with_taint(at + bytes.len() - last.len(), last.len(), |k| last[k], |_| 0);
    }

    fn read(&self, at: usize, bytes: &mut [u8]) {
        let head = (at.next_multiple_of(4) - at).min(bytes.len());
        let (first, rest) = bytes.split_at_mut(head);
        first.iter_mut().enumerate().for_each(|(k, b)| *b = Allocation::byte(&self.words, at + k));
        for (chunk, word) in rest.chunks_mut(4).zip(&self.words[(at + head) / 4..]) {
            chunk.copy_from_slice(&word.load(Relaxed).to_le_bytes()[..chunk.len()]);
        }
    }

    fn first_tainted(&self, at: usize, len: usize) -> Option<usize> {
        (at / 4..(at + len).div_ceil(4)).find_map(|i| {
            let tainted = self.taint[i].load(Relaxed) & Allocation::mask(i, at, at + len);
            (tainted != 0).then(|| 4 * i + tainted.trailing_zeros() as usize / 8)
        })
    }

    fn byte(cells: &[AtomicU32], at: usize) -> u8 {
        (cells[at / 4].load(Relaxed) >> (8 * (at % 4))) as u8
    }
}

/// The allocations at the start of a launch, in order of address.
#[derive(Clone, Debug, Default)]
pub struct AllocationSnapshot {
    pub live: Arc<Vec<Arc<Allocation>>>,
    /// Addresses and sizes of freed allocations; addresses are never reused.
    freed: Arc<Vec<(u64, u64)>>,
}

/// The target of an address.
pub enum Pointee {
    Live(usize),
    Freed(u64, u64),
    /// No allocation; the index of the nearest one below it.
    Nothing(Option<usize>),
}

impl AllocationSnapshot {
    /// Finds the allocation that `address` points into.
    pub fn find(&self, address: u64) -> Pointee {
        let after = self.live.partition_point(|a| a.base <= address);
        let before = after.checked_sub(1);
        if let Some(i) = before
            && address - self.live[i].base < self.live[i].size.max(1)
        {
            return Pointee::Live(i);
        }
        let after = self.freed.partition_point(|f| f.0 <= address);
        match after.checked_sub(1).map(|i| self.freed[i]) {
            Some((base, size)) if address - base < size => Pointee::Freed(base, size),
            _ => Pointee::Nothing(before),
        }
    }
}

#[derive(Debug)]
struct AllocationTable {
    current: AllocationSnapshot,
    next: u64,
    in_use: usize,
    peak: usize,
}

/// The memory of the device: a table of allocations behind a lock.
#[derive(Debug)]
pub struct GlobalMemory {
    table: Mutex<AllocationTable>,
}

impl GlobalMemory {
    pub fn new() -> GlobalMemory {
        let table = AllocationTable {
            current: AllocationSnapshot::default(),
            next: address_space::DEVICE,
            in_use: 0,
            peak: 0,
        };
        GlobalMemory { table: Mutex::new(table) }
    }

    fn lock(&self) -> MutexGuard<'_, AllocationTable> {
        // A panic elsewhere leaves the table as consistent as before.
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn snapshot(&self) -> AllocationSnapshot {
        self.lock().current.clone()
    }

    pub fn usage(&self) -> (usize, usize) {
        let table = self.lock();
        (table.in_use, table.peak)
    }

    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        if bytes > 1 << 40 {
            return Err(Error::call(format!("out of memory: an allocation of {bytes} bytes")));
        }
        let mut table = self.lock();
        // Aligned to 256 bytes and no more, so that a kernel that relies on more fails.
        let base = table.next + 256;
        table.next = (base + bytes as u64 + GUARD_BYTES).next_multiple_of(1024);
        Arc::make_mut(&mut table.current.live).push(Arc::new(Allocation::new(base, bytes as u64)));
        table.in_use += bytes;
        table.peak = table.peak.max(table.in_use);
        Ok(base)
    }

    pub fn free(&self, address: u64) -> Result<()> {
        let mut table = self.lock();
        let Ok(at) = table.current.live.binary_search_by_key(&address, |a| a.base) else {
            return Err(Error::call(match table.current.find(address) {
                Pointee::Freed(..) => format!("free: {address:#x} was freed before: free it once"),
                _ => format!("free: {address:#x} is not an address that alloc returned"),
            }));
        };
        let removed = Arc::make_mut(&mut table.current.live).remove(at);
        table.in_use -= removed.size as usize;
        let freed = Arc::make_mut(&mut table.current.freed);
        let index = freed.partition_point(|f| f.0 < removed.base);
        freed.insert(index, (removed.base, removed.size));
        Ok(())
    }

    /// Returns the allocation that holds all `len` bytes at `address`, and the offset in it.
    fn resolve(&self, what: &str, address: u64, len: usize) -> Result<(Arc<Allocation>, usize)> {
        let now = self.snapshot();
        match now.find(address) {
            Pointee::Live(i) => {
                let a = &now.live[i];
                let at = address - a.base;
                match at + len as u64 <= a.size {
                    true => Ok((a.clone(), at as usize)),
                    false => Err(Error::call(format!(
                        "{what}: {len} bytes at {address:#x} run past the end of the allocation {:#x} of {} bytes",
                        a.base, a.size
                    ))),
                }
            }
            Pointee::Freed(base, size) => Err(Error::call(format!(
                "{what}: {address:#x} lies in the allocation {base:#x} of {size} bytes, which was freed"
            ))),
            Pointee::Nothing(_) => Err(Error::call(format!("{what}: {address:#x} is not in any allocation"))),
        }
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let (a, at) = self.resolve("write", address, bytes.len())?;
        a.write(at, bytes);
        a.refresh_taint_flag();
        Ok(())
    }

    pub fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<()> {
        let (a, at) = self.resolve("fill", address, bytes)?;
        a.write_with_taint(at, bytes, |_| value, |_| 0);
        a.refresh_taint_flag();
        Ok(())
    }

    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let (a, at) = self.resolve("read", address, bytes.len())?;
        if a.may_be_tainted()
            && let Some(first) = a.first_tainted(at, bytes.len())
        {
            return Err(Error::call(format!(
                "read: {:#x} is uninitialised, byte {} of the {} asked for at {address:#x}",
                a.base + first as u64,
                first - at,
                bytes.len()
            )));
        }
        a.read(at, bytes);
        Ok(())
    }

    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        let (source, at) = self.resolve("copy from", from, bytes)?;
        let (target, start) = self.resolve("copy to", to, bytes)?;
        let take =
            |cells: &[AtomicU32]| (0..bytes).map(|k| Allocation::byte(cells, at + k)).collect::<Vec<_>>();
        let (values, taints) = (take(&source.words), take(&source.taint));
        target.write_with_taint(start, bytes, |k| values[k], |k| taints[k]);
        if source.may_be_tainted() {
            target.maybe_tainted.store(true, Relaxed);
        }
        target.refresh_taint_flag();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_and_come_out() {
        let m = GlobalMemory::new();
        let a = m.alloc(11).unwrap();
        assert_eq!(a % 256, 0);
        assert!(m.read(a, &mut [0; 1]).unwrap_err().to_string().contains("uninitialised"));
        m.write(a + 1, &[1, 2, 3, 4, 5, 6, 7]).unwrap();
        let mut back = [0; 7];
        m.read(a + 1, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4, 5, 6, 7]);
        let error = m.read(a + 1, &mut [0; 9]).unwrap_err().to_string();
        assert!(error.contains(&format!("{:#x}", a + 8)), "{error}");
        assert!(m.write(a + 8, &[0; 4]).is_err());
    }

    #[test]
    fn any_range_of_bytes_is_written_and_read_whole() {
        let m = GlobalMemory::new();
        let a = m.alloc(23).unwrap();
        for start in 0..8 {
            for len in 0..15 {
                m.fill(a, 0xee, 23).unwrap();
                let bytes: Vec<u8> = (1..=len as u8).collect();
                m.write(a + start as u64, &bytes).unwrap();
                let mut all = vec![0; 23];
                m.read(a, &mut all).unwrap();
                let mut want = vec![0xee; 23];
                want[start..start + len].copy_from_slice(&bytes);
                assert_eq!(all, want);
                let mut part = vec![0; len];
                m.read(a + start as u64, &mut part).unwrap();
                assert_eq!(part, bytes);
            }
        }
    }

    #[test]
    fn copies_carry_what_is_missing() {
        let m = GlobalMemory::new();
        let (a, b) = (m.alloc(16).unwrap(), m.alloc(16).unwrap());
        m.fill(a, 7, 6).unwrap();
        m.fill(b, 9, 16).unwrap();
        m.copy(b + 1, a, 8).unwrap();
        let mut head = [0; 7];
        m.read(b, &mut head).unwrap();
        assert_eq!(head, [9, 7, 7, 7, 7, 7, 7]);
        assert!(m.read(b + 7, &mut [0; 1]).is_err());
        m.read(b + 9, &mut [0; 7]).unwrap();
    }

    #[test]
    fn freed_memory_is_known_as_such() {
        let m = GlobalMemory::new();
        let a = m.alloc(64).unwrap();
        assert_eq!(m.usage(), (64, 64));
        m.free(a).unwrap();
        assert_eq!(m.usage(), (0, 64));
        assert!(m.write(a, &[0]).unwrap_err().to_string().contains("freed"));
        assert!(m.free(a).unwrap_err().to_string().contains("freed before"));
        assert!(m.alloc(64).unwrap() > a);
    }
}
