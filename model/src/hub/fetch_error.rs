//! What can go wrong between the hub and the cache: what happened ([`FetchError`]'s text), and what to do
//! ([`FetchError::advice`]).

use super::hub_error::HubError;
use super::trouble::Trouble;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The locator names no repository.
    #[error(transparent)]
    Locator(#[from] HubError),
    /// The hub answered, or did not, and not with what was asked for.
    #[error("{what}: {trouble}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What came instead.
        trouble: Trouble,
        /// What to do.
        advice: String,
    },
    /// The hub's answer cannot be understood.
    #[error("{address} answers something else than the hub does: {why}")]
    Answer {
        /// The address asked.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The repository lists a path that leaves the snapshot folder.
    #[error(
        "{repository} holds a file named `{path}`, which would be written outside the cache; nothing was downloaded"
    )]
    UnsafePath {
        /// The locator.
        repository: String,
        /// The path.
        path: String,
    },
    /// No file was chosen.
    #[error("{repository} has {files} files, none of which is chosen by {patterns}")]
    NothingMatches {
        /// The locator.
        repository: String,
        /// Files in the repository.
        files: usize,
        /// As they were written.
        patterns: String,
        /// Some of its files.
        examples: Vec<String>,
    },
    /// A pattern cannot be read.
    #[error("`{pattern}` is no pattern: {why}")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// Why.
        why: String,
    },
    /// What arrived is not what the hub's list says.
    #[error(
        "{file} of {repository} arrived with the wrong content: its digest is {found}, the hub's list says {expected}. The file was discarded"
    )]
    WrongDigest {
        /// The locator.
        repository: String,
        /// The path in the repository.
        file: String,
        /// Of what arrived.
        found: String,
        /// Of what is listed.
        expected: String,
    },
    /// The disk has no room left.
    #[error("no space left for {}", path.display())]
    DiskFull {
        /// The file that was written.
        path: PathBuf,
        /// Bytes still to come.
        left: u64,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A proxy variable holds no proxy.
    #[error("{variable} holds no proxy address")]
    Proxy {
        /// Its name. The value may hold a password.
        variable: &'static str,
    },
    /// An endpoint variable holds no address.
    #[error("{variable} = `{endpoint}` is no address such as https://huggingface.co")]
    Endpoint {
        /// Its name.
        variable: &'static str,
        /// Its value.
        endpoint: String,
    },
    /// The certificates cannot be used.
    #[error("{}: no certificates can be read from it: {why}", path.display())]
    Certificates {
        /// The variable that names them.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A token holds spaces or other characters that no token has.
    #[error("the token of {place} holds characters that no token has")]
    Token {
        /// Where it was found.
        place: String,
    },
    /// Another file failed.
    #[error("stopped")]
    Stopped,
}

impl FetchError {
    /// An error while writing `path`, with `left` bytes still to come.
    pub fn writing(path: &Path, left: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, left },
            _ => Self::Io { path, source },
        }
    }

    /// Bytes that the disk has no room for.
    pub fn missing(&self) -> Option<u64> {
        match self {
            Self::DiskFull { left, .. } => Some(*left),
            _ => None,
        }
    }

    /// What to do next.
    pub fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Refused { advice, .. } => advice.clone(),
            Self::Answer { .. } => {
                "Check HF_ENDPOINT or MODELSCOPE_ENDPOINT, and whether a proxy or a login page answers instead.".to_owned()
            }
            Self::NothingMatches { examples, .. } => {
                format!("It holds {}. `*` stands for any characters, `/` among them.", examples.join(", "))
            }
            Self::WrongDigest { .. } => {
                "Fetch it again; if that happens twice, the mirror or proxy in between changes files."
                    .to_owned()
            }
            Self::DiskFull { .. } => {
                "Make room, or set HF_HOME (ModelScope: MODELSCOPE_CACHE) to a bigger disk, and fetch again: what has arrived is kept."
                    .to_owned()
            }
            Self::Proxy { .. } => "Write http://HOST:PORT or socks5://HOST:PORT, or unset it.".to_owned(),
            Self::Endpoint { .. } => "Write https://HOST, or unset it.".to_owned(),
            Self::Certificates { variable, .. } => {
                format!("{variable} must name a PEM file or a folder of them, or be unset.")
            }
            Self::Token { .. } => {
                "Copy it again from the page of access tokens; those of Hugging Face start with hf_.".to_owned()
            }
            Self::Locator(_)
            | Self::UnsafePath { .. }
            | Self::Pattern { .. }
            | Self::Io { .. }
            | Self::Stopped => {
                return None;
            }
        };
        Some(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_reported_as_such_and_nothing_else_is() {
        let reported = |kind: io::ErrorKind| {
            FetchError::writing(Path::new("/cache/blobs/ab.incomplete"), 5 << 20, kind.into())
        };
        insta::assert_snapshot!(reported(io::ErrorKind::StorageFull), @"no space left for /cache/blobs/ab.incomplete");
        assert_eq!(reported(io::ErrorKind::StorageFull).missing(), Some(5 << 20));
        assert!(reported(io::ErrorKind::StorageFull).advice().unwrap().contains("HF_HOME"));
        assert!(matches!(reported(io::ErrorKind::PermissionDenied), FetchError::Io { .. }));
    }
}
