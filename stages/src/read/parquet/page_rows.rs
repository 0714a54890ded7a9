//! Rows of each page of a nested column, so that pages before the rows wanted are passed over unread.
//!
//! A page of a nested column says how many values it has, not how many rows, unless the file has an index of its pages (which neither pyarrow
//! nor `datasets` writes). A reader that begins in the middle of a row group would decode every page before, and twenty-five partitions
//! of one row group would read it thirteen times. Here the repetition levels of a row group are counted once, and every
//! reader is told.

use super::levels::rows_of;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::Result;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Rows of the data pages of a chunk, in order; `None` where a page begins within a row.
type Rows = Option<Arc<[usize]>>;

/// Counted once, by whoever comes first.
type Remembered = Arc<OnceLock<Rows>>;

/// What is known of the chunks of a file, by row group and leaf column.
#[derive(Debug, Default)]
pub struct PageRows(Mutex<BTreeMap<(usize, usize), Remembered>>);

impl PageRows {
    /// The rows of the pages of a chunk; counted when they are first asked for.
    pub fn of(&self, group: usize, leaf: usize, count: impl FnOnce() -> Rows) -> Rows {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = Arc::clone(known.entry((group, leaf)).or_default());
        drop(known);
        cell.get_or_init(count).clone()
    }
}

/// Counts the rows of each data page. Err: a page that cannot be read.
pub fn count(pages: &mut impl PageReader, max_level: i16) -> Result<Rows> {
    let mut rows = Vec::new();
    while let Some(next) = pages.peek_next_page()? {
        if next.is_dict || next.num_rows.is_some() {
            rows.extend(next.num_rows.filter(|_| !next.is_dict));
            pages.skip_next_page()?;
            continue;
        }
        match pages.get_next_page()?.and_then(|page| rows_of(&page, max_level)) {
            Some(count) => rows.push(count),
            None => return Ok(None),
        }
    }
    Ok(Some(rows.into()))
}

/// Pages of which it is known how many rows they have.
pub struct Counted<R> {
    inner: R,
    rows: Arc<[usize]>,
    /// The next data page.
    next: usize,
}

impl<R: PageReader> Counted<R> {
    pub fn new(inner: R, rows: Arc<[usize]>) -> Self {
        Self { inner, rows, next: 0 }
    }
}

impl<R: PageReader> Iterator for Counted<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<R: PageReader> PageReader for Counted<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.inner.get_next_page()?;
        let is_data = page.as_ref().is_some_and(|page| !matches!(page, Page::DictionaryPage { .. }));
        self.next += usize::from(is_data);
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        let mut page = self.inner.peek_next_page()?;
        if let Some(page) = page.as_mut().filter(|page| !page.is_dict) {
            page.num_rows = page.num_rows.or_else(|| self.rows.get(self.next).copied());
        }
        Ok(page)
    }

    fn skip_next_page(&mut self) -> Result<()> {
        let is_data = self.inner.peek_next_page()?.is_some_and(|page| !page.is_dict);
        self.next += usize::from(is_data);
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, ListArray, RecordBatch};
    use arrow::datatypes::Int32Type;
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::column::reader::{ColumnReader, get_column_reader};
    use parquet::file::properties::WriterProperties;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    /// Pages, and how many were loaded.
    struct Loaded(Box<dyn PageReader>, Arc<Mutex<usize>>);

    impl Iterator for Loaded {
        type Item = Result<Page>;

        fn next(&mut self) -> Option<Self::Item> {
            self.get_next_page().transpose()
        }
    }

    impl PageReader for Loaded {
        fn get_next_page(&mut self) -> Result<Option<Page>> {
            *self.1.lock().unwrap() += 1;
            self.0.get_next_page()
        }

        fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
            self.0.peek_next_page()
        }

        fn skip_next_page(&mut self) -> Result<()> {
            self.0.skip_next_page()
        }
    }

    /// Row n holds n % 4 numbers, the first of which is n. No index of pages, as pyarrow writes it.
    fn file(rows: i32) -> SerializedFileReader<Bytes> {
        let lists = (0..rows).map(|row| Some((0..row % 4).map(|item| Some(row + item)).collect::<Vec<_>>()));
        let lists = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("lists", lists)]).unwrap();
        let properties = WriterProperties::builder()
            .set_data_page_row_count_limit(50)
            .set_write_batch_size(50)
            .set_offset_index_disabled(true)
            .set_dictionary_enabled(false);
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        SerializedFileReader::new(bytes.into()).unwrap()
    }

    #[test]
    fn pages_before_the_rows_wanted_are_not_loaded() {
        let file = file(4000);
        let chunk = file.metadata().row_group(0).column(0);
        let pages = |loaded: &Arc<Mutex<usize>>| {
            Loaded(file.get_row_group(0).unwrap().get_column_page_reader(0).unwrap(), Arc::clone(loaded))
        };
        let rows = count(&mut pages(&Arc::default()), chunk.column_descr().max_rep_level()).unwrap().unwrap();
        assert_eq!((rows.len() > 50, rows.iter().sum::<usize>()), (true, 4000));
        for known in [true, false] {
            let loaded = Arc::new(Mutex::new(0));
            let pages = pages(&loaded);
            let pages: Box<dyn PageReader> =
                if known { Box::new(Counted::new(pages, rows.clone())) } else { Box::new(pages) };
            let ColumnReader::Int32ColumnReader(mut column) =
                get_column_reader(chunk.column_descr_ptr(), pages)
            else {
                panic!("numbers");
            };
            assert_eq!(column.skip_records(3990).unwrap(), 3990);
            let (mut values, mut levels, mut starts) = (Vec::new(), Vec::new(), Vec::new());
            column.read_records(2, Some(&mut levels), Some(&mut starts), &mut values).unwrap();
            assert_eq!(values, [3990, 3991, 3991, 3992, 3993]);
            let loaded = *loaded.lock().unwrap();
            assert!(if known { loaded <= 2 } else { loaded > 50 }, "{loaded} pages loaded, known: {known}");
        }
    }
}
