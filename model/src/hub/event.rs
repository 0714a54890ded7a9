//! What happens during a fetch, and how much of a file is there.

use super::listing::RemoteFile;
use super::trouble::Trouble;
use std::time::Duration;

/// Sees what a fetch does; called by several threads.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &FetchEvent<'_>);
}

/// What happens during a fetch.
#[derive(Debug)]
pub enum FetchEvent<'a> {
    /// A download begins, after `have` bytes that are there already.
    Started {
        /// The file.
        file: &'a RemoteFile,
        /// Bytes of an earlier download.
        have: u64,
    },
    /// Bytes have arrived.
    Bytes {
        /// The file.
        file: &'a RemoteFile,
        /// How many.
        count: u64,
    },
    /// A download begins again at the file's first byte.
    Restarted {
        /// The file.
        file: &'a RemoteFile,
        /// Why.
        why: &'a str,
        /// Bytes that were there and come again.
        lost: u64,
    },
    /// The file is in the snapshot.
    Done {
        /// The file.
        file: &'a RemoteFile,
    },
    /// Another program downloads the same file.
    Locked {
        /// The file.
        file: &'a RemoteFile,
    },
    /// Something failed and is tried again after a pause.
    Waiting {
        /// The file or repository.
        what: &'a str,
        /// What failed.
        why: &'a Trouble,
        /// How long.
        pause: Duration,
    },
}

/// How much of a file is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All of it.
    There,
    /// So many bytes of it.
    Begun(u64),
    /// Nothing.
    Missing,
}
