//! Checkpoints in the job's folder: everything a training needs to go on as if it had never stopped.
//!
//! ```text
//! checkpoints/checkpoint-00000500/trainer/           weights that learn, optimiser, step (llavm_model::train)
//!                                 metrics.parquet    all steps so far
//! ```
//!
//! A folder takes its name when it is whole. The place in the data follows from the step, random numbers from seed and
//! step, the best measurement from the metrics; nothing else is remembered.
//!
//! Metrics are kept in Parquet because JSON would cost a number its last bit.

use super::finish::sweep;
use super::record::Record;
use llavm_model::folder::{FolderError, write_atomically};
use llavm_model::train::{CheckpointError, Trainer};
use llavm_pipeline::StageError;
use std::fs;
use std::path::{Path, PathBuf};

const TRAINER: &str = "trainer";
const METRICS: &str = "metrics.parquet";
const PREFIX: &str = "checkpoint-";

/// The checkpoints of one training.
pub struct Checkpoints {
    folder: PathBuf,
    /// How many are kept, the best aside.
    limit: usize,
}

/// Why a checkpoint could not be written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Trainer(#[from] CheckpointError),
    #[error(transparent)]
    Metrics(#[from] StageError),
}

impl Checkpoints {
    /// Those in `folder`, which need not exist.
    pub fn new(folder: PathBuf, limit: usize) -> Self {
        Self { folder, limit }
    }

    /// Brings trainer and record to where the newest checkpoint left them; leaves them as they are when there is none.
    pub fn resume(&self, trainer: &mut Trainer, record: &mut Record) -> Result<(), StageError> {
        let Some(newest) = self.steps()?.pop() else { return Ok(()) };
        sweep(&self.folder)?;
        let path = self.path(newest);
        *record = Record::read(&path.join(METRICS)).map_err(|error| hint(error, &path))?;
        self.restore(newest, trainer)
    }

    /// Brings the trainer to where it was at `step`.
    #[tracing::instrument(level = "debug", skip_all, fields(step))]
    pub fn restore(&self, step: u64, trainer: &mut Trainer) -> Result<(), StageError> {
        let path = self.path(step);
        let restored = trainer.restore(&path.join(TRAINER));
        restored.map_err(|error| hint(StageError::new(error.to_string()).because(error), &path))
    }

    /// Writes a checkpoint, and removes old ones.
    #[tracing::instrument(level = "debug", skip_all)]
    pub fn save(&self, trainer: &mut Trainer, record: &Record) -> Result<(), StageError> {
        fs::create_dir_all(&self.folder).map_err(|cause| StageError::io(&self.folder, cause))?;
        let target = self.path(trainer.steps());
        let written = write_atomically(&target, |folder| -> Result<(), Failure> {
            trainer.save(&folder.join(TRAINER))?;
            // How many rows make an epoch is not needed before the end, and may not be known.
            Ok(record.write(&folder.join(METRICS), 1)?)
        });
        written.map_err(|error| StageError::new(error.to_string()).because(error))?;
        self.rotate(record.best().map(|(step, _)| step))
    }

    /// Removes all of them.
    pub fn remove_all(&self) -> Result<(), StageError> {
        match fs::remove_dir_all(&self.folder) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(StageError::io(&self.folder, cause))
            }
            _ => Ok(()),
        }
    }

    fn rotate(&self, best: Option<u64>) -> Result<(), StageError> {
        let steps = self.steps()?;
        let old = steps.len().saturating_sub(self.limit);
        for step in steps.iter().take(old).filter(|step| Some(**step) != best) {
            let path = self.path(*step);
            fs::remove_dir_all(&path).map_err(|cause| StageError::io(&path, cause))?;
        }
        Ok(())
    }

    /// The steps of all checkpoints, in order.
    fn steps(&self) -> Result<Vec<u64>, StageError> {
        if !self.folder.is_dir() {
            return Ok(Vec::new());
        }
        let failed = |cause| StageError::io(&self.folder, cause);
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            steps.extend(step.and_then(|step| step.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step:08}"))
    }
}

fn hint(error: StageError, path: &Path) -> StageError {
    error.help(format!("Delete the folder {} to go on from the checkpoint before it.", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_and_the_best_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path().to_owned(), 2);
        for step in [4, 8, 12, 16] {
            fs::create_dir(checkpoints.path(step)).unwrap();
        }
        fs::create_dir(folder.path().join(".checkpoint-00000020.new-1")).unwrap();
        checkpoints.rotate(Some(4)).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [4, 12, 16]);
        checkpoints.rotate(None).unwrap();
        assert_eq!(checkpoints.steps().unwrap(), [12, 16]);
        checkpoints.remove_all().unwrap();
        checkpoints.remove_all().unwrap();
        assert!(checkpoints.steps().unwrap().is_empty());
    }
}
