//! Typed access to the columns of a batch, and lists built row by row.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, ListArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
    UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema};
use llavm_pipeline::{Rejects, StageError};
use std::sync::Arc;

/// `list<item>` as every stage writes it.
pub fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

/// The column `name` as an array of type `T`.
pub fn column<'a, T: Array + 'static>(rows: &'a RecordBatch, name: &str) -> Result<&'a T, StageError> {
    let column = rows.column_by_name(name);
    column.and_then(|column| column.as_any().downcast_ref::<T>()).ok_or_else(|| {
        StageError::new(format!("the column `{name}` is missing or of another type than declared"))
    })
}

/// The items of list `row`, which must not be null, as a slice of native values.
pub fn items<T: ArrowPrimitiveType>(lists: &ListArray, row: usize) -> Result<&[T::Native], StageError> {
    let values = lists.values().as_any().downcast_ref::<PrimitiveArray<T>>();
    let values = values.ok_or_else(|| StageError::new("a list holds another type than declared"))?;
    let range = item_range(lists, row);
    Ok(&values.values()[range])
}

/// Where the items of list `row` lie in the list's values.
pub fn item_range(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offsets = lists.value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

/// The counts of the rows that are fine, null for the others.
pub fn counts_of_kept(counts: &UInt32Array, rejects: &Rejects) -> ArrayRef {
    let kept = counts.iter().enumerate().map(|(row, count)| count.filter(|_| !rejects.is_rejected(row)));
    Arc::new(kept.collect::<UInt32Array>())
}

/// Where the lists of a column begin and end, and which are null.
#[derive(Debug, Default)]
pub struct Lists {
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl Lists {
    pub fn with_capacity(rows: usize) -> Self {
        Self { lengths: Vec::with_capacity(rows), valid: Vec::with_capacity(rows) }
    }

    /// Closes a row that holds `items` items.
    pub fn push(&mut self, items: usize) {
        self.lengths.push(items);
        self.valid.push(true);
    }

    /// Closes a row that is null.
    pub fn push_null(&mut self) {
        self.lengths.push(0);
        self.valid.push(false);
    }

    /// The column, given the items of all rows one after the other.
    pub fn finish(&self, items: ArrayRef) -> Result<ArrayRef, StageError> {
        let field = Arc::new(Field::new("item", items.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(self.lengths.iter().copied());
        let nulls = self.valid.contains(&false).then(|| NullBuffer::from(self.valid.clone()));
        Ok(Arc::new(ListArray::try_new(field, offsets, items, nulls)?))
    }
}

/// A batch of `rows` rows with one column or none.
pub(crate) fn batch_of(column: Option<(&str, ArrayRef)>, rows: usize) -> Result<RecordBatch, StageError> {
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(column.iter().map(field).collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let columns = column.into_iter().map(|(_, column)| column).collect();
    Ok(RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?)
}
