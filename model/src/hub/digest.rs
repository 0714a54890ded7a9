//! The digests by which the hub names files: SHA-256 of files in LFS or Xet storage, git's blob SHA-1 of small ones; and MD5, by
//! which VLMEvalKit does.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// What a file's content must come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256 of the content, 64 hexadecimal digits.
    Sha256(String),
    /// SHA-1 of `blob SIZE\0` and the content, as git names it, 40 hexadecimal digits.
    GitBlob(String),
    /// MD5 of the content, 32 hexadecimal digits.
    Md5(String),
}

impl Digest {
    /// The digest that an etag of the hub is; `None` for etags of other servers.
    pub fn of_etag(etag: &str) -> Option<Self> {
        let hex = etag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match etag.len() {
            64 if hex => Some(Self::Sha256(etag.to_owned())),
            40 if hex => Some(Self::GitBlob(etag.to_owned())),
            _ => None,
        }
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) | Self::Md5(hex) => hex,
        }
    }

    /// A hasher for content of `size` bytes.
    pub fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitBlob(_) => Hasher::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
            Self::Md5(_) => Hasher::Md5(Md5::new()),
        }
    }

    /// Whether the file at `path`, of `size` bytes, has this digest.
    pub fn is_of(&self, path: &Path, size: u64) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let mut hasher = self.hasher(size);
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(hasher.finish() == self.hex()),
                read => hasher.update(&piece[..read]),
            }
        }
    }
}

/// A digest in the making.
#[derive(Clone)]
pub enum Hasher {
    /// Of [`Digest::Sha256`].
    Sha256(Sha256),
    /// Of [`Digest::GitBlob`].
    GitBlob(Sha1),
    /// Of [`Digest::Md5`].
    Md5(Md5),
}

impl Hasher {
    /// The next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
        }
    }

    /// The hexadecimal digits of all bytes seen.
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::GitBlob(hasher) => hex(&hasher.finalize()),
            Self::Md5(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// The hexadecimal digits of the SHA-256 of `bytes`.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello\n' | sha256sum` and `printf 'hello\n' | git hash-object --stdin`
    #[test]
    fn digests_equal_those_of_sha256sum_and_git() {
        for etag in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let digest = Digest::of_etag(etag).unwrap();
            let mut hasher = digest.hasher(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.finish(), etag);
        }
    }

    #[test]
    fn an_etag_of_another_server_is_no_digest() {
        assert_eq!(Digest::of_etag("5d41402abc4b2a76b9719d911017c592"), None);
        assert_eq!(Digest::of_etag(&"g".repeat(64)), None);
    }
}
