//! A stretch of a file that can be read and sought from many threads at once: every clone has a position of its own. The file is
//! one of this machine, or an object in a bucket.

use bytes::Bytes;
use llavm_pipeline::stage::ReadThrough;
use llavm_pipeline::storage::remote::{RemoteFile, is_remote};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// Bytes from which on a range of an object is fetched by itself; shorter ones lie in blocks that serve their neighbours too.
const LONG: usize = 1 << 20;

/// Where the bytes are.
#[derive(Clone, Debug)]
enum Origin {
    Local(Arc<File>),
    /// One that is hashed while it is read.
    Through(Arc<ReadThrough>),
    Remote(Arc<RemoteFile>),
}

/// Bytes `start..end` of a file, seen as a file of their own.
#[derive(Clone, Debug)]
pub struct Section {
    file: Origin,
    start: u64,
    end: u64,
    position: u64,
}

impl Section {
    /// The whole file.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !is_remote(path) {
            return Self::of(Arc::new(File::open(path)?));
        }
        let file = RemoteFile::open(path).map_err(io::Error::other)?;
        Ok(Self { start: 0, end: file.size(), position: 0, file: Origin::Remote(file) })
    }

    /// The whole of an open file.
    pub fn of(file: Arc<File>) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self { file: Origin::Local(file), start: 0, end, position: 0 })
    }

    /// The whole of a file that is hashed meanwhile.
    pub fn through(file: &Arc<ReadThrough>) -> io::Result<Self> {
        Ok(Self { start: 0, end: file.size()?, position: 0, file: Origin::Through(Arc::clone(file)) })
    }

    /// Bytes `start..start + length` of it, cut where the file ends.
    #[must_use]
    pub fn part(&self, start: u64, length: u64) -> Self {
        let start = self.start.saturating_add(start).min(self.end);
        let end = start.saturating_add(length).min(self.end);
        Self { file: self.file.clone(), start, end, position: start }
    }

    pub fn len(&self) -> u64 {
        self.end - self.start
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = match &self.file {
            Origin::Local(file) => read_at(file, &mut buffer[..wanted], self.position)?,
            Origin::Through(file) => file.read_at(&mut buffer[..wanted], self.position)?,
            Origin::Remote(file) => file.read_at(&mut buffer[..wanted], self.position)?,
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Length for Section {
    fn len(&self) -> u64 {
        self.len()
    }
}

impl ChunkReader for Section {
    type T = io::BufReader<Self>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(io::BufReader::new(self.part(start, u64::MAX)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut part = self.part(start, length as u64);
        if part.len() < length as u64 {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are behind the end")));
        }
        if let Origin::Remote(file) = &part.file
            && length >= LONG
        {
            return Ok(file.get(part.start..part.end)?);
        }
        let mut bytes = vec![0; length];
        part.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => self.start.checked_add(offset),
            SeekFrom::End(offset) => self.end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        match target {
            Some(position) if position >= self.start => {
                self.position = position;
                Ok(position - self.start)
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "seek before the start or past any file")),
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
    fn clones_read_the_same_bytes_independently() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        std::fs::write(&path, b"0123456789").unwrap();
        let part = Section::open(&path).unwrap().part(2, 5);
        let (mut one, mut other) = (part.clone(), part);
        let mut bytes = Vec::new();
        one.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"23456");
        other.seek(SeekFrom::End(-1)).unwrap();
        bytes.clear();
        other.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"6");
        assert!(other.seek(SeekFrom::Current(-10)).is_err());
    }
}
