//! Names of what a store keeps: the same in every kind of store.

use std::path::{Path, PathBuf};

/// What a piece of content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One partition of a table: a file named by its digest.
    Table,
    /// The output of a gather unit or a job: a folder named by the key of its record.
    Folder,
}

impl Kind {
    /// Where all of this kind is, in the names of every store.
    pub fn top(self) -> &'static str {
        match self {
            Self::Table => "tables",
            Self::Folder => "jobs",
        }
    }
}

/// The name of content, or of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub kind: Kind,
    pub stage: String,
    /// Of a record its key; of a table's content the digest; of a folder the key.
    pub name: String,
}

impl Address {
    pub fn table(stage: &str, name: &str) -> Self {
        Self { kind: Kind::Table, stage: stage.to_owned(), name: name.to_owned() }
    }

    pub fn folder(stage: &str, name: &str) -> Self {
        Self { kind: Kind::Folder, stage: stage.to_owned(), name: name.to_owned() }
    }

    /// What content is called in every store: `tables/<stage>/<digest>.arrow`, `jobs/<stage>/<key>`.
    pub fn content_name(&self) -> PathBuf {
        match self.kind {
            Kind::Table => self.named("arrow"),
            Kind::Folder => Path::new(self.kind.top()).join(&self.stage).join(&self.name),
        }
    }

    /// What a record is called in every store: `tables/<stage>/<key>.json`.
    pub fn record_name(&self) -> PathBuf {
        self.named("json")
    }

    /// What shows that content is damaged.
    pub fn mark_name(&self) -> PathBuf {
        self.named("damaged")
    }

    fn named(&self, ending: &str) -> PathBuf {
        Path::new(self.kind.top()).join(&self.stage).join(format!("{}.{ending}", self.name))
    }
}

/// One thing that is in a store, or on a machine that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// For people, unique in the store.
    pub name: PathBuf,
    pub what: What,
    pub bytes: u64,
    /// Of content: whether it is marked as damaged.
    pub damaged: bool,
    /// Whether it was put so recently that whoever put it may not have named it yet; `gc` leaves it.
    pub young: bool,
}

/// What a listed thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Record(Address),
    Content(Address),
    /// Where an interrupted job lies: its stage and provisional key.
    Unfinished {
        stage: String,
        provisional: String,
    },
    /// What a machine keeps for itself and has not used for long.
    Outdated,
    /// Shows that content is damaged.
    Mark,
    /// Nothing that the engine writes.
    Stray,
}
