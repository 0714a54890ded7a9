//! Large files past the page cache.
//!
//! Pixels are written once and read much later. Through the page cache they cost 170 µs of system time an image of 150 KB (bare writes of 600 MB in C),
//! most of it for the first touch of each page; written from aligned memory, under 20. What is small is read again at once and stays in the cache: only what follows
//! the first [`CACHED`] bytes of a file goes past it. Where the system or the file system cannot do that, all of it goes through the cache.

use memmap2::MmapMut;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::Range;

/// Bytes that stay in the page cache; a multiple of any alignment that is asked for.
const CACHED: u64 = 16 << 20;

/// Bytes written at once: a huge page, where there are some.
const BLOCK: usize = 2 << 20;

/// Bytes after which the system is asked to send what was written through the cache to the disk.
const SEND_EVERY: u64 = 8 << 20;

/// A new file that is written from its start to its end. [`DirectFile::finish`] writes the last bytes.
pub struct DirectFile {
    file: File,
    /// Bytes that went through the page cache.
    cached: u64,
    sent: u64,
    /// What comes next, once the file goes past the cache.
    block: Option<Block>,
}

/// Aligned memory that is being filled.
struct Block {
    memory: MmapMut,
    filled: usize,
}

impl DirectFile {
    pub fn new(file: File) -> Self {
        Self { file, cached: 0, sent: 0, block: None }
    }

    /// Writes what is left. The file is not yet durable.
    pub fn finish(mut self) -> io::Result<File> {
        if let Some(block) = self.block.take() {
            set_direct(&self.file, false)?;
            self.file.write_all(&block.memory[..block.filled])?;
        }
        Ok(self.file)
    }

    fn write_cached(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = CACHED.checked_sub(self.cached).filter(|left| *left > 0);
        let length =
            left.map_or(bytes.len(), |left| bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        let written = self.file.write(&bytes[..length])?;
        self.cached += written as u64;
        if self.cached - self.sent >= SEND_EVERY {
            send(&self.file, self.sent..self.cached);
            self.sent = self.cached;
        }
        if self.cached == CACHED {
            self.block = begin(&self.file);
        }
        Ok(written)
    }

    /// Writes a full block. A file system may refuse only now: then the cache has to do.
    fn write_block(&mut self) -> io::Result<()> {
        let Some(mut block) = self.block.take() else { return Ok(()) };
        let mut rest = &block.memory[..];
        let mut direct = true;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == ErrorKind::InvalidInput && direct => {
                    set_direct(&self.file, false)?;
                    direct = false;
                }
                Err(cause) => return Err(cause),
            }
        }
        if direct {
            block.filled = 0;
            self.block = Some(block);
        } else {
            self.cached += BLOCK as u64;
        }
        Ok(())
    }
}

impl Write for DirectFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(block) = &mut self.block else { return self.write_cached(bytes) };
        let length = bytes.len().min(BLOCK - block.filled);
        block.memory[block.filled..][..length].copy_from_slice(&bytes[..length]);
        block.filled += length;
        if block.filled == BLOCK {
            self.write_block()?;
        }
        Ok(length)
    }

    /// Nothing is gained by writing part of a block.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets what is written from here on go past the cache; `None` where that cannot be.
fn begin(file: &File) -> Option<Block> {
    let memory = MmapMut::map_anon(BLOCK).ok()?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    set_direct(file, true).ok()?;
    Some(Block { memory, filled: 0 })
}

#[cfg(target_os = "linux")]
fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(rustix::fs::OFlags::DIRECT, direct);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn set_direct(_file: &File, _direct: bool) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Lets the system begin to write these bytes to the disk: what waits for the end would hold up the whole run there. Only a hint;
/// they stay readable from memory.
fn send(file: &File, bytes: Range<u64>) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(
        file,
        bytes.start,
        std::num::NonZeroU64::new(bytes.end - bytes.start),
        rustix::fs::Advice::DontNeed,
    );
    #[cfg(not(target_os = "linux"))]
    let _ = (file, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes pieces of odd lengths behind what is in the file already; what was written.
    fn write(file: File, length: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..length as u32).map(|n| (n.wrapping_mul(n ^ 0x9E37) >> 7) as u8).collect();
        let mut direct = DirectFile::new(file);
        for (n, piece) in bytes.chunks(1_000_003).enumerate() {
            let (one, other) = piece.split_at(piece.len().min(n * 7));
            direct.write_all(one).unwrap();
            direct.write_all(other).unwrap();
        }
        direct.finish().unwrap();
        bytes
    }

    #[test]
    fn a_file_of_any_length_holds_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let cached = CACHED as usize;
        for length in [0, 5, cached, cached + 1, cached + BLOCK, cached + 2 * BLOCK + 4097] {
            let bytes = write(File::create(&path).unwrap(), length);
            assert!(std::fs::read(&path).unwrap() == bytes, "{length} bytes");
        }
    }

    #[test]
    fn where_blocks_are_refused_the_cache_has_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = File::create(&path).unwrap();
        // No block will be aligned.
        file.write_all(b"x").unwrap();
        let bytes = write(file, CACHED as usize + 3 * BLOCK + 5);
        assert!(std::fs::read(&path).unwrap()[1..] == bytes);
    }
}
