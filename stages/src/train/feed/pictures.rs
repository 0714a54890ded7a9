//! The pictures of rows: pixels or features, wherever the run keeps them.

use super::shards::{Place, Units};
use crate::arrays::{column, item_range};
use arrow::array::{Array, FixedSizeBinaryArray, ListArray, StringArray};
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{JobContext, RowAccess};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The form in which pictures come.
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

    /// What the stages behind input `input` make: features, if `encode-images` is among them and the vision tower learns
    /// nothing.
    pub fn of(context: &dyn JobContext, input: usize, trains_vision: bool) -> Result<Self, StageError> {
        let encoded = context.lineage(input)?.iter().any(|stage| stage.kind == "encode-images");
        Ok(if encoded && !trains_vision { Self::Features } else { Self::Pixels })
    }
}

/// Rows' pictures, by their place in the tables behind the shards.
pub struct Pictures<'a> {
    context: &'a dyn JobContext,
    input: usize,
    units: &'a Units<'a>,
    pub form: Form,
    /// Which table of each group has the column.
    tables: Mutex<BTreeMap<u32, usize>>,
    open: Mutex<BTreeMap<(u32, u32), Arc<dyn RowAccess + 'a>>>,
}

impl<'a> Pictures<'a> {
    pub fn new(context: &'a dyn JobContext, input: usize, units: &'a Units<'a>, form: Form) -> Self {
        Self { context, input, units, form, tables: Mutex::default(), open: Mutex::default() }
    }

    /// The bytes of all pictures of `places` (rows and how many pictures each must have), in order.
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
        let table = self.access(*first)?.take(&numbers, &[self.form.column()])?;
        let pictures: &ListArray = column(&table, self.form.column())?;
        let rejects: &StringArray = column(&table, "reject")?;
        let bytes = pictures.values().as_any().downcast_ref::<FixedSizeBinaryArray>();
        let bytes = bytes
            .ok_or_else(|| StageError::new(format!("`{}` is no list of pictures", self.form.column())))?;
        for (n, (place, count)) in rows.iter().enumerate() {
            let range = if pictures.is_valid(n) { item_range(pictures, n) } else { 0..0 };
            if rejects.is_valid(n) || range.len() != *count as usize {
                let why = if rejects.is_valid(n) { rejects.value(n).to_owned() } else { String::new() };
                return Err(other_pictures(*place, *count, range.len(), &why));
            }
            found.insert(*place, range.flat_map(|picture| bytes.value(picture)).copied().collect());
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

    /// Which table of the row's group has pictures.
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
        Err(no_pictures(self.form, &names, cause))
    }
}

fn no_pictures(form: Form, names: &[String], cause: Option<StageError>) -> StageError {
    let error = StageError::new(format!(
        "rows have pictures, but none of the tables {} gives `{}`",
        names.join(", "),
        form.column()
    ))
    .help("Name the stage `decode-resize` or `encode-images` in the `from` of the shard stage.");
    match cause {
        Some(cause) => error.because(cause),
        None => error,
    }
}

fn other_pictures(place: Place, count: u32, found: usize, why: &str) -> StageError {
    let Place { group, partition, row } = place;
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    StageError::new(format!(
        "row {row} of partition {partition} (group {group}) has {count} pictures in its shard, but {found} in its \
         table{why}"
    ))
    .help("Run `llavm verify` to find damaged files.")
}
