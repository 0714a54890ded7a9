//! Which keys a manifest last stood for: what `explain` compares with, `peek` reads and `gc` keeps.

use super::Store;
use super::files;
use super::record::{read_sealed, seal};
use super::scratch::Scratch;
use crate::StageError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The stages of a manifest by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    pub stages: BTreeMap<String, StageIndex>,
}

/// What is known of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageIndex {
    pub kind: String,
    /// By partition or unit; `None` where it was never made.
    pub outputs: Vec<Option<Known>>,
    /// The same for the first pass of a stage that has two.
    pub first_pass: Vec<Option<Known>>,
    /// Of a job: the name of its unfinished folder.
    pub promise: Option<String>,
}

/// One finished partition or unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub label: String,
    pub key: String,
    pub digest: String,
    pub rows: u64,
}

impl Store {
    /// Empty when the manifest was never run, or the file is damaged.
    pub fn read_index(&self, manifest: &str) -> Result<Index, StageError> {
        Ok(read_sealed(&self.index_file(manifest))?.unwrap_or_default())
    }

    pub fn write_index(&self, scratch: &Scratch, manifest: &str, index: &Index) -> Result<(), StageError> {
        files::write_atomically(scratch, &self.index_file(manifest), &seal(index)?)
    }

    /// The indexes of all manifests.
    pub fn indexes(&self) -> Result<Vec<Index>, StageError> {
        let paths = files::entries(&self.folder("index"))?.into_iter().map(|entry| entry.path());
        paths
            .map(|path| {
                read_sealed(&path)?.ok_or_else(|| {
                    let text = format!("{} is damaged", path.display());
                    StageError::new(text)
                        .help("Run its manifest once more to write it again, or remove the file.")
                })
            })
            .collect()
    }
}
