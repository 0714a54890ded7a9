//! The column `reject`: `<kind>/<code>: <detail>` where a row cannot be used, null where it can.

use crate::spec::error::StageError;
use crate::spec::rejects::{Reason, Rejects};
use crate::store::record::{RejectedRow, TableRecord};
use arrow::array::{Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use std::sync::Arc;

/// The name of the column.
pub const REJECT: &str = "reject";

/// The field of the column.
pub fn field() -> FieldRef {
    Arc::new(Field::new(REJECT, DataType::Utf8, true))
}

/// The column of a batch.
pub fn column(batch: &RecordBatch) -> Result<StringArray, StageError> {
    let column =
        batch.column_by_name(REJECT).and_then(|column| column.as_any().downcast_ref::<StringArray>());
    column.cloned().ok_or_else(|| StageError::new("a batch has no column `reject` of type utf8"))
}

/// The first reason of each row among several columns.
pub fn first_of(columns: &[&StringArray], rows: usize) -> StringArray {
    let mut given = columns.iter().filter(|column| column.null_count() < column.len());
    match (given.next(), given.next()) {
        (None, _) => StringArray::new_null(rows),
        (Some(only), None) => (*only).clone(),
        _ => (0..rows)
            .map(|row| columns.iter().find(|column| column.is_valid(row)).map(|column| column.value(row)))
            .collect(),
    }
}

/// What a stage sees of the rejects before it.
pub fn earlier(column: &StringArray) -> Rejects {
    Rejects::after((0..column.len()).map(|row| column.is_valid(row)).collect())
}

/// The new rejects of a stage, by row of the batch.
pub fn new_rows(kind: &str, rejects: &Rejects) -> Vec<RejectedRow> {
    rejects
        .new_rejects()
        .map(|(row, reject)| RejectedRow { row: row as u64, reason: Reason::new(kind, reject) })
        .collect()
}

/// The column after a stage: the reasons before it stay, new ones are added.
pub fn after(column: &StringArray, new: &[RejectedRow]) -> StringArray {
    if new.is_empty() {
        return column.clone();
    }
    let mut new = new.iter().peekable();
    (0..column.len())
        .map(|row| match new.next_if(|reject| reject.row == row as u64) {
            Some(reject) => Some(reject.reason.to_string()),
            None => column.is_valid(row).then(|| column.value(row).to_owned()),
        })
        .collect()
}

/// Adds a column to the hash that [`crate::store::record::TableRecord::reject_digest`] holds.
pub fn hash(hasher: &mut blake3::Hasher, first_row: u64, column: &StringArray) {
    for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
        let text = column.value(row);
        hasher.update(&(first_row + row as u64).to_le_bytes()).update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
}

/// The column as a record tells it; `None` where earlier stages have rejected rows, which it does not list.
pub fn told(record: &TableRecord) -> Option<StringArray> {
    if record.usable != record.rows {
        return None;
    }
    let rows = usize::try_from(record.rows).ok()?;
    let column = after(&StringArray::new_null(rows), &record.rejects);
    let mut hasher = blake3::Hasher::new();
    hash(&mut hasher, 0, &column);
    (hasher.finalize().to_hex().as_str() == record.reject_digest).then_some(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays_and_new_ones_are_added() {
        let before = StringArray::from(vec![None, Some("read/broken: x"), None]);
        let mut rejects = earlier(&before);
        rejects.reject(1, "late", "never seen");
        rejects.reject(2, "bad", "now");
        let new = new_rows("toy", &rejects);
        let column = after(&before, &new);
        assert_eq!(column, StringArray::from(vec![None, Some("read/broken: x"), Some("toy/bad: now")]));
        assert_eq!(Reason::from(column.value(2)).code(), "toy/bad");
    }

    #[test]
    fn of_several_tables_the_first_reason_of_a_row_counts() {
        let a = StringArray::from(vec![None, Some("a/x: 1"), None]);
        let b = StringArray::from(vec![None, Some("b/y: 2"), Some("b/y: 3")]);
        assert_eq!(first_of(&[&a, &b], 3), StringArray::from(vec![None, Some("a/x: 1"), Some("b/y: 3")]));
        assert_eq!(first_of(&[&a], 3), a);
        assert_eq!(first_of(&[], 2), StringArray::new_null(2));
    }

    #[test]
    fn a_record_tells_the_column_unless_earlier_stages_have_rejected_rows() {
        let column = StringArray::from(vec![None, Some("toy/bad: now"), None]);
        let mut hasher = blake3::Hasher::new();
        hash(&mut hasher, 0, &column);
        let mut record = TableRecord {
            rows: 3,
            batches: 1,
            bytes: 1,
            digest: String::new(),
            reject_digest: hasher.finalize().to_hex().to_string(),
            usable: 3,
            longest_run: 1,
            rejects: vec![RejectedRow { row: 1, reason: "toy/bad: now".into() }],
            derived: Vec::new(),
            key: crate::store::key::KeyParts {
                kind: String::new(),
                version: 1,
                params: serde_json::Value::Null,
                resources: std::collections::BTreeMap::new(),
                inputs: Vec::new(),
                context: std::collections::BTreeMap::new(),
            },
        };
        assert_eq!(told(&record), Some(column));
        record.rejects[0].row = 2;
        assert_eq!(told(&record), None, "its digest says something else");
        (record.rejects[0].row, record.usable) = (1, 2);
        assert_eq!(told(&record), None);
    }
}
