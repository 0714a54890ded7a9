//! The rows' images, and which rows show the same.

use super::rows::Row;
use crate::arrays::column;
use crate::asking::seen::Seen;
use crate::image_lists::ImageLists;
use arrow::array::{Array, RecordBatch, StringArray};
use llavm_pipeline::StageError;
use std::collections::{BTreeMap, BTreeSet};

/// Rows whose images are read together.
const AT_ONCE: usize = 32;

/// Reads the named rows of a partition of a group: `pixels` and `reject`.
pub type Fetch<'a> = &'a dyn Fn(usize, usize, &[usize]) -> Result<RecordBatch, StageError>;

/// What the rows show.
#[derive(Default)]
pub struct Images {
    /// The images, by number.
    pub seen: Seen,
    /// The number of what each row shows. `None` without.
    pub shown: Vec<Option<usize>>,
    /// Why a row's images cannot be used, where they cannot.
    pub rejects: Vec<Option<String>>,
}

impl Images {
    /// Reads the images of all rows, `size` pixels a side. `done` is called for every run of rows.
    pub fn of(
        rows: &[Row],
        size: u32,
        fetch: Fetch<'_>,
        done: &dyn Fn(usize) -> Result<(), StageError>,
    ) -> Result<Self, StageError> {
        let mut images =
            Self { seen: Seen::default(), shown: vec![None; rows.len()], rejects: vec![None; rows.len()] };
        each_run(rows, fetch, &mut |found| {
            for (at, cell) in found {
                match cell {
                    Ok(bytes) => {
                        check_size(&rows[*at], bytes.len(), size)?;
                        let digest = blake3::hash(bytes).to_hex();
                        images.shown[*at] = Some(images.seen.add(&digest, bytes));
                    }
                    Err(reason) => images.rejects[*at] = Some(reason.clone()),
                }
            }
            done(found.len())
        })?;
        Ok(images)
    }

    /// The digest of what a row shows.
    pub fn digest(&self, row: usize) -> Option<String> {
        self.shown[row].map(|number| self.seen.digest(number).to_owned())
    }

    /// How many different images some rows show.
    pub fn count(&self, rows: &[usize]) -> usize {
        rows.iter().filter_map(|row| self.shown[*row]).collect::<BTreeSet<_>>().len()
    }
}

/// A row with the bytes of its images, or why there are none.
type Found = (usize, Result<Vec<u8>, String>);

/// Hands over the images of all rows that have any, some rows at a time.
pub fn each_run(
    rows: &[Row],
    fetch: Fetch<'_>,
    take: &mut dyn FnMut(&[Found]) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let mut partitions: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| row.n_images > 0) {
        partitions.entry((row.place.group, row.place.partition)).or_default().push(at);
    }
    for ((group, partition), members) in partitions {
        for members in members.chunks(AT_ONCE) {
            let places: Vec<usize> = members.iter().map(|at| rows[*at].place.row).collect();
            let batch = fetch(group, partition, &places)?;
            let found: Result<Vec<Found>, StageError> =
                members.iter().enumerate().map(|(n, at)| Ok((*at, bytes(&batch, n)?))).collect();
            take(&found?)?;
        }
    }
    Ok(())
}

/// The pixels of row `n` of a batch, `[3, size, size]` for each image.
fn bytes(batch: &RecordBatch, n: usize) -> Result<Result<Vec<u8>, String>, StageError> {
    let rejects: &StringArray = column(batch, "reject")?;
    if rejects.is_valid(n) {
        return Ok(Err(rejects.value(n).to_owned()));
    }
    Ok(Ok(ImageLists::of(batch, "pixels")?.row(n).flatten().flatten().copied().collect()))
}

/// Every image must be of the size that the vision tower takes.
fn check_size(row: &Row, bytes: usize, size: u32) -> Result<(), StageError> {
    let expected = row.n_images as usize * 3 * (size as usize).pow(2);
    if bytes == expected {
        return Ok(());
    }
    let text = format!(
        "row {}: {bytes} bytes of pixels for {} images; the vision tower takes {size} × {size} RGB",
        row.id, row.n_images
    );
    Err(StageError::new(text).help("Set `size` of decode-resize to the tower's `image_size`."))
}
