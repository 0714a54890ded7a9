//! Vouches for stored partitions: the first time a run opens a file that it did not write itself, the file is compared with
//! its record. A damaged one is made again on the spot; everything it is made of is at hand.

use super::Runner;
use super::lane::Halt;
use crate::StageError;
use crate::observer::Event;
use crate::parts::{Entry, Known};
use crate::store::Store;
use crate::store::claim::Claim;
use crate::store::files::{self, at, hash_file};
use crate::table::ipc::ArrowFile;
use crate::table::read::Guard;
use crate::table::rejects::{self, REJECT};
use crate::tasks::TaskId;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What was compared with the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checked {
    #[default]
    Nothing,
    /// The column `reject`.
    Rejects,
    /// Every byte.
    Whole,
}

/// How often another process that makes the same file is looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Runner<'_> {
    fn checked(&self, id: TaskId) -> Arc<Mutex<Checked>> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(checked.entry(id).or_default())
    }

    /// This run has just written the file.
    pub(super) fn vouch(&self, id: TaskId) {
        // A partition that is made again while it is being opened holds the lock already.
        if let Ok(mut checked) = self.checked(id).try_lock() {
            *checked = Checked::Whole;
        }
    }

    fn place(&self, id: TaskId, entry: &Entry) -> PathBuf {
        if self.is_folder(id) { self.folder_path(id, entry) } else { self.file(id, entry) }
    }

    fn file(&self, id: TaskId, entry: &Entry) -> PathBuf {
        let stage = self.session.name(self.tasks.all[id].node);
        self.session.store.root().join(Store::table_file(stage, &entry.digest))
    }

    fn make_again(&self, id: TaskId, entry: &Entry) -> Result<(), StageError> {
        let task = &self.tasks.all[id];
        let stage = self.session.name(task.node);
        let label = self.session.label(task.node, task.index);
        let text = format!("{label}: {} is damaged and is made again", self.place(id, entry).display());
        self.log.event(&Event::Warning { stage: task.node, text: &text });
        let claim = self.session.store.claim_file(stage, &entry.key);
        let _claim = loop {
            if let Some(claim) = Claim::take(&claim)? {
                break claim;
            }
            if self.board.stopping() {
                return Err(StageError::new("the run is stopping"));
            }
            std::thread::sleep(LOOK);
        };
        if self.is_as_written(id, entry, Checked::Whole)? {
            return Ok(());
        }
        let parts = self.parts().of(task)?.ok_or_else(|| StageError::new("an input is not there"))?;
        let (made, _) = self.build(id, parts).map_err(|halt| match halt {
            Halt::Failed(cause) => cause,
            Halt::OverBudget(exceeded) => StageError::new(format!("`{stage}` rejected {}", exceeded.what)),
            Halt::Stopped => StageError::new("the run is stopping"),
        })?;
        if made.digest == entry.digest {
            return Ok(());
        }
        let text =
            format!("`{stage}`, {label}: made again from the same input, it has other bytes than before");
        Err(StageError::new(text)
            .help(format!("Its kind gives other bytes now; make all of it again with --force {stage}.")))
    }

    /// Vouches for the folder of a gather unit or a job.
    pub(super) fn vouched_folder(&self, id: TaskId, entry: &Entry) -> Result<(), StageError> {
        let cell = self.checked(id);
        let mut checked = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if *checked < Checked::Whole && !self.is_as_written(id, entry, Checked::Whole)? {
            if self.session.graph.nodes[self.tasks.all[id].node].stage.role.is_job() {
                let stage = self.session.name(self.tasks.all[id].node);
                files::remove(&self.session.store.job_record(stage, &entry.key))?;
                let text = format!("{} is damaged", self.folder_path(id, entry).display());
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
        let path = self.file(id, entry);
        if level == Checked::Whole {
            return match hash_file(&path) {
                Ok((digest, _)) => Ok(digest.to_hex().as_str() == entry.digest),
                Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
                Err(cause) => at(&path, Err(cause)),
            };
        }
        let stage = self.session.name(self.tasks.all[id].node);
        let Some(record) = self.session.store.find_table(stage, &entry.key)? else { return Ok(false) };
        Ok(reject_digest(&path).is_ok_and(|digest| digest == record.reject_digest))
    }
}

impl Guard for Runner<'_> {
    fn open(&self, id: TaskId, whole: bool) -> Result<ArrowFile, StageError> {
        let entry = self.board.entry(id).ok_or_else(|| StageError::new("an input is not there"))?;
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
        ArrowFile::open(&self.file(id, &entry))
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
