//! What of a file changes when its content does, so that a digest once computed can be believed without reading the file.
//!
//! An identity is (path, inode, size, modification time, change time). The change time is the system's own: it cannot be
//! set, so a file that is written again with the same size and its old modification time (`touch -d`, `tar -x`, `rsync -t`)
//! is another one. It also changes with a new name or owner, which costs reading the file once more. Every host that mounts a
//! file server sees the same identity, which is why the device is left out: its number is the host's own. Where the system has no
//! inodes and no change time, their places are empty.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What changes when a file's content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The beginning of the digest of the absolute path.
    path: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970, as are those below.
    modified: i128,
    changed: i128,
}

impl Identity {
    /// `file`: what the system says of the file at `path`.
    pub fn of(path: &Path, file: &Metadata) -> Self {
        let (inode, changed) = unsettable(file);
        let modified = file.modified().map_or(0, nanoseconds);
        Self { path: path_digest(path), inode, size: file.len(), modified, changed }
    }

    /// Whether the file was left alone for longer than `settled`: a second change within one tick of the file system's clock
    /// would leave the identity as it is.
    pub fn is_settled(&self, settled: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i128);
        now - self.modified.max(self.changed) > settled.as_nanos() as i128
    }

    /// In words, apart by spaces.
    pub fn text(&self) -> String {
        let Self { path, inode, size, modified, changed } = self;
        format!("{path:016x} {inode} {size} {modified} {changed}")
    }

    /// What [`Identity::text`] gave; `None` for what earlier versions wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [path, inode, size, modified, changed] = words[..] else { return None };
        if path.len() != 16 {
            return None;
        }
        Some(Self {
            path: u64::from_str_radix(path, 16).ok()?,
            inode: inode.parse().ok()?,
            size: size.parse().ok()?,
            modified: modified.parse().ok()?,
            changed: changed.parse().ok()?,
        })
    }
}

fn path_digest(path: &Path) -> u64 {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut start = [0; 8];
    start.copy_from_slice(&blake3::hash(path.as_os_str().as_encoded_bytes()).as_bytes()[..8]);
    u64::from_be_bytes(start)
}

fn nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

/// Inode and change time.
#[cfg(unix)]
fn unsettable(file: &Metadata) -> (u64, i128) {
    use std::os::unix::fs::MetadataExt;
    (file.ino(), i128::from(file.ctime()) * 1_000_000_000 + i128::from(file.ctime_nsec()))
}

#[cfg(not(unix))]
fn unsettable(file: &Metadata) -> (u64, i128) {
    (0, file.created().map_or(0, nanoseconds))
}

/// What two open files of this host share only when they are one.
#[cfg(unix)]
fn file_id(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

#[cfg(not(unix))]
fn file_id(file: &Metadata) -> (u64, i128) {
    (file.len(), file.created().map_or(0, nanoseconds))
}

/// Whether an open file is still the one under `path`.
pub fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) => Ok(file_id(&there) == file_id(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_being_written_and_earlier_ones_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        fs::write(&path, b"one").unwrap();
        let identity = Identity::of(&path, &fs::metadata(&path).unwrap());
        assert_eq!(Identity::parse(&identity.text()), Some(identity));
        assert_eq!(Identity::parse("66306 131 3 1764455000000000000 1764455000000000000"), None);
    }

    #[test]
    fn a_file_has_one_identity_however_its_path_is_written() {
        let path = Path::new("Cargo.toml");
        let file = fs::metadata(path).unwrap();
        let absolute = std::path::absolute(path).unwrap();
        assert_eq!(Identity::of(path, &file), Identity::of(&absolute, &file));
        assert_ne!(Identity::of(Path::new("other"), &file), Identity::of(path, &file));
    }
}
