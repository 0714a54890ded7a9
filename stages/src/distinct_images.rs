//! `distinct-images`: which images stand in a table for the first time, and where the others stood before.
//!
//! In: `image_digests`, one for each image of a row. Out: `origins`, for each image its digest and, where an earlier row of the table
//! has the same image, that row's partition, its number there and the image's place in it; null where it stands here for the first time.
//!
//! No manifest names it: [`crate::decode_resize`] has it made beside its rows, and decodes only what stands here first. Rows that
//! were rejected before have no origins and are nobody's. The digests are a pure function of a row; the rest is a pass in row
//! order, so that what a partition holds depends on the rows before it and on nothing else: not on threads, not on what is
//! done first. A changed image makes the digests of its partition again, and the pass after it; a partition whose origins come
//! out the same keeps its pixels.

use crate::arrays::{Lists, column, item_range};
use crate::first_seen::FirstSeen;
use crate::image_lists::{ImageDigest, Origin, OriginLists, digest_array, digests_list, origins_list};
use arrow::array::{Array, FixedSizeBinaryArray, ListArray, RecordBatch, new_null_array};
use arrow::datatypes::Schema;
use llavm_pipeline::stage::{Apply, Beside, MapStage, OpenContext, Parameters, SequentialPass};
use llavm_pipeline::{Columns, Rejects, StageError};
use std::sync::Arc;

/// The first of equal images.
pub struct DistinctImages;

impl DistinctImages {
    /// What a stage that decodes images asks for.
    pub fn beside() -> Beside {
        Beside { suffix: "distinct", kind: "distinct-images", version: 1, stage: Arc::new(Self) }
    }
}

impl Parameters for DistinctImages {}

impl MapStage for DistinctImages {
    fn input(&self) -> Columns {
        Columns::new().with("image_digests", digests_list())
    }

    fn output(&self) -> Columns {
        Columns::new().with("origins", origins_list())
    }

    fn intermediate(&self) -> Columns {
        Columns::new().with("digests", digests_list())
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Ok(Box::new(digests))
    }

    fn sequential(&self) -> Option<Box<dyn SequentialPass>> {
        Some(Box::new(Seen::default()))
    }
}

/// The digests of the rows that are not rejected. Where no pass follows, when single rows are made again, nothing is known to stand elsewhere.
fn digests(rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
    let given: &ListArray = column(rows, "image_digests")?;
    let values = digests_of(given)?;
    let mut lists = Lists::with_capacity(rows.num_rows());
    let mut digests: Vec<ImageDigest> = Vec::with_capacity(values.len());
    for row in 0..rows.num_rows() {
        if rejects.is_rejected(row) || given.is_null(row) {
            lists.push_null();
            continue;
        }
        let items = item_range(given, row);
        lists.push(items.len());
        for item in items {
            digests.push(digest(values, item)?);
        }
    }
    let items = digest_array(&digests)?;
    let columns = vec![lists.finish(Arc::new(items))?, new_null_array(&origins_list(), rows.num_rows())];
    let fields = [DistinctImages.intermediate(), DistinctImages.output()].map(|columns| columns.schema());
    let fields: Vec<_> = fields.iter().flat_map(|schema| schema.fields().iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn digests_of(lists: &ListArray) -> Result<&FixedSizeBinaryArray, StageError> {
    let digests = lists.values().as_any().downcast_ref::<FixedSizeBinaryArray>();
    digests.ok_or_else(|| StageError::new("a list of digests holds something else"))
}

fn digest(digests: &FixedSizeBinaryArray, item: usize) -> Result<ImageDigest, StageError> {
    ImageDigest::try_from(digests.value(item)).map_err(|_| StageError::new("a digest of another length"))
}

/// The images of the rows so far, each with where it stood first: about 25 bytes an image.
#[derive(Default)]
struct Seen {
    /// The row among all rows so far, and the item in it.
    first: FirstSeen<(u32, u32)>,
    /// The partitions so far, and how many rows were before each.
    partitions: Vec<(u32, u64)>,
    rows: u64,
    partition: u32,
    /// The next row of the partition.
    row: u32,
}

impl SequentialPass for Seen {
    fn begin(&mut self, partition: usize) {
        (self.partition, self.row) = (partition as u32, 0);
        self.partitions.push((self.partition, self.rows));
    }

    fn next(&mut self, rows: &RecordBatch, rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        let lists: &ListArray = column(rows, "digests")?;
        let digests = digests_of(lists)?;
        let mut origins = OriginLists::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if rejects.is_rejected(row) || lists.is_null(row) {
                origins.push_null();
            } else {
                for (item, at) in (0..).zip(item_range(lists, row)) {
                    let digest = digest(digests, at)?;
                    origins.item(digest, self.origin(digest, item));
                }
                origins.push();
            }
            self.row += 1;
            self.rows += 1;
        }
        let schema = DistinctImages.output().schema();
        Ok(RecordBatch::try_new(schema, vec![origins.finish()?])?)
    }
}

impl Seen {
    /// Where an image of the current row stood before.
    fn origin(&mut self, digest: ImageDigest, item: u32) -> Option<Origin> {
        // An image behind the rows that can be counted is one of its own.
        let number = u32::try_from(self.rows).unwrap_or(u32::MAX);
        let (row, item) = self.first.before(*digest.first_chunk()?, (number, item))?;
        let at = self.partitions.partition_point(|(_, before)| *before <= u64::from(row)).checked_sub(1)?;
        let (partition, before) = *self.partitions.get(at)?;
        Some(Origin { partition, row: (u64::from(row) - before) as u32, item })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_lists::{Origins, image_digest};

    fn images(rows: &[&[&str]]) -> RecordBatch {
        let mut lists = Lists::with_capacity(rows.len());
        rows.iter().for_each(|row| lists.push(row.len()));
        let digests: Vec<_> = rows
            .iter()
            .copied()
            .flatten()
            .map(|image| image_digest(&blake3::hash(image.as_bytes())))
            .collect();
        let lists = lists.finish(Arc::new(digest_array(&digests).unwrap())).unwrap();
        RecordBatch::try_from_iter_with_nullable([("image_digests", lists, true)]).unwrap()
    }

    fn places(rows: &RecordBatch) -> Vec<Option<(u32, u32, u32)>> {
        let origins = Origins::of(rows).unwrap();
        let all = 0..rows.num_rows();
        let place = |origin: Origin| (origin.partition, origin.row, origin.item);
        all.flat_map(|row| origins.row(row).map(|(_, origin)| origin.map(place)).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn an_image_that_stood_in_any_earlier_row_points_there() {
        let mut pass = Seen::default();
        let mut given = |partition: usize, rows: &[&[&str]], rejected: Option<usize>| {
            let mut rejects = Rejects::after((0..rows.len()).map(|row| Some(row) == rejected).collect());
            let rows = digests(&images(rows), &mut rejects).unwrap();
            pass.begin(partition);
            pass.next(&rows, &mut rejects).unwrap()
        };
        let first = given(0, &[&["a", "b"], &["b", "c", "b"], &[]], None);
        assert_eq!(places(&first), [None, None, Some((0, 0, 1)), None, Some((0, 0, 1))]);
        let second = given(3, &[&["d"], &["e", "c"], &["d", "e"]], Some(0));
        assert!(second.column(0).is_null(0), "a row that was rejected before has none");
        assert_eq!(places(&second), [None, Some((0, 1, 1)), None, Some((3, 1, 0))]);
    }

    #[test]
    fn single_rows_stand_where_they_are() {
        let alone = digests(&images(&[&["a"], &["a"]]), &mut Rejects::none(2)).unwrap();
        assert_eq!(alone.column_by_name("origins").unwrap().null_count(), 2);
    }
}
