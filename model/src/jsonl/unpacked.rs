//! Text unpacked from gzip, within a multiple of the packed bytes: a small file cannot fill the memory.

use flate2::read::MultiGzDecoder;
use std::io::{self, Read};

/// Unpacked bytes that any file may have.
const FREE: u64 = 64 << 20;
/// Unpacked bytes that a larger one may have for each packed byte. Rows and programs unpack to 3 to 30; gzip's most is 1032.
const RATIO: u64 = 200;

/// Reads what gzip packed.
pub(super) struct Unpacked<R> {
    decoder: MultiGzDecoder<Counted<R>>,
    unpacked: u64,
}

impl<R: Read> Unpacked<R> {
    pub(super) fn new(packed: R) -> Self {
        Unpacked { decoder: MultiGzDecoder::new(Counted { reader: packed, bytes: 0 }), unpacked: 0 }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.unpacked += read as u64;
        if self.unpacked > FREE && self.unpacked > RATIO.saturating_mul(self.decoder.get_ref().bytes) {
            let message = format!(
                "unpacks to more than {} MiB and {RATIO} times its size; if that is meant, unpack it first",
                FREE >> 20
            );
            return Err(io::Error::other(message));
        }
        Ok(read)
    }
}

/// A reader and the number of bytes read from it.
struct Counted<R> {
    reader: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    /// Packs `size` bytes of a repeated text, and unpacks them again.
    fn unpack(text: &[u8], size: usize) -> io::Result<u64> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        for _ in 0..size / text.len() {
            packed.write_all(text)?;
        }
        io::copy(&mut Unpacked::new(&packed.finish()?[..]), &mut io::sink())
    }

    #[test]
    fn a_file_made_to_fill_the_memory_is_refused() {
        let size = FREE as usize + (1 << 20);
        let message = unpack(&[b' '; 1 << 10], size).unwrap_err().to_string();
        assert!(message.contains("64 MiB and 200 times"), "{message}");
        // What is small, and what is not packed beyond measure, is read.
        assert_eq!(unpack(&[b' '; 1 << 10], 1 << 20).unwrap(), 1 << 20);
        let varied: Vec<u8> = (0..1u32 << 16).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
        assert_eq!(unpack(&varied, size).unwrap(), size as u64);
    }
}
