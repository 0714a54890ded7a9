//! Some row groups of a file, large dictionaries loaded once.
//!
//! A set that shows each image in many rows may keep its images in the dictionaries of its row groups: gigabytes in a page that
//! every reader of the row group has to load. Here the page is kept until the last partition that needs it has it, and binary cells
//! are views into it instead of copies. Nested columns go through [`WholeLevels`].
//!
//! A page is kept for all files of a source together: what each file kept for itself would add up over a thousand files.

use super::levels::WholeLevels;
use super::page_rows::{self, Counted, PageRows};
use crate::read::section::Section;
use arrow::datatypes::{DataType, Field, Fields};
use llavm_pipeline::stage::Digest;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups, RowSelection};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes in the file from which on a dictionary is kept.
const LARGE: i64 = 8 << 20;
/// Row groups whose dictionaries are kept at most: partitions at a border, read at the same time, need those of both sides.
const GROUPS: usize = 2;

/// A row group of a file, known by the file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub file: Digest,
    pub index: usize,
    /// Partitions that have rows of it.
    pub partitions: usize,
}

/// The kept dictionaries of all files of a source.
#[derive(Debug, Default)]
pub struct Dictionaries {
    /// The one used last stands last.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    group: Group,
    leaf: usize,
    page: Page,
    /// Partitions that may still ask for it.
    left: usize,
}

impl Dictionaries {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The dictionary that `pages` begins with; read only if it is not among the kept ones. Who asks for it meanwhile waits
    /// instead of reading it too.
    fn page(
        &self,
        group: Group,
        leaf: usize,
        pages: &mut SerializedPageReader<Section>,
    ) -> Result<Option<Page>> {
        if group.partitions < 2 {
            return pages.get_next_page();
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|kept| (kept.group, kept.leaf) == (group, leaf));
        let mut dictionary = if let Some(at) = at {
            pages.skip_next_page()?;
            kept.remove(at)
        } else {
            // Room is made first: while it is read, a page is there compressed and uncompressed.
            keep_latest(&mut kept, GROUPS - 1);
            let Some(page) = pages.get_next_page()? else { return Ok(None) };
            Kept { group, leaf, page, left: group.partitions }
        };
        dictionary.left -= 1;
        let page = dictionary.page.clone();
        if dictionary.left > 0 {
            kept.push(dictionary);
            keep_latest(&mut kept, GROUPS);
        }
        Ok(Some(page))
    }
}

/// Drops all pages but those of the `count` row groups used last.
fn keep_latest(kept: &mut Vec<Kept>, count: usize) {
    let mut groups: Vec<Group> = Vec::new();
    for Kept { group, .. } in kept.iter().rev() {
        if !groups.contains(group) && groups.len() < count {
            groups.push(*group);
        }
    }
    kept.retain(|kept| groups.contains(&kept.group));
}

/// Whether a row group keeps much of this column in its dictionary.
pub fn is_large(chunk: &ColumnChunkMetaData) -> bool {
    let start = chunk.dictionary_page_offset();
    start.is_some_and(|start| chunk.data_page_offset().saturating_sub(start) >= LARGE)
}

/// Some row groups of a file.
pub struct Selected {
    pub file: Arc<Section>,
    pub metadata: Arc<ParquetMetaData>,
    pub groups: Vec<Group>,
    pub dictionaries: Arc<Dictionaries>,
    pub page_rows: Arc<PageRows>,
    /// Whether rows of the first group are passed over before the first that is wanted.
    pub skips: bool,
    /// Whether binary cells are views into pages instead of copies: views keep whole pages in memory.
    pub as_views: bool,
}

impl Selected {
    /// A reader of the selected rows of the groups, `batch` at a time. `schema` is the file's.
    pub fn reader(
        &self,
        schema: &Fields,
        mask: ProjectionMask,
        batch: usize,
        selection: RowSelection,
    ) -> Result<ParquetRecordBatchReader> {
        let views: Fields = schema.iter().map(|field| as_views(field)).collect();
        let descriptor = self.metadata.file_metadata().schema_descr();
        let hint = self.as_views.then_some(&views);
        let levels = parquet_to_arrow_field_levels(descriptor, mask, hint)?;
        ParquetRecordBatchReader::try_new_with_row_groups(&levels, self, batch, Some(selection))
    }
}

/// The same field, with views in the place of binaries.
fn as_views(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Binary => DataType::BinaryView,
        DataType::List(item) => DataType::List(Arc::new(as_views(item))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| as_views(field)).collect()),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}

impl RowGroups for Selected {
    fn num_rows(&self) -> usize {
        self.row_groups().map(|group| usize::try_from(group.num_rows()).unwrap_or(0)).sum()
    }

    fn column_chunks(&self, leaf: usize) -> Result<Box<dyn PageIterator>> {
        let (file, metadata) = (Arc::clone(&self.file), Arc::clone(&self.metadata));
        let (groups, dictionaries) = (self.groups.clone().into_iter(), Arc::clone(&self.dictionaries));
        let (page_rows, skips) = (Arc::clone(&self.page_rows), self.skips);
        Ok(Box::new(Chunks { file, metadata, groups, leaf, dictionaries, page_rows, skips }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.groups.iter().map(|group| self.metadata.row_group(group.index)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The chunks of one leaf column, one for each group.
struct Chunks {
    file: Arc<Section>,
    metadata: Arc<ParquetMetaData>,
    groups: std::vec::IntoIter<Group>,
    leaf: usize,
    dictionaries: Arc<Dictionaries>,
    page_rows: Arc<PageRows>,
    skips: bool,
}

impl Chunks {
    /// The rows of the pages of a nested column that has no index of its pages; `None` where nothing is passed over.
    fn counted(&mut self, group: Group, max_level: i16) -> Option<Arc<[usize]>> {
        if !std::mem::take(&mut self.skips) || max_level == 0 {
            return None;
        }
        self.page_rows.of(group.index, self.leaf, || {
            let rows = self.metadata.row_group(group.index);
            let count = usize::try_from(rows.num_rows()).unwrap_or(0);
            let chunk = rows.column(self.leaf);
            // What cannot be read is told where it is read for its values.
            let mut pages = SerializedPageReader::new(Arc::clone(&self.file), chunk, count, None).ok()?;
            page_rows::count(&mut pages, max_level).ok()?
        })
    }

    fn pages(&mut self, group: Group) -> Result<Box<dyn PageReader>> {
        let max_level = self.metadata.row_group(group.index).column(self.leaf).column_descr().max_rep_level();
        let has_index = self.metadata.page_index().is_some_and(|index| {
            index.page_locations(group.index, self.leaf).is_some_and(|pages| !pages.is_empty())
        });
        let counted = if has_index { None } else { self.counted(group, max_level) };
        let rows = self.metadata.row_group(group.index);
        let chunk = rows.column(self.leaf);
        let index = self.metadata.page_index();
        let pages = index.and_then(|index| index.page_locations(group.index, self.leaf).cloned());
        let count = usize::try_from(rows.num_rows()).unwrap_or(0);
        let inner = SerializedPageReader::new(Arc::clone(&self.file), chunk, count, pages)?;
        let (leaf, dictionaries) = (self.leaf, Arc::clone(&self.dictionaries));
        Ok(if is_large(chunk) {
            boxed(Pages { inner, group, leaf, dictionaries, at_dictionary: true }, counted, max_level)
        } else {
            boxed(inner, counted, max_level)
        })
    }
}

/// Pages with what their column needs.
fn boxed(
    pages: impl PageReader + 'static,
    counted: Option<Arc<[usize]>>,
    max_level: i16,
) -> Box<dyn PageReader> {
    match (counted, max_level) {
        (_, 0) => Box::new(pages),
        (Some(rows), _) => Box::new(WholeLevels::of(Counted::new(pages, rows), max_level)),
        (None, _) => Box::new(WholeLevels::of(pages, max_level)),
    }
}

impl Iterator for Chunks {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.groups.next()?;
        Some(self.pages(group))
    }
}

impl PageIterator for Chunks {}

/// The pages of a chunk, the first of which is a dictionary that may have been kept.
struct Pages {
    inner: SerializedPageReader<Section>,
    group: Group,
    leaf: usize,
    dictionaries: Arc<Dictionaries>,
    at_dictionary: bool,
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        if !std::mem::take(&mut self.at_dictionary) {
            return self.inner.get_next_page();
        }
        self.dictionaries.page(self.group, self.leaf, &mut self.inner)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.at_dictionary = false;
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.inner.at_record_boundary()
    }
}
