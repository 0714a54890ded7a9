//! Reading the rows of a table, stored or derived, with any column of what its rows went through.

use crate::keys::builder::{Entries, Entry, Known};
use crate::keys::session::Session;
use crate::keys::tasks::{Pass, TaskId, Tasks};
use crate::spec::columns::Column;
use crate::spec::error::StageError;
use crate::spec::event::Watch;
use crate::spec::graph::{Graph, InputGroup, NodeIndex, upstream_columns};
use crate::spec::run_error::RunError;
use crate::spec::stage::RowAccess;
use crate::state::lookup::lookup;
use crate::store::files::{at, hash_file};
use crate::store::{Address, Store};
use crate::table::access::Rows;
use crate::table::ipc::ArrowFile;
use crate::table::read::{Opener, Reader};
use crate::table::rejects::REJECT;
use crate::table::view;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The rows of a table.
pub struct Table<'g> {
    session: Session<'g>,
    tasks: Tasks,
    entries: Entries,
    /// Tables that line up; the first names the partitions.
    nodes: Vec<NodeIndex>,
    /// Files whose content was compared with their record.
    checked: Mutex<BTreeSet<TaskId>>,
}

impl<'g> Table<'g> {
    /// `nodes`: a table, or several that line up.
    pub(super) fn open(
        graph: &'g Graph,
        store: Arc<dyn Store>,
        nodes: Vec<NodeIndex>,
        jobs: usize,
    ) -> Result<Self, RunError> {
        let session = Session::open(graph, store, &graph.upstream(&nodes), jobs, Watch::nobody())?;
        let tasks = Tasks::new(&session);
        let entries = lookup(&session, &tasks, &BTreeSet::new())?.entries;
        Ok(Self { session, tasks, entries, nodes, checked: Mutex::default() })
    }

    /// What [`Table::read`] can be asked for: the columns of the stage and of everything its rows went through, `id` among
    /// them. The nearest maker of a name wins.
    pub fn columns(&self) -> Vec<Column> {
        let offered = upstream_columns(&self.session.graph.nodes, &self.nodes);
        offered.into_iter().map(|offered| offered.column).collect()
    }

    /// What the source of its rows has to say of them.
    pub fn notes(&self) -> &[String] {
        self.session.graph.source_of(self.first()).map_or(&[], |source| self.session.notes(source))
    }

    pub fn partitions(&self) -> usize {
        self.session.labels(self.first()).len()
    }

    /// The label of a partition.
    pub fn label(&self, partition: usize) -> &str {
        self.session.label(self.first(), partition)
    }

    fn first(&self) -> NodeIndex {
        self.nodes.first().copied().unwrap_or_default()
    }

    /// All rows of a partition, some at a time: the named columns in order, then `reject`.
    pub fn scan(
        &self,
        partition: usize,
        columns: &[&str],
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RunError>> + '_, RunError> {
        let fail = move |cause| self.session.failed(self.first(), Some(partition), cause);
        let batches = self.batches(partition, columns).map_err(fail)?;
        Ok(batches.map(move |batch| batch.map_err(fail)))
    }

    /// Rows `first..first + count` (fewer at the end of the table): the named columns in order, then `reject`.
    pub fn read(&self, first: u64, count: usize, columns: &[&str]) -> Result<RecordBatch, RunError> {
        let (mut skip, mut left) = (first, count as u64);
        let mut found = Vec::new();
        let mut schema = None;
        for partition in 0..self.partitions() {
            if left == 0 && schema.is_some() {
                break;
            }
            let rows = self.rows(partition)?;
            if skip >= rows && partition + 1 < self.partitions() {
                skip -= rows;
                continue;
            }
            let fail = |cause| self.session.failed(self.first(), Some(partition), cause);
            for batch in self.batches(partition, columns).map_err(fail)? {
                let batch = batch.map_err(fail)?;
                schema.get_or_insert_with(|| batch.schema());
                let rows = batch.num_rows() as u64;
                let (from, length) = (skip.min(rows), left.min(rows - skip.min(rows)));
                skip -= from;
                left -= length;
                found.push(batch.slice(from as usize, length as usize));
                if left == 0 {
                    break;
                }
            }
        }
        let Some(schema) = schema else {
            return Ok(RecordBatch::new_empty(arrow::datatypes::Schema::empty().into()));
        };
        concat_batches(&schema, &found).map_err(|cause| self.session.failed(self.first(), None, cause.into()))
    }

    /// Single rows of one partition of the table that makes the first of `columns`, in any order: those columns, then `reject`.
    pub fn take(&self, partition: usize, rows: &[usize], columns: &[&str]) -> Result<RecordBatch, RunError> {
        let graph = self.session.graph;
        let makes = |node: &NodeIndex| {
            let output = graph.nodes[*node].output().unwrap_or_default();
            columns.first().is_some_and(|column| output.get(column).is_some())
        };
        let node = graph.makers(&self.nodes).into_iter().find(makes).unwrap_or_else(|| self.first());
        let reader = Reader { session: &self.session, tasks: &self.tasks, opener: self };
        let taken = Rows::new(reader, node, partition).take(rows, columns);
        taken.map_err(|cause| self.session.failed(node, Some(partition), cause))
    }

    fn rows(&self, partition: usize) -> Result<u64, RunError> {
        let graph = self.session.graph;
        let stored = self
            .session
            .graph
            .makers(&self.nodes)
            .into_iter()
            .find_map(|node| self.entry_of(node, partition));
        let source = graph.source_of(self.first()).unwrap_or(self.first());
        stored.map_or_else(
            || {
                let counted = self.session.source_rows(source, partition);
                counted.map_err(|cause| self.session.failed(self.first(), Some(partition), cause))
            },
            |entry| Ok(entry.rows),
        )
    }

    fn entry_of(&self, node: NodeIndex, partition: usize) -> Option<Entry> {
        self.tasks.id(node, Pass::Main, partition).and_then(|id| self.entries.entry(id))
    }

    /// The named columns of one partition, then `reject`, batch by batch.
    fn batches(
        &self,
        partition: usize,
        columns: &[&str],
    ) -> Result<crate::spec::stage::BatchIterator<'_>, StageError> {
        let columns: Vec<&str> = columns.iter().copied().filter(|name| *name != REJECT).collect();
        let reader = Reader { session: &self.session, tasks: &self.tasks, opener: self };
        let tables = self.nodes.clone();
        view::batches(reader, &InputGroup { tables, weight: 1.0 }, partition, &columns)
    }
}

impl Opener for Table<'_> {
    fn open(&self, id: TaskId, _whole: bool) -> Result<ArrowFile, StageError> {
        let stage = self.session.name(self.tasks.all[id].node);
        let missing =
            || StageError::new(format!("`{stage}` is not there yet")).help("Run the manifest first.");
        let entry = self.entries.entry(id).ok_or_else(missing)?;
        let content = Address::table(stage, &entry.digest);
        let path = self.session.store.content(&content)?.ok_or_else(missing)?;
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if !checked.contains(&id) {
            let (digest, _) = at(&path, hash_file(&path))?;
            if digest.to_hex().as_str() != entry.digest {
                self.session.store.mark(&content, true)?;
                let text = format!("{} is damaged", path.display());
                return Err(StageError::new(text).help("The next run makes it again."));
            }
            checked.insert(id);
        }
        ArrowFile::open(&path)
    }
}
