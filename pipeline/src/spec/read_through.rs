//! A file that is hashed while somebody else reads it, so that it is read from the disk once for both.

use crate::spec::stage::Digest;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes hashed at once of what nobody read.
const CHUNK: usize = 1 << 20;

/// A file under the eyes of a reader.
#[derive(Debug)]
pub struct ReadThrough {
    file: File,
    hashed: Mutex<blake3::Hasher>,
    /// How many bytes from the first one on are hashed.
    bytes: AtomicU64,
    stopped: AtomicBool,
}

impl ReadThrough {
    /// The file at `path`, of which nothing is hashed yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            hashed: Mutex::default(),
            bytes: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        })
    }

    /// Bytes of the file.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Bytes hashed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lets the next read fail.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Reads at `position`. What is hashed follows: a reader that goes back costs nothing, one that passes over bytes has them read for
    /// the hash.
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = read_at(&self.file, buffer, position)?;
        let mut hasher = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        self.hash_to(&mut hasher, position)?;
        let known = self.bytes().saturating_sub(position);
        if let Some(new) = usize::try_from(known).ok().and_then(|known| buffer.get(known..read)) {
            hasher.update(new);
            self.bytes.fetch_add(new.len() as u64, Ordering::Relaxed);
        }
        Ok(read)
    }

    /// The digest of the whole file.
    pub fn finish(&self) -> io::Result<Digest> {
        let mut hasher = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        self.hash_to(&mut hasher, u64::MAX)?;
        Ok(hasher.finalize())
    }

    /// Hashes what is left of the file before `end`.
    fn hash_to(&self, hasher: &mut blake3::Hasher, end: u64) -> io::Result<()> {
        let mut chunk = Vec::new();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            let left = usize::try_from(end.saturating_sub(self.bytes())).unwrap_or(CHUNK).min(CHUNK);
            if left == 0 {
                return Ok(());
            }
            chunk.resize(left, 0);
            let read = read_at(&self.file, &mut chunk, self.bytes())?;
            if read == 0 {
                return Ok(());
            }
            hasher.update(&chunk[..read]);
            self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, position)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_files_however_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let orders: [&[(u64, usize)]; 5] = [
            &[],
            &[(0, 1000), (1000, 3_000_000), (3_001_000, 9_000_000)],
            &[(4_000_000, 10), (0, 100), (4_000_005, 100)],
            &[(0, 100), (50, 100), (20, 10), (150, 0), (9_000_000, 5)],
            &[(4_999_999, 5)],
        ];
        for order in orders {
            let through = ReadThrough::open(&path).unwrap();
            for (position, length) in order {
                let mut buffer = vec![0; *length];
                let read = through.read_at(&mut buffer, *position).unwrap();
                let start = (*position as usize).min(bytes.len());
                assert_eq!(buffer[..read], bytes[start..start + read], "{order:?}");
            }
            assert_eq!(through.finish().unwrap(), blake3::hash(&bytes), "{order:?}");
            assert_eq!(through.bytes(), bytes.len() as u64);
        }
        let through = ReadThrough::open(&path).unwrap();
        through.stop();
        assert!(through.read_at(&mut [0; 10], 100).is_err() && through.finish().is_err());
    }
}
