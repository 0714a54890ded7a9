//! What a gather stage sees of one partition of a group of tables.

use super::assemble::{Assembled, Assembler};
use super::read::Reader;
use super::rejects;
use crate::keys::builder::KeyBuilder;
use crate::keys::recipe::{Read, Recipe};
use crate::spec::error::StageError;
use crate::spec::graph::InputGroup;
use crate::spec::stage::{BatchIterator, Digest, PartitionView};
use crate::store::Address;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use std::path::PathBuf;
use std::sync::Arc;

/// One partition of a group.
pub struct View<'a> {
    pub reader: Reader<'a>,
    pub group: &'a InputGroup,
    pub partition: usize,
    pub first_row: u64,
    pub rows: u64,
    /// By table: file relative to the store.
    files: Vec<Option<PathBuf>>,
    digests: Vec<Digest>,
}

impl<'a> View<'a> {
    /// Everything the group's tables need must be there.
    pub fn new(
        reader: Reader<'a>,
        parts: &KeyBuilder<'_>,
        group: &'a InputGroup,
        partition: usize,
        first_row: u64,
        rows: u64,
    ) -> Result<Self, StageError> {
        let (mut files, mut digests) = (Vec::new(), Vec::new());
        for &node in &group.tables {
            let digest = parts.digest(&Read { node, columns: Vec::new() }, partition)?;
            let digest =
                digest.ok_or_else(|| StageError::new(format!("partition {partition} is not there")))?;
            let session = reader.session;
            let file = session.is_stored(node).then(|| Address::table(session.name(node), &digest));
            files.push(file.map(|content| content.content_name()));
            digests.push(
                Digest::from_hex(&digest)
                    .map_err(|cause| StageError::new("a broken digest").because(cause))?,
            );
        }
        Ok(Self { reader, group, partition, first_row, rows, files, digests })
    }
}

impl PartitionView for View<'_> {
    fn index(&self) -> usize {
        self.partition
    }

    fn first_row(&self) -> u64 {
        self.first_row
    }

    fn rows(&self) -> usize {
        self.rows as usize
    }

    fn batches(&self, columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        batches(self.reader, self.group, self.partition, columns)
    }

    fn files(&self) -> Vec<Option<PathBuf>> {
        self.files.clone()
    }

    fn digests(&self) -> Vec<Digest> {
        self.digests.clone()
    }
}

/// The named columns of one partition of a group, and `reject`.
pub fn batches<'a>(
    reader: Reader<'a>,
    group: &InputGroup,
    partition: usize,
    columns: &[&str],
) -> Result<BatchIterator<'a>, StageError> {
    let recipe = Arc::new(Recipe::new(reader.session.graph, group, columns)?);
    let assembler = Assembler::open(reader.session, &recipe)?;
    let leaves = reader.leaves(&recipe, partition)?;
    Ok(Box::new(leaves.map(move |batches| with_rejects(assembler.assemble(batches?)?))))
}

/// The wanted columns, then `reject`.
pub fn with_rejects(assembled: Assembled) -> Result<RecordBatch, StageError> {
    let mut fields: Vec<_> = assembled.rows.schema().fields().iter().cloned().collect();
    fields.push(rejects::field());
    let mut arrays: Vec<ArrayRef> = assembled.rows.columns().to_vec();
    arrays.push(Arc::new(assembled.rejects));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}
