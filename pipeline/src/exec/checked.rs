//! Checks inputs: the first time a run opens a file that it did not write itself, the file is compared with
//! its record. A damaged one is made again on the spot; everything it is made of is at hand.

use super::builder::Builder;
use super::executor::TaskError;
use super::shared::Checked;
use crate::keys::builder::Entry;
use crate::keys::tasks::TaskId;
use crate::spec::error::StageError;
use crate::spec::event::Event;
use crate::spec::panics::catch;
use crate::store::Address;
use crate::store::files::{at, hash_file};
use crate::store::record::find_table;
use crate::table::ipc::ArrowFile;
use crate::table::read::Opener;
use crate::table::rejects::{self, REJECT};
use arrow::array::StringArray;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

impl Builder<'_> {
    fn checked(&self, id: TaskId) -> Arc<Mutex<Checked>> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(checked.entry(id).or_default())
    }

    /// This run has just written the file.
    pub(super) fn written(&self, id: TaskId) {
        // A partition that is made again while it is being opened holds the lock already.
        if let Ok(mut checked) = self.checked(id).try_lock() {
            *checked = Checked::Whole;
        }
    }

    fn content(&self, id: TaskId, entry: &Entry) -> Address {
        let stage = self.session.name(self.tasks.all[id].node);
        if self.is_folder(id) {
            Address::folder(stage, &entry.key)
        } else {
            Address::table(stage, &entry.digest)
        }
    }

    fn file(&self, id: TaskId, entry: &Entry) -> Result<Option<PathBuf>, StageError> {
        self.session.store.content(&self.content(id, entry))
    }

    fn make_again(&self, id: TaskId, entry: &Entry) -> Result<(), StageError> {
        let task = &self.tasks.all[id];
        let (store, stage) = (&self.session.store, self.session.name(task.node));
        let label = self.session.label(task.node, task.index);
        let content = self.content(id, entry);
        let name = content.content_name();
        let text = format!("{label}: {} is damaged and is made again", name.display());
        self.host.event(&Event::Warning { stage: task.node, text: &text });
        let _lease = loop {
            if let Some(lease) = store.lease(stage, &entry.key)? {
                break lease;
            }
            if self.host.stopping() {
                return Err(StageError::new("the run is stopping"));
            }
            std::thread::sleep(store.patience());
        };
        if self.is_as_written(id, entry, Checked::Whole)? {
            return Ok(());
        }
        // Should this run not come to it, the next one does.
        store.mark(&content, true)?;
        let parts = self.keys().parts(task)?.ok_or_else(|| StageError::new("an input is not there"))?;
        let (made, _) = self.build(id, parts).map_err(|halt| match halt {
            TaskError::Failed(cause) => cause,
            TaskError::OverBudget(exceeded) => {
                StageError::new(format!("`{stage}` rejected {}", exceeded.what))
            }
            TaskError::Stopped | TaskError::Busy | TaskError::NotReady => {
                StageError::new("the run is stopping")
            }
        })?;
        if made.digest == entry.digest {
            return Ok(());
        }
        let text =
            format!("`{stage}`, {label}: made again from the same input, it has other bytes than before");
        Err(StageError::new(text)
            .help(format!("Its kind gives other bytes now; make all of it again with --force {stage}.")))
    }

    /// Compares the folder of a gather unit or a job with its record.
    pub(super) fn check_folder(&self, id: TaskId, entry: &Entry) -> Result<(), StageError> {
        let cell = self.checked(id);
        let mut checked = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if *checked < Checked::Whole && !self.is_as_written(id, entry, Checked::Whole)? {
            if self.session.graph.nodes[self.tasks.all[id].node].stage.role.is_job() {
                let content = self.content(id, entry);
                self.session.store.mark(&content, true)?;
                let text = format!("{} is damaged", content.content_name().display());
                return Err(StageError::new(text).help("Run the same command again to make it again."));
            }
            self.make_again(id, entry)?;
        }
        *checked = Checked::Whole;
        Ok(())
    }

    fn is_as_written(&self, id: TaskId, entry: &Entry, level: Checked) -> Result<bool, StageError> {
        if self.is_folder(id) {
            return self.folder_is_as_written(id, entry);
        }
        let Some(path) = self.file(id, entry)? else { return Ok(false) };
        if level == Checked::Whole {
            return match hash_file(&path) {
                Ok((digest, _)) => Ok(digest.to_hex().as_str() == entry.digest),
                Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
                Err(cause) => at(&path, Err(cause)),
            };
        }
        let stage = self.session.name(self.tasks.all[id].node);
        let Some(record) = find_table(self.session.store.as_ref(), stage, &entry.key)? else {
            return Ok(false);
        };
        // Where it is damaged, reading it may fail in any way.
        let digest = catch("on a damaged file", || reject_digest(&path));
        Ok(digest.is_ok_and(|digest| digest == record.reject_digest))
    }
}

impl Opener for Builder<'_> {
    fn told(&self, id: TaskId) -> Result<Option<StringArray>, StageError> {
        let entry = self.host.entry(id).ok_or_else(|| StageError::new("an input is not there"))?;
        let store = self.session.store.as_ref();
        if store.is_here(&self.content(id, &entry)) {
            return Ok(None);
        }
        let record = find_table(store, self.session.name(self.tasks.all[id].node), &entry.key)?;
        Ok(record.and_then(|record| rejects::told(&record)))
    }

    fn open(&self, id: TaskId, whole: bool) -> Result<ArrowFile, StageError> {
        let entry = self.host.entry(id).ok_or_else(|| StageError::new("an input is not there"))?;
        let needed = if whole { Checked::Whole } else { Checked::Rejects };
        let cell = self.checked(id);
        let mut checked = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if *checked < needed {
            if self.is_as_written(id, &entry, needed)? {
                *checked = needed;
            } else {
                self.make_again(id, &entry)?;
                *checked = Checked::Whole;
            }
        }
        let missing = || StageError::new("an input is gone").help("Run the same command again.");
        ArrowFile::open(&self.file(id, &entry)?.ok_or_else(missing)?)
    }
}

/// The digest of the column `reject` of a file.
fn reject_digest(path: &std::path::Path) -> Result<String, StageError> {
    let mut hasher = blake3::Hasher::new();
    let mut first = 0;
    for batch in ArrowFile::open(path)?.into_batches(&[REJECT]) {
        let column = rejects::column(&batch?)?;
        rejects::hash(&mut hasher, first, &column);
        first += arrow::array::Array::len(&column) as u64;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
