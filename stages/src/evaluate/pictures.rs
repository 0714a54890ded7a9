//! The rows' pictures: features computed once, and which rows show the same.

use super::rows::Row;
use crate::arrays::{column, item_range};
use arrow::array::{Array, FixedSizeBinaryArray, ListArray, RecordBatch, StringArray};
use burn::tensor::Tensor;
use llavm_model::generate::assistant::Assistant;
use llavm_pipeline::StageError;
use std::collections::{BTreeMap, BTreeSet};

/// Rows whose pictures go through the vision tower together.
const AT_ONCE: usize = 32;

/// Reads the named rows of a partition of a group: `pixels` and `reject`.
pub type Fetch<'a> = &'a dyn Fn(usize, usize, &[usize]) -> Result<RecordBatch, StageError>;

/// What the rows show.
#[derive(Default)]
pub struct Pictures {
    /// Patch states of each row's pictures, `[pictures, patches, vision hidden]`; `None` without.
    pub features: Vec<Option<Tensor<3>>>,
    /// A number for what each row shows: equal numbers are equal pictures. `None` without.
    pub shown: Vec<Option<usize>>,
    /// Why a row's pictures cannot be used, where they cannot.
    pub rejects: Vec<Option<String>>,
}

impl Pictures {
    /// Reads the pictures of all rows and computes their features. `done` is told of every run of rows.
    pub fn of(
        rows: &[Row],
        assistant: &Assistant,
        fetch: Fetch<'_>,
        done: &dyn Fn(usize) -> Result<(), StageError>,
    ) -> Result<Self, StageError> {
        let mut pictures = Self {
            features: vec![None; rows.len()],
            shown: vec![None; rows.len()],
            rejects: vec![None; rows.len()],
        };
        let mut known = BTreeMap::new();
        let size = assistant.image_size();
        each_run(rows, fetch, &mut |found| {
            let mut pixels = Vec::new();
            let mut seen = Vec::new();
            for (at, cell) in found {
                match cell {
                    Ok(bytes) => {
                        let number = known.len();
                        let digest = *blake3::hash(bytes).as_bytes();
                        pictures.shown[*at] = Some(*known.entry(digest).or_insert(number));
                        check_size(&rows[*at], bytes.len(), size)?;
                        pixels.extend_from_slice(bytes);
                        seen.push(*at);
                    }
                    Err(reason) => pictures.rejects[*at] = Some(reason.clone()),
                }
            }
            pictures.take_features(rows, &seen, assistant.features(pixels));
            done(found.len())
        })?;
        Ok(pictures)
    }

    /// How many different pictures some rows show.
    pub fn count(&self, rows: &[usize]) -> usize {
        rows.iter().filter_map(|row| self.shown[*row]).collect::<BTreeSet<_>>().len()
    }

    /// Hands the features of one run to the rows `seen`, in order.
    fn take_features(&mut self, rows: &[Row], seen: &[usize], features: Option<Tensor<3>>) {
        let Some(features) = features else { return };
        let mut first = 0;
        for at in seen {
            let count = rows[*at].n_images as usize;
            self.features[*at] = Some(features.clone().narrow(0, first, count));
            first += count;
        }
    }
}

/// A row with the bytes of its pictures, or why there are none.
type Found = (usize, Result<Vec<u8>, String>);

/// Hands over the pictures of all rows that have any, some rows at a time.
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

/// The pixels of row `n` of a batch, `[3, size, size]` for each picture.
fn bytes(batch: &RecordBatch, n: usize) -> Result<Result<Vec<u8>, String>, StageError> {
    let rejects: &StringArray = column(batch, "reject")?;
    if rejects.is_valid(n) {
        return Ok(Err(rejects.value(n).to_owned()));
    }
    let lists: &ListArray = column(batch, "pixels")?;
    let cells = lists.values().as_any().downcast_ref::<FixedSizeBinaryArray>();
    let cells = cells.ok_or_else(|| StageError::new("`pixels` is not list<fixed_size_binary>"))?;
    Ok(Ok(item_range(lists, n).flat_map(|at| cells.value(at)).copied().collect()))
}

/// Every picture must be of the size that the vision tower takes.
fn check_size(row: &Row, bytes: usize, size: u32) -> Result<(), StageError> {
    let expected = row.n_images as usize * 3 * (size as usize).pow(2);
    if bytes == expected {
        return Ok(());
    }
    let text = format!(
        "row {}: {bytes} bytes of pixels for {} pictures; the vision tower takes {size} × {size} RGB",
        row.id, row.n_images
    );
    Err(StageError::new(text).help("Set `size` of decode-resize to the tower's `image_size`."))
}
