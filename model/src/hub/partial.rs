//! A file that is arriving: `blobs/ETAG.incomplete`, where `huggingface_hub` keeps it too.

use super::digest::{Digest, Hasher};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// The file, and the digest of the bytes that are in it: the two always agree.
pub struct Partial {
    file: File,
    length: u64,
    start: Option<Hasher>,
    hasher: Option<Hasher>,
}

impl Partial {
    /// Opens `path`, or makes it. What is in it of a former download is kept, unless it is more than `size` bytes.
    pub fn open(path: &Path, size: u64, digest: Option<&Digest>) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let start = digest.map(|digest| digest.hasher(size));
        let mut partial = Self { length: 0, hasher: start.clone(), start, file: file.try_clone()? };
        if file.metadata()?.len() > size {
            partial.clear()?;
        }
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(partial);
            }
            partial.count(&piece[..read]);
        }
    }

    /// Bytes that have arrived.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Adds bytes at the end.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.count(bytes);
        Ok(())
    }

    /// Forgets everything that has arrived.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.length = 0;
        self.hasher = self.start.clone();
        Ok(())
    }

    /// Brings everything to the disk; the digest, where one is known.
    pub fn finish(&mut self) -> io::Result<Option<String>> {
        self.file.sync_all()?;
        Ok(self.hasher.clone().map(Hasher::finish))
    }

    fn count(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_interrupted_file_gives_the_digest_of_an_uninterrupted_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        let digest = Digest::of_etag("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        Partial::open(&path, 6, Some(&digest)).unwrap().write(b"hel").unwrap();
        let mut again = Partial::open(&path, 6, Some(&digest)).unwrap();
        assert_eq!(again.len(), 3);
        again.write(b"lo\n").unwrap();
        assert_eq!(again.finish().unwrap().unwrap(), digest.hex());
        assert_eq!(fs::read(&path).unwrap(), b"hello\n");
    }

    #[test]
    fn what_is_longer_than_the_file_is_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        fs::write(&path, "much too long").unwrap();
        let mut partial = Partial::open(&path, 6, None).unwrap();
        assert_eq!(partial.len(), 0);
        partial.write(b"hello\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hello\n");
    }
}
