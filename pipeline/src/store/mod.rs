//! Content-addressed store: finished files under names that follow from their content, shared by any number of processes.
//!
//! What is kept is content (the file of a partition, the folder of a gather unit or a job), commit records (this key gave that
//! content), roots (which records a manifest stands for: what `gc` keeps) and leases (who is making what). [`Store`] says what
//! can be done with them and hides where they are; [`folder::Folder`] keeps them on a disk, [`objects::Objects`] in a bucket of
//! an object storage. What a machine keeps for itself is no part of it ([`workdir::Workdir`]).
//!
//! A partition is named by its content and not by its key, because token shards name the pixel files they point at: when a
//! changed parameter gives the same pixels under another key, shards stay as they are and what they name stays there.
//!
//! A record is put after the content it names, so a record means that its content is there. Records are sealed: a flipped bit
//! in one is noticed when it is read.

pub mod address;
pub mod digests;
pub mod files;
pub mod folder;
pub mod gc;
pub mod identity;
pub mod key;
pub mod lease;
pub mod ledger;
pub mod objects;
pub mod open;
pub mod place;
pub mod record;
pub mod roots;
pub mod scratch;
pub mod shareable;
pub mod verify;
pub mod workdir;

use crate::spec::error::StageError;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use workdir::Workdir;

pub use address::{Address, Kind, Listed, What};

/// Something that is held as long as the value lives.
pub type Held = Box<dyn Any + Send + Sync>;

/// Finished content and the record that names it.
pub struct Commit<'a> {
    pub content: &'a Address,
    /// The finished and durable file or folder; it is moved away.
    pub from: &'a Path,
    pub record: &'a Address,
    /// Of the record.
    pub bytes: &'a [u8],
    /// Whether everything is put again, whatever is there (`--force`).
    pub force: bool,
    /// Whether another record, which somebody else put meanwhile, is as good.
    pub accepts: &'a dyn Fn(&[u8]) -> Result<bool, StageError>,
}

/// Where results are kept.
pub trait Store: fmt::Debug + Send + Sync {
    /// What people call it: a folder, an address.
    fn name(&self) -> String;
    /// Bytes that can still be put; `None` where that cannot be known.
    fn free(&self) -> Option<u64>;
    /// The folder of this machine where files for it are made.
    fn workdir(&self) -> &Workdir;

    /// Content as a file or folder of this machine; `None` when it is not there.
    fn content(&self, address: &Address) -> Result<Option<PathBuf>, StageError>;
    /// Whether [`Store::content`] has to fetch nothing.
    fn is_here(&self, _address: &Address) -> bool {
        true
    }
    /// As [`Store::content`], but as it lies in the store, whatever this machine has kept of it.
    fn reread(&self, address: &Address) -> Result<Option<PathBuf>, StageError>;
    /// Bytes of content, which need not be on this machine: of a folder those of every file in it, of a table those of the
    /// file, whose path is empty. `None` when it is not there.
    fn sizes(&self, address: &Address) -> Result<Option<BTreeMap<PathBuf, u64>>, StageError>;
    /// Publishes content and then its record, which may be that of a folder; what lies there is replaced, a mark removed. Gives
    /// the record that stands now: where several commit under one key at once, one of them wins.
    fn commit(&self, commit: &Commit<'_>) -> Result<Vec<u8>, StageError>;
    /// Remembers whether content is damaged; damaged content counts as missing until it is put again.
    fn mark(&self, address: &Address, damaged: bool) -> Result<(), StageError>;
    fn is_damaged(&self, address: &Address) -> Result<bool, StageError>;
    /// The bytes of a record; `None` when it is not there.
    fn record(&self, address: &Address) -> Result<Option<Vec<u8>>, StageError>;
    /// Removes a record; fine when it is not there.
    fn forget(&self, address: &Address) -> Result<(), StageError>;
    /// All content and records, sorted by name.
    fn list(&self) -> Result<Vec<Listed>, StageError>;
    /// The content and records of one stage.
    fn list_stage(&self, kind: Kind, stage: &str) -> Result<Vec<Listed>, StageError>;
    /// Removes one of [`Store::list`].
    fn delete(&self, listed: &Listed) -> Result<(), StageError>;

    /// The bytes of every root by name.
    fn roots(&self) -> Result<Vec<(String, Vec<u8>)>, StageError>;
    fn root(&self, name: &str) -> Result<Option<Vec<u8>>, StageError>;
    /// Replaces a root by what `change` makes of it; no other process changes it meanwhile. `None` leaves it as it is.
    fn change_root(
        &self,
        name: &str,
        change: &mut dyn FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StageError>,
    ) -> Result<(), StageError>;
    fn delete_root(&self, name: &str) -> Result<(), StageError>;

    /// How many questions to ask at once where each takes a while; `None` where an answer only takes work.
    fn at_once(&self) -> Option<usize> {
        None
    }
    /// Refuses a store whose leases are not seen by all hosts that may use it.
    fn check_shareable(&self) -> Result<(), StageError> {
        Ok(())
    }
    /// The lease on making an output; `None` when somebody else holds it. It saves work that would be done twice, and nothing
    /// depends on it.
    fn lease(&self, stage: &str, key: &str) -> Result<Option<Held>, StageError>;
    /// How long to wait before a lease is asked for again.
    fn patience(&self) -> Duration;
    /// Held by everybody who uses the store.
    fn lock_shared(&self) -> Result<Held, StageError>;
    /// For removing things: refused while anybody uses the store.
    fn lock_exclusive(&self) -> Result<Held, StageError>;
}
