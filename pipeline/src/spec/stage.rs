//! What a stage is: four roles, each one small trait. A stage never sees the store, and none but a
//! job a thread.
//!
//! | role | trait | gets | gives |
//! |---|---|---|---|
//! | source | [`SourceStage`] | raw files | partitions of rows, derived (never stored) |
//! | map | [`MapStage`] | a batch of rows | the same rows, in order, other columns |
//! | gather | [`GatherStage`] | whole tables | a folder, or one folder per partition |
//! | job | [`JobStage`] | tables and folders | a folder (a model, a report) |
//!
//! The parameters of a stage are its struct: serde with `deny_unknown_fields`, each field documented with unit and
//! default. Its canonical JSON (`serde_json` of the struct, so that a default spelled out and a default left out are the
//! same) enters the key.

mod estimate;
mod job;

use crate::spec::columns::Columns;
use crate::spec::error::StageError;
use crate::spec::rejects::Rejects;
use crate::spec::shard::Shard;
use arrow::array::RecordBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::spec::read_through::ReadThrough;
pub use estimate::{Estimate, Expected};
pub use job::{JobContext, JobStage, Ledger, Lineage, Origin, OriginStage, RowAccess, Settings};

/// Rows in one batch: the unit of work and of memory. Every table has its batch borders at multiples of this within a
/// partition, so tables that line up do so batch by batch. Raise `FORMAT` of `key.rs` with it.
pub const BATCH_ROWS: usize = 128;

/// Rows in one partition unless a source says otherwise.
pub const PARTITION_ROWS: usize = 4096;

/// Reads a file that is hashed meanwhile.
pub type Pass<'a> = &'a mut (dyn FnMut(&Arc<ReadThrough>) + Send);

/// A content digest (blake3).
pub type Digest = blake3::Hash;

/// What a kind of stage is called, fixed at compile time.
pub trait StageKind: Parameters + Serialize + DeserializeOwned {
    /// The name in `kind = "…"`, a verb such as `decode-resize`.
    const KIND: &'static str;
    /// Raised when the same input gives other bytes.
    const VERSION: u32;
    /// One line for `--help` and the docs.
    const ABOUT: &'static str;
    /// Parameters of a job that name further stages it reads (`init_from = "align"`, or a list of names). Their folders come
    /// behind those of `from`, in the order given here. They enter the key by content, as those do, so the name itself is left
    /// out of the canonical JSON with `#[serde(skip_serializing)]`.
    const LINKS: &'static [&'static str] = &[];
}

/// What the parameters struct of any stage can say.
pub trait Parameters: Send + Sync + 'static {
    /// Wrong values that serde cannot see ("size must be at least 1"). Each: the parameter's name and the text.
    fn check(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Files whose *content* decides the output (a tokenizer, weights). They enter the key by content; a parameter that
    /// only names such a path is left out of the canonical JSON with `#[serde(skip_serializing)]`.
    fn resources(&self) -> Result<Vec<Resource>, StageError> {
        Ok(Vec::new())
    }

    /// What stages that work on the same rows must agree on; compared before anything runs. Facts that depend on files which
    /// are not there are left out.
    fn facts(&self) -> Vec<Fact> {
        Vec::new()
    }

    /// What whoever uses the rows much later has to repeat, such as how a prompt is rendered, and what that is called: stages of
    /// several kinds may say the same. Contents, never paths. A job that asks for them ([`JobContext::settings`]) has them in
    /// its key.
    fn settings(&self) -> Result<Option<(&'static str, Value)>, StageError> {
        Ok(None)
    }

    /// Whether a map stage draws by [`OpenContext::seed`]; only then the manifest's seed enters its key. Gather stages and
    /// jobs always have it in theirs; a source puts what it uses into [`Source::digest`].
    fn uses_seed(&self) -> bool {
        false
    }

    /// What it will take, as far as can be reported before it runs. `None`: nothing worth saying.
    fn estimate(&self, _expected: &Expected) -> Option<Estimate> {
        None
    }

    /// Raw files, tokenizers, weights and the like that parameters name and that are not there. Looked at before a run, so
    /// that nothing starts that cannot end; commands that only look at the store do not ask.
    fn missing(&self) -> Vec<Missing> {
        Vec::new()
    }

    /// What a look at the raw files shows before anything runs, as far as it takes no time: what a person should know of them, or why
    /// they cannot be read this way.
    fn preview(&self) -> Result<Vec<String>, StageError> {
        Ok(Vec::new())
    }
}

/// Something on the disk that a parameter names and that is not there.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The parameter, for its place in the manifest.
    pub param: &'static str,
    /// What is not there ("no file matches `data/cc3m/*.parquet`").
    pub text: String,
    /// What to do ("Download it with `llavm fetch hub:Qwen/Qwen3-0.6B`.").
    pub help: String,
}

/// One value that stages which work on the same rows must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is ("tokens of an image"); facts of one name are compared.
    pub name: &'static str,
    /// The parameter that says so, for its place in the manifest.
    pub param: &'static str,
    /// Equal where stages agree.
    pub value: String,
    /// The value as a person reads it, beside the parameter.
    pub shown: String,
    /// What to do where stages disagree.
    pub help: String,
}

/// A file whose content enters the key.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The name in the key and in `explain` ("tokenizer.json").
    pub name: String,
    pub path: PathBuf,
}

/// Keeps values that were computed from content alone.
pub trait Memory: Send + Sync {
    /// As [`OpenContext::remembered`].
    fn remembered(
        &self,
        _key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        compute()
    }
}

/// Keeps nothing.
struct Forgetful;

impl Memory for Forgetful {}

/// What a stage may use while it is opened.
pub trait OpenContext: Sync {
    /// The content digest of a file; remembered by its identity (path, inode, size, modification and change time).
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError>;
    /// [`OpenContext::file_digest`] of a file that is read to its end anyway: where the digest is not known, `pass` is called, and what it
    /// reads is hashed as it goes. Not called otherwise.
    fn file_digest_reading(&self, path: &Path, _pass: Pass<'_>) -> Result<Digest, StageError> {
        self.file_digest(path)
    }
    /// The content digest of many files at once, in order; remembered as one entry under `memo` as long as no file's (path,
    /// identity) changes. For folders of loose images.
    fn files_digest(&self, memo: &str, paths: &[PathBuf]) -> Result<Digest, StageError>;
    /// A value computed from content alone (a row index of a big file), kept in the store under its key. Default: nothing is kept.
    fn remembered(
        &self,
        _key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        compute()
    }
    /// [`OpenContext::remembered`] for as long as what is opened lives. Default: nothing is kept.
    fn memory(&self) -> Arc<dyn Memory> {
        Arc::new(Forgetful)
    }
    /// A folder for files without a name that are gone when they are closed: for what has to be unpacked to be read.
    fn scratch_folder(&self) -> PathBuf {
        std::env::temp_dir()
    }
    /// The manifest's `seed`; 0 for a map stage that does not say [`Parameters::uses_seed`].
    fn seed(&self) -> u64;
}

/// Enumerates partitions of raw data.
pub trait SourceStage: Parameters {
    /// The columns every row has. `id` utf8 (unique, shows a person where the row is) must be among them.
    ///
    /// A source of conversations gives `messages`, `images` and `n_images` u32, how many images `images` holds. The text
    /// branch reads `messages` and `n_images` only, so its partition digests must not change with the bytes of an image,
    /// and finding `n_images` should not need them (Parquet: the null count in a column chunk's statistics).
    fn output(&self) -> Columns;
    fn open(&self, context: &dyn OpenContext) -> Result<Box<dyn Source>, StageError>;

    /// The raw files whose content has to be read to open it; none where that is no work.
    fn raw_files(&self) -> Result<Vec<PathBuf>, StageError> {
        Ok(Vec::new())
    }

    /// The same source of a share of its raw files. Opening it finds out what of them is remembered by content, so that several
    /// processes need not each read all of them. `None` where there is nothing to share.
    fn shared(&self, _shard: Shard) -> Result<Option<Box<dyn SourceStage>>, StageError> {
        Ok(None)
    }
}

/// One stretch of raw data.
#[derive(Clone, Debug)]
pub struct SourcePartition {
    /// For people: "train-00013.parquet rows 4096..8192".
    pub label: String,
}

/// An opened source.
pub trait Source: Send + Sync {
    fn partitions(&self) -> &[SourcePartition];

    /// The content digest of the named columns of one partition: of its raw bytes, never of a path or an mtime.
    fn digest(&self, partition: usize, columns: &[&str]) -> Result<Digest, StageError>;

    /// As [`Source::digest`] of the column `id`, without the names of files: for who copies ids only to name rows to people.
    fn ids_digest(&self, partition: usize) -> Result<Digest, StageError> {
        self.digest(partition, &["id"])
    }

    /// What a person should know of the rows, such as columns that nothing uses.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// The named columns of one partition, plus `reject` (utf8, null when fine; text `read/<code>: <detail>`), in batches
    /// of at most [`BATCH_ROWS`]; a batch may end early, such as where images are large. Columns not asked for are not read.
    fn batches(&self, partition: usize, columns: &[&str]) -> Result<BatchIterator<'_>, StageError>;
}

/// Batches in order.
pub type BatchIterator<'a> = Box<dyn Iterator<Item = Result<RecordBatch, StageError>> + Send + 'a>;

/// Row by row: partition i of the output has the rows of partition i of the input.
pub trait MapStage: Parameters {
    /// The columns it reads; no others are handed to it.
    fn input(&self) -> Columns;
    /// The columns it writes.
    fn output(&self) -> Columns;

    /// Whether the output is kept in the store, or computed again whenever it is read.
    fn stored(&self) -> bool {
        true
    }

    /// Whether columns it does not write are those of its input (`filter`). Only its own columns are stored then.
    fn passes_through(&self) -> bool {
        false
    }

    /// Whether its rejects are the user's wish (a filter) and so do not count against the error budget.
    fn rejects_on_purpose(&self) -> bool {
        false
    }

    /// A stage of its own that reads the same tables and goes before this one, which reads its columns beside theirs: what only all
    /// rows together can tell. No manifest names it.
    fn beside(&self) -> Option<Beside> {
        None
    }

    /// Loads what the work needs, once per run.
    fn open(&self, context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError>;

    /// A sequential pass in row order over what [`Apply`] gave, when the verdict on a row depends on rows before it
    /// (deduplication). What the pass gives must have the columns of [`MapStage::output`].
    fn sequential(&self) -> Option<Box<dyn SequentialPass>> {
        None
    }

    /// The columns [`Apply`] gives when there is a sequential pass.
    fn intermediate(&self) -> Columns {
        self.output()
    }
}

/// See [`MapStage::beside`].
#[derive(Clone)]
pub struct Beside {
    /// Its name is the stage's, a dot and this.
    pub suffix: &'static str,
    pub kind: &'static str,
    /// Raised when the same input gives other bytes. It has no parameters.
    pub version: u32,
    pub stage: Arc<dyn MapStage>,
}

/// The work of a map stage: pure, called from many threads.
pub trait Apply: Send + Sync {
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError>;
}

impl<F> Apply for F
where
    F: Fn(&RecordBatch, &mut Rejects) -> Result<RecordBatch, StageError> + Send + Sync,
{
    fn apply(&self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        self(rows, rejects)
    }
}

/// The sequential pass of a map stage: sees every batch of the table once, in order.
pub trait SequentialPass: Send {
    /// The batches that follow are those of this partition.
    fn begin(&mut self, _partition: usize) {}

    fn next(&mut self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError>;
}

/// Which piece of work a gather stage does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// One folder from all partitions of all inputs.
    Whole,
    /// One folder per input partition (groups one after the other), ready as soon as that partition is. The stage is
    /// handed all groups, with that one partition in its group and no partitions in the others.
    PerPartition,
}

/// Sees whole tables, writes folders.
pub trait GatherStage: Parameters {
    /// The columns it needs in each group of tables.
    fn input(&self) -> Columns;
    /// Columns it copies beside those: of whatever stage the rows went through, the nearest one that makes a column of that
    /// name. Their rejects do not count, and of `id` only what the rows themselves hold enters the key: a renamed file makes
    /// nothing again.
    fn keeps(&self) -> Vec<Kept> {
        Vec::new()
    }
    fn units(&self) -> Units;
    fn gather(&self, inputs: &GatherInputs<'_>, output: &Path) -> Result<(), StageError>;
}

/// A column that a gather stage copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub name: String,
    /// The parameter that names it, for its place in the manifest.
    pub param: &'static str,
    /// Whether no group of tables needs to have it.
    pub optional: bool,
}

/// What a gather stage reads: groups of tables that line up.
pub struct GatherInputs<'a> {
    pub groups: Vec<Group<'a>>,
    pub seed: u64,
}

/// Tables that line up row by row.
pub struct Group<'a> {
    /// Relative weight when several groups are mixed; 1 when the manifest says nothing.
    pub weight: f64,
    /// The stage names of the tables, as the manifest's `from` has them.
    pub tables: Vec<String>,
    /// Those of [`GatherStage::keeps`] that some stage behind the tables makes.
    pub kept: Columns,
    pub partitions: Vec<Box<dyn PartitionView + 'a>>,
}

/// One partition of the tables of a group, read column by column.
pub trait PartitionView: Send + Sync {
    /// Its index in the group's table, and the index of its first row in the whole table.
    fn index(&self) -> usize;
    fn first_row(&self) -> u64;
    fn rows(&self) -> usize;
    /// The named columns (needed or kept ones) and `reject` (the first reason among the group's tables and, behind them, those
    /// the columns come from), in batches.
    fn batches(&self, columns: &[&str]) -> Result<BatchIterator<'_>, StageError>;
    /// For each table of the group in order: its stored file relative to the store, or `None` when it is derived.
    fn files(&self) -> Vec<Option<PathBuf>>;
    /// The content digest of each table's partition, in order.
    fn digests(&self) -> Vec<Digest>;
}
