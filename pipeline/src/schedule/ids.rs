//! The ids of rejected rows, read from the source again and remembered by its content.

use super::run::Run;
use crate::keys::session::Session;
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::rejects::Reason;
use crate::spec::stage::OpenContext;
use crate::spec::summary::RejectExample;
use arrow::array::{Array, StringArray};

impl Run<'_> {
    pub(super) fn example(
        &self,
        node: NodeIndex,
        partition: usize,
        row: u64,
        reason: Reason,
    ) -> RejectExample {
        let id = ids(self.session, node, partition, &[row]).into_iter().next().unwrap_or_default();
        RejectExample { id, reason }
    }
}

/// The ids of some rows of a partition, in order; the place of a row where its id cannot be had.
pub fn ids(session: &Session<'_>, node: NodeIndex, partition: usize, rows: &[u64]) -> Vec<String> {
    let found = read(session, node, partition, rows).unwrap_or_default();
    let mut found = found.into_iter();
    let place = |row: &u64| format!("row {row} of {}", session.label(node, partition));
    rows.iter().map(|row| found.next().flatten().unwrap_or_else(|| place(row))).collect()
}

fn read(
    session: &Session<'_>,
    node: NodeIndex,
    partition: usize,
    rows: &[u64],
) -> Result<Vec<Option<String>>, StageError> {
    let source = session.graph.source_of(node).ok_or_else(|| StageError::new("no source"))?;
    let content = session.source_digest(source, partition, &["id".to_owned()])?;
    let mut wanted = blake3::Hasher::new();
    for row in rows {
        wanted.update(&row.to_le_bytes());
    }
    let key = format!("ids/{}/{}", content.to_hex(), wanted.finalize().to_hex());
    let mut compute = || {
        let mut found = Vec::with_capacity(rows.len());
        let mut rows = rows.iter().copied().peekable();
        let mut first = 0;
        for batch in session.source_batches(source, partition, &["id"])? {
            let batch = batch?;
            let end = first + batch.num_rows() as u64;
            let ids = batch.column_by_name("id").and_then(|ids| ids.as_any().downcast_ref::<StringArray>());
            while let Some(row) = rows.next_if(|row| *row < end) {
                let at = (row - first) as usize;
                found.push(ids.filter(|ids| ids.is_valid(at)).map(|ids| ids.value(at).to_owned()));
            }
            first = end;
            if rows.peek().is_none() {
                break;
            }
        }
        serde_json::to_vec(&found).map_err(|cause| StageError::new("ids").because(cause))
    };
    let bytes = session.digests.remembered(&key, &mut compute)?;
    serde_json::from_slice(&bytes).map_err(|cause| StageError::new("remembered ids").because(cause))
}
