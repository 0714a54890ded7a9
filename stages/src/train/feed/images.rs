//! The images of rows: pixels or features, wherever the run keeps them.

use super::shards::{Place, Units};
use crate::arrays::column;
use crate::image_lists::{ImageLists, whole};
use arrow::array::{Array, StringArray};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, RowAccess};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The form in which images come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `pixels`: RGB bytes.
    Pixels,
    /// `features`: patch states in f16, little-endian.
    Features,
}

impl Form {
    fn column(self) -> &'static str {
        match self {
            Self::Pixels => "pixels",
            Self::Features => "features",
        }
    }

    /// What the stages behind input `input` make: features, if one of them makes these and the vision tower learns nothing.
    pub fn of(context: &dyn JobContext, input: usize, trains_vision: bool) -> Result<Self, StageError> {
        let encoded = context.lineage(input)?.iter().any(|stage| stage.makes(Self::Features.column()));
        Ok(if encoded && !trains_vision { Self::Features } else { Self::Pixels })
    }
}

/// Rows' images, by their place in the tables behind the shards.
pub struct ImageRows<'a> {
    context: &'a dyn JobContext,
    input: usize,
    units: &'a Units<'a>,
    pub form: Form,
    /// Which table of each group has the column.
    tables: Mutex<BTreeMap<u32, usize>>,
    open: Mutex<BTreeMap<(u32, u32), Arc<dyn RowAccess + 'a>>>,
}

impl<'a> ImageRows<'a> {
    pub fn new(context: &'a dyn JobContext, input: usize, units: &'a Units<'a>, form: Form) -> Self {
        Self { context, input, units, form, tables: Mutex::default(), open: Mutex::default() }
    }

    /// The bytes of all images of `places` (rows and how many images each must have), in order.
    pub fn read(&self, places: &[(Place, u32)]) -> Result<Vec<u8>, StageError> {
        let mut found: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
        let mut wanted = places.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        for rows in wanted.chunk_by(|(a, _), (b, _)| (a.group, a.partition) == (b.group, b.partition)) {
            self.read_partition(rows, &mut found)?;
        }
        Ok(places.iter().filter_map(|(place, _)| found.get(place)).flatten().copied().collect())
    }

    /// Rows of one partition.
    fn read_partition(
        &self,
        rows: &[(Place, u32)],
        found: &mut BTreeMap<Place, Vec<u8>>,
    ) -> Result<(), StageError> {
        let Some((first, _)) = rows.first() else { return Ok(()) };
        let numbers: Vec<usize> = rows.iter().map(|(place, _)| place.row as usize).collect();
        let columns = [self.form.column(), "origins"];
        let table = self.access(*first)?.take(&numbers, &columns)?;
        let table = whole(&table, self.form.column(), &mut |partition, rows| {
            self.access(Place { partition, ..*first })?.take(rows, &columns)
        })?;
        let images = ImageLists::of(&table, self.form.column())?;
        let rejects: &StringArray = column(&table, "reject")?;
        for (n, (place, count)) in rows.iter().enumerate() {
            if rejects.is_valid(n) || images.len(n) != *count as usize {
                let why = if rejects.is_valid(n) { rejects.value(n).to_owned() } else { String::new() };
                return Err(other_images(*place, *count, images.len(n), &why));
            }
            found.insert(*place, images.row(n).flatten().flatten().copied().collect());
        }
        Ok(())
    }

    /// The partition of `place`, opened once.
    fn access(&self, place: Place) -> Result<Arc<dyn RowAccess + 'a>, StageError> {
        let key = (place.group, place.partition);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(access) = open.get(&key) {
            return Ok(Arc::clone(access));
        }
        let (group, partition) = (place.group as usize, place.partition as usize);
        let table = self.table(place)?;
        let access: Arc<dyn RowAccess + 'a> =
            Arc::from(self.context.rows(self.input, group, table, partition)?);
        open.insert(key, Arc::clone(&access));
        Ok(access)
    }

    /// Which table of the row's group has images.
    fn table(&self, place: Place) -> Result<usize, StageError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&place.group) {
            return Ok(*table);
        }
        let names = self.units.get(0)?.and_then(|unit| unit.tables.get(place.group as usize).cloned());
        let names = names.unwrap_or_default();
        let (group, partition) = (place.group as usize, place.partition as usize);
        let mut cause = None;
        for table in 0..names.len() {
            let access = self.context.rows(self.input, group, table, partition)?;
            match access.take(&[place.row as usize], &[self.form.column()]) {
                Ok(_) => {
                    tables.insert(place.group, table);
                    return Ok(table);
                }
                Err(error) => cause = Some(error),
            }
        }
        Err(no_images(self.form, &names, cause))
    }
}

fn no_images(form: Form, names: &[String], cause: Option<StageError>) -> StageError {
    let error = StageError::new(format!(
        "rows have images, but none of the tables {} gives `{}`",
        names.join(", "),
        form.column()
    ))
    .help("Name the stage `decode-resize` or `encode-images` in the `from` of the shard stage.");
    match cause {
        Some(cause) => error.because(cause),
        None => error,
    }
}

fn other_images(place: Place, count: u32, found: usize, why: &str) -> StageError {
    let Place { group, partition, row } = place;
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    StageError::new(format!(
        "row {row} of partition {partition} (group {group}) has {count} images in its shard, but {found} in its \
         table{why}"
    ))
    .help("Run `llavm verify` to find damaged files.")
}
