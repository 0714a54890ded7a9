//! Drops what no root of the store stands for.
//!
//! Kept is what a root names, and what the records of kept folders were made of: shards name pixel files, which stay as long
//! as the shards do, whichever root stands for the pixels by now.

use super::digests;
use super::record::{FolderRecord, TableRecord, read_record};
use super::roots::{self, Root};
use super::{Address, Kind, Listed, Store, What};
use crate::spec::error::StageError;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which roots go before it is looked at what nobody stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Of each manifest, only so many settings: those that were run last.
    pub last: Option<usize>,
    /// Only what was run no longer ago.
    pub older_than: Option<Duration>,
}

/// What was dropped, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Relative to the store, in the order of their paths.
    pub dropped: Vec<Dropped>,
    /// Roots that go, because [`Keep`] says so.
    pub roots: Vec<DroppedRoot>,
    /// Bytes of all that is dropped.
    pub bytes: u64,
    /// Bytes of the tables and folders that stay.
    pub kept: u64,
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub path: PathBuf,
    pub bytes: u64,
    #[serde(flatten)]
    pub category: Category,
}

/// What a dropped thing is, for lists that say how many of each there are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Category {
    /// Of outputs: the stage that made them.
    pub stage: Option<String>,
    /// "partition", "record", "folder", "interrupted job", "run folder", "remembered value" or "stray file".
    pub noun: &'static str,
    /// Of a folder: the kind of stage that made it, such as `train`.
    pub kind: Option<String>,
}

/// A manifest and settings that nothing is kept for any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DroppedRoot {
    pub manifest: PathBuf,
    pub settings: Vec<String>,
    /// When it was last run: milliseconds since 1970.
    pub time: u64,
    #[serde(skip)]
    name: String,
}

/// Lists what would be dropped. Runs may go on meanwhile.
pub fn list(store: &dyn Store, keep: Keep) -> Result<Collected, StageError> {
    let (listed, collected) = find(store, keep)?;
    drop(listed);
    Ok(collected)
}

/// Drops what `listed` names and what still nobody stands for. Refused while a run uses the store.
pub fn collect(store: &dyn Store, keep: Keep, listed: &Collected) -> Result<Collected, StageError> {
    let _lock = store.lock_exclusive()?;
    let (all, mut found) = find(store, keep)?;
    found.dropped.retain(|dropped| listed.dropped.contains(dropped));
    found.roots.retain(|root| listed.roots.contains(root));
    found.bytes = found.dropped.iter().map(|dropped| dropped.bytes).sum();
    for root in &found.roots {
        store.delete_root(&root.name)?;
    }
    let names: BTreeSet<&PathBuf> = found.dropped.iter().map(|dropped| &dropped.path).collect();
    let is_record = |listed: &&Listed| matches!(listed.what, What::Record(_));
    let (records, others): (Vec<&Listed>, Vec<&Listed>) =
        all.iter().filter(|listed| names.contains(&listed.name)).partition(is_record);
    // Records go before what they name: a killed gc leaves no record without its content.
    for listed in records.into_iter().chain(others) {
        tracing::debug!(path = %listed.name.display(), bytes = listed.bytes, "dropped");
        match listed.what {
            What::Unfinished { .. } | What::Outdated => store.workdir().delete(listed)?,
            What::Record(_) | What::Content(_) | What::Mark | What::Stray => store.delete(listed)?,
        }
    }
    store.workdir().scratch()?;
    digests::shorten(store.workdir())?;
    Ok(found)
}

/// Bytes that no root stands for, nor `known`: stage, key and digest of outputs. Runs may go on meanwhile.
pub fn unused<'a>(
    store: &dyn Store,
    known: impl Iterator<Item = (&'a str, String, String)>,
) -> Result<u64, StageError> {
    let mut live = Live::default();
    roots::all(store)?.iter().for_each(|(_, root)| live.root(root));
    known.for_each(|(stage, key, digest)| live.output(stage, &key, &digest));
    live.follow(store)?;
    let unused = everything(store)?.into_iter().filter(|listed| !live.holds(listed));
    Ok(unused.map(|listed| listed.bytes).sum())
}

fn find(store: &dyn Store, keep: Keep) -> Result<(Vec<Listed>, Collected), StageError> {
    let (kept, dropped): (Vec<_>, Vec<_>) = choose(roots::all(store)?, keep);
    let mut live = Live::default();
    kept.iter().for_each(|(_, root)| live.root(root));
    live.follow(store)?;
    let roots = dropped.into_iter().map(dropped_root).collect();
    let mut found = Collected { roots, ..Collected::default() };
    let mut all = everything(store)?;
    all.extend(store.workdir().outdated()?);
    for listed in &all {
        if live.holds(listed) || listed.young {
            found.kept += listed.bytes;
        } else {
            found.bytes += listed.bytes;
            let category = category(store, listed)?;
            found.dropped.push(Dropped { path: listed.name.clone(), bytes: listed.bytes, category });
        }
    }
    Ok((all, found))
}

fn category(store: &dyn Store, listed: &Listed) -> Result<Category, StageError> {
    let of = |stage: &str, noun| Category { stage: Some(stage.to_owned()), noun, kind: None };
    Ok(match &listed.what {
        What::Record(address) => of(&address.stage, "record"),
        What::Content(address) if address.kind == Kind::Table => of(&address.stage, "partition"),
        What::Content(address) => {
            let record = read_record::<FolderRecord>(store, address)?;
            Category { kind: record.map(|record| record.key.kind), ..of(&address.stage, "folder") }
        }
        What::Unfinished { stage, .. } => of(stage, "interrupted job"),
        What::Outdated if listed.name.starts_with("runs") => {
            Category { stage: None, noun: "run folder", kind: None }
        }
        What::Outdated => Category { stage: None, noun: "remembered value", kind: None },
        What::Mark | What::Stray => Category { stage: None, noun: "stray file", kind: None },
    })
}

/// What a run drops before it begins, so that a store does not grow with its runs: folders of old runs, values that nobody has
/// used for long. Seldom due, and left to a later run while another process uses the store.
pub fn trim(store: &dyn Store) -> Result<(), StageError> {
    let workdir = store.workdir();
    if !workdir.is_trim_due()? {
        return Ok(());
    }
    let Ok(_alone) = store.lock_exclusive() else { return Ok(()) };
    for listed in workdir.outdated()? {
        tracing::debug!(path = %listed.name.display(), bytes = listed.bytes, "outdated");
        workdir.delete(&listed)?;
    }
    digests::shorten(workdir)?;
    workdir.trimmed()
}

/// What the store has, and interrupted jobs of this machine.
fn everything(store: &dyn Store) -> Result<Vec<Listed>, StageError> {
    let mut all = store.list()?;
    all.extend(store.workdir().interrupted()?);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn dropped_root((name, root): (String, Root)) -> DroppedRoot {
    DroppedRoot { manifest: root.manifest, settings: root.settings, time: root.time, name }
}

type Named = (String, Root);

/// The roots that stay, and those that go.
fn choose(mut all: Vec<Named>, keep: Keep) -> (Vec<Named>, Vec<Named>) {
    all.sort_by_key(|(_, root)| std::cmp::Reverse(root.time));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest = keep.older_than.map(|age| now.saturating_sub(age).as_millis() as u64);
    let mut seen: BTreeMap<PathBuf, usize> = BTreeMap::new();
    all.into_iter().partition(|(_, root)| {
        let before = seen.entry(root.manifest.clone()).or_default();
        *before += 1;
        keep.last.is_none_or(|last| *before <= last) && oldest.is_none_or(|oldest| root.time >= oldest)
    })
}

/// What has to stay.
#[derive(Default)]
struct Live {
    records: BTreeSet<Address>,
    contents: BTreeSet<Address>,
    unfinished: BTreeSet<(String, String)>,
}

impl Live {
    fn root(&mut self, root: &Root) {
        for (stage, known) in &root.stages {
            for output in known.outputs.iter().chain(&known.intermediate).flatten() {
                self.output(stage, &output.key, &output.digest);
            }
            self.unfinished.extend(known.provisional.iter().map(|key| (stage.clone(), key.clone())));
        }
    }

    /// An output of a stage, table or folder.
    fn output(&mut self, stage: &str, key: &str, digest: &str) {
        self.records.insert(Address::table(stage, key));
        self.contents.insert(Address::table(stage, digest));
        self.records.insert(Address::folder(stage, key));
        self.contents.insert(Address::folder(stage, key));
    }

    fn holds(&self, listed: &Listed) -> bool {
        match &listed.what {
            What::Record(address) => self.records.contains(address),
            What::Content(address) => self.contents.contains(address),
            What::Unfinished { stage, provisional } => {
                self.unfinished.contains(&(stage.clone(), provisional.clone()))
            }
            What::Mark => true,
            What::Stray | What::Outdated => false,
        }
    }

    /// Keeps what kept folders were made of.
    fn follow(&mut self, store: &dyn Store) -> Result<(), StageError> {
        let (folders, tables) = records(store)?;
        let mut by_digest: BTreeMap<(&str, &str), Vec<&Address>> = BTreeMap::new();
        for (address, record) in &folders {
            by_digest.entry((&address.stage, &record.digest)).or_default().push(address);
        }
        let mut open: Vec<Address> =
            folders.keys().filter(|address| self.records.contains(address)).cloned().collect();
        while let Some(address) = open.pop() {
            for input in folders.get(&address).iter().flat_map(|record| &record.key.inputs) {
                let content = Address::table(&input.stage, &input.digest);
                if let Some(records) = tables.get(&content) {
                    self.records.extend(records.iter().cloned());
                    self.contents.insert(content);
                }
                for folder in by_digest.get(&(&input.stage, &input.digest)).into_iter().flatten() {
                    self.contents.insert((*folder).clone());
                    if self.records.insert((*folder).clone()) {
                        open.push((*folder).clone());
                    }
                }
            }
        }
        Ok(())
    }
}

/// The records of all folders, and the addresses of the records of every table's content.
type Records = (BTreeMap<Address, FolderRecord>, BTreeMap<Address, Vec<Address>>);

fn records(store: &dyn Store) -> Result<Records, StageError> {
    let (mut folders, mut tables) = (BTreeMap::new(), BTreeMap::<Address, Vec<Address>>::new());
    for listed in store.list()? {
        let What::Record(address) = listed.what else { continue };
        match address.kind {
            Kind::Folder => {
                if let Some(record) = read_record::<FolderRecord>(store, &address)? {
                    folders.insert(address, record);
                }
            }
            Kind::Table => {
                if let Some(record) = read_record::<TableRecord>(store, &address)? {
                    let content = Address::table(&address.stage, &record.digest);
                    tables.entry(content).or_default().push(address);
                }
            }
        }
    }
    Ok((folders, tables))
}
