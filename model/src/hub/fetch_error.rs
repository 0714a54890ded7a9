//! What can go wrong between the hub and the cache: what happened ([`FetchError`]'s text), and what to do
//! ([`FetchError::advice`]).

use super::client::Trouble;
use super::locate::HubError;
use super::repository::Repository;
use super::settings::Settings;
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
    #[error("no space left for {}: {}", path.display(), missing(*left))]
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
    /// The certificates cannot be used.
    #[error("{}: no certificates can be read from it: {why}", path.display())]
    Certificates {
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

fn missing(left: u64) -> String {
    format!("{} MiB were still to come", left.div_ceil(1 << 20))
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

    /// What to do next.
    pub fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Refused { advice, .. } => advice.clone(),
            Self::Answer { .. } => {
                "Check HF_ENDPOINT, and whether a proxy or a login page answers instead of the hub."
                    .to_owned()
            }
            Self::NothingMatches { examples, .. } => {
                format!("It holds {}. `*` stands for any characters, `/` among them.", examples.join(", "))
            }
            Self::WrongDigest { .. } => {
                "Fetch it again; if that happens twice, the mirror or proxy in between changes files."
                    .to_owned()
            }
            Self::DiskFull { .. } => {
                "Make room, or set HF_HOME to a bigger disk, and fetch again: what has arrived is kept."
                    .to_owned()
            }
            Self::Proxy { .. } => "Write http://HOST:PORT or socks5://HOST:PORT, or unset it.".to_owned(),
            Self::Certificates { .. } => "SSL_CERT_FILE must name a PEM file, or be unset.".to_owned(),
            Self::Token { .. } => {
                "Copy it again from the hub's page of access tokens; it starts with hf_.".to_owned()
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

/// Puts what a request met into words, for a repository and one of its files.
pub struct Asked<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The file, unless the list of files was asked for.
    pub file: Option<&'a str>,
    /// Who asked.
    pub settings: &'a Settings,
    /// The other kind of repository that has this name, when that is known.
    pub namesake: Option<Repository>,
}

impl Asked<'_> {
    /// The error for `trouble`.
    pub fn error(&self, trouble: Trouble) -> FetchError {
        let what = match self.file {
            Some(file) => format!("{file} of {}", self.repository),
            None => self.repository.to_string(),
        };
        FetchError::Refused { what, advice: self.advice(&trouble), trouble }
    }

    fn advice(&self, trouble: &Trouble) -> String {
        let Trouble::Status { status, code, .. } = trouble else {
            return match trouble {
                Trouble::Network { .. } => format!(
                    "Check the connection to {} and HTTPS_PROXY; HF_ENDPOINT can name a mirror. What has arrived is kept.",
                    self.settings.endpoint
                ),
                _ => "Fetch again later: what has arrived is kept.".to_owned(),
            };
        };
        match (status, code.as_deref()) {
            (_, Some("GatedRepo")) => self.gated(),
            (403, _) => {
                format!("{} If others may read it, a proxy or firewall in between refuses.", self.gated())
            }
            (_, Some("RevisionNotFound")) => "Its page lists branches, tags and commits.".to_owned(),
            (_, Some("EntryNotFound")) => {
                "Fetch again: the repository may have changed meanwhile.".to_owned()
            }
            (401 | 404, _) => self.not_found(),
            (429, None) if self.settings.token.is_none() => {
                "Wait a few minutes; with a token (HF_TOKEN) the hub allows more. What has arrived is kept."
                    .to_owned()
            }
            (429, _) => "Wait a few minutes and fetch again: what has arrived is kept.".to_owned(),
            _ => "Fetch again later; HF_ENDPOINT can name a mirror. What has arrived is kept.".to_owned(),
        }
    }

    /// The owner lets only some in.
    fn gated(&self) -> String {
        let page = format!("{}/{}", self.settings.endpoint, self.repository.address(None));
        match &self.settings.token {
            None => format!(
                "Ask for access at {page}, make a token at {}/settings/tokens, and set HF_TOKEN to it.",
                self.settings.endpoint
            ),
            Some(token) => format!(
                "Ask for access at {page} with the account of {token:?}; a fine-grained token must allow gated repositories."
            ),
        }
    }

    /// The hub tells nobody whether a private repository exists.
    fn not_found(&self) -> String {
        if let Some(namesake) = &self.namesake {
            return format!("Did you mean {namesake}?");
        }
        match &self.settings.token {
            None => "Check the name. A private repository needs a token: set HF_TOKEN.".to_owned(),
            Some(token) => format!("Check the name, and whether {token:?} is valid and may read it."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such_and_nothing_else_is() {
        let told = |kind: io::ErrorKind| {
            FetchError::writing(Path::new("/cache/blobs/ab.incomplete"), 5 << 20, kind.into())
        };
        insta::assert_snapshot!(told(io::ErrorKind::StorageFull), @"no space left for /cache/blobs/ab.incomplete: 5 MiB were still to come");
        assert!(told(io::ErrorKind::StorageFull).advice().unwrap().contains("HF_HOME"));
        assert!(matches!(told(io::ErrorKind::PermissionDenied), FetchError::Io { .. }));
    }
}
