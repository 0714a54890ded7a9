//! What a source says of its partitions: their digests, rows and counts, with the source named in every error.

use super::Session;
use crate::spec::error::{Origin, StageError};
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use crate::spec::stage::{BatchIterator, Digest, OpenContext};
use arrow::array::RecordBatch;

/// The column that names a row to people.
const ID: &str = "id";

impl Session<'_> {
    /// The digest of the named columns of a source partition, with the kind that reads them.
    pub fn source_digest(
        &self,
        node: NodeIndex,
        partition: usize,
        columns: &[String],
    ) -> Result<Digest, StageError> {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let content = catch("on a digest", || self.source(node)?.digest(partition, &columns));
        let content = content.map_err(|error| error.at(self.origin(node, partition)))?;
        let stage = &self.graph.nodes[node].stage;
        let text = format!("{} {} {}", stage.kind, stage.version, content.to_hex());
        Ok(blake3::hash(text.as_bytes()))
    }

    /// As [`Session::source_digest`], for a stage that copies ids: a new name of a file does not change it.
    pub fn copied_digest(
        &self,
        node: NodeIndex,
        partition: usize,
        columns: &[String],
    ) -> Result<Digest, StageError> {
        let others: Vec<String> = columns.iter().filter(|column| *column != ID).cloned().collect();
        let content = self.source_digest(node, partition, &others)?;
        if others.len() == columns.len() {
            return Ok(content);
        }
        let ids = catch("on a digest", || self.source(node)?.ids_digest(partition));
        let ids = ids.map_err(|error| error.at(self.origin(node, partition)))?;
        Ok(blake3::hash(format!("{} {}", content.to_hex(), ids.to_hex()).as_bytes()))
    }

    /// The named columns of one partition of a source, and `reject`. A panic of the source is an error.
    pub fn source_batches(
        &self,
        node: NodeIndex,
        partition: usize,
        columns: &[&str],
    ) -> Result<BatchIterator<'_>, StageError> {
        let origin = self.origin(node, partition);
        match catch("while reading", || self.source(node)?.batches(partition, columns)) {
            Ok(batches) => Ok(Box::new(Caught { batches: Some(batches), origin })),
            Err(error) => Err(error.at(origin)),
        }
    }

    /// How many rows a source partition has; remembered by its content.
    pub fn source_rows(&self, node: NodeIndex, partition: usize) -> Result<u64, StageError> {
        let key = format!("rows/{}", self.source_digest(node, partition, &[])?.to_hex());
        let mut count = || {
            let mut rows = 0_u64;
            for batch in self.source_batches(node, partition, &[])? {
                rows += batch?.num_rows() as u64;
            }
            Ok(rows.to_le_bytes().to_vec())
        };
        let bytes = self.digests.remembered(&key, &mut count)?;
        let bytes = bytes.try_into().map_err(|_| StageError::new("a remembered row count is broken"))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Batches of a source; a panic ends them with an error, and every error names the source.
struct Caught<'a> {
    batches: Option<BatchIterator<'a>>,
    origin: Origin,
}

impl Iterator for Caught<'_> {
    type Item = Result<RecordBatch, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batches = self.batches.take()?;
        let next = catch("while reading", || batches.next().transpose());
        if matches!(next, Ok(Some(_))) {
            self.batches = Some(batches);
        }
        next.map_err(|error| error.at(self.origin.clone())).transpose()
    }
}
