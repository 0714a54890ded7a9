//! Columns of images: `list<binary_view>`, one item for each image of a row.
//!
//! An image that several rows show is kept once. In a stored table it stands in the first row that shows it, in whatever
//! partition; in other rows its item is null, and the column `origins` ([`crate::distinct_images`]) says where it stands.
//! Whoever reads single rows puts the images back with [`whole`]. Where there are no origins (pixels that are not stored), rows of a batch that
//! show the same image share its bytes: a view says where they lie.

use crate::arrays::{Lists, column, item_range, list_of};
use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BinaryViewBuilder, FixedSizeBinaryArray, ListArray, RecordBatch,
    StringArray, StructArray, UInt32Array, make_view, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use llavm_pipeline::StageError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Bytes of the digest of an encoded image.
pub const DIGEST: usize = 16;

/// The digest of an encoded image.
pub type ImageDigest = [u8; DIGEST];

/// The type of a column of images.
pub fn images_list() -> DataType {
    list_of(DataType::BinaryView)
}

/// The type of the column `image_digests`: of each image the digest of its bytes.
pub fn digests_list() -> DataType {
    list_of(DataType::FixedSizeBinary(DIGEST as i32))
}

/// Half a blake3 digest: no two of even 2^50 images meet by chance.
pub fn image_digest(hash: &blake3::Hash) -> ImageDigest {
    let mut half = [0; DIGEST];
    half.copy_from_slice(&hash.as_bytes()[..DIGEST]);
    half
}

/// The type of the column `origins`.
pub fn origins_list() -> DataType {
    list_of(DataType::Struct(origin_fields()))
}

fn origin_fields() -> Fields {
    let place = ["partition", "row", "item"].map(|name| Field::new(name, DataType::UInt32, true));
    let digest = Field::new("digest", DataType::FixedSizeBinary(DIGEST as i32), true);
    std::iter::once(digest).chain(place).collect()
}

/// A place where an image stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub partition: u32,
    /// In the partition.
    pub row: u32,
    /// Among the images of the row.
    pub item: u32,
}

/// The column `origins`.
pub struct Origins<'a> {
    lists: &'a ListArray,
    digests: &'a FixedSizeBinaryArray,
    /// Partition, row and item.
    places: [&'a UInt32Array; 3],
}

impl<'a> Origins<'a> {
    pub fn of(rows: &'a RecordBatch) -> Result<Self, StageError> {
        let wrong = || StageError::new("`origins` is of another type than declared");
        let lists: &ListArray = column(rows, "origins")?;
        let items = lists.values().as_any().downcast_ref::<StructArray>().ok_or_else(wrong)?;
        let of = |name: &str| {
            items.column_by_name(name).and_then(|column| column.as_any().downcast_ref()).ok_or_else(wrong)
        };
        let places = [of("partition")?, of("row")?, of("item")?];
        let digests = items.column_by_name("digest").and_then(|column| column.as_any().downcast_ref());
        Ok(Self { lists, digests: digests.ok_or_else(wrong)?, places })
    }

    /// Whether it is known of row `row`.
    pub fn has(&self, row: usize) -> bool {
        self.lists.is_valid(row)
    }

    /// For each image of a row its digest, and where it stands if not here. Nothing where it is not known.
    pub fn row(
        &self,
        row: usize,
    ) -> impl ExactSizeIterator<Item = (ImageDigest, Option<Origin>)> + use<'_, 'a> {
        let range = if self.has(row) { item_range(self.lists, row) } else { 0..0 };
        range.map(|item| {
            let mut digest = [0; DIGEST];
            digest.copy_from_slice(self.digests.value(item));
            let [partition, row, place] = self.places;
            let elsewhere = partition.is_valid(item).then(|| Origin {
                partition: partition.value(item),
                row: row.value(item),
                item: place.value(item),
            });
            (digest, elsewhere)
        })
    }
}

/// Of the column `origins` of `rows`, if they have it, what belongs to rows whose images are kept.
pub fn origins_of_kept(rows: &RecordBatch, images: &dyn Array) -> Result<ArrayRef, StageError> {
    if rows.column_by_name("origins").is_none() {
        return Ok(new_null_array(&origins_list(), rows.num_rows()));
    }
    let lists: &ListArray = column(rows, "origins")?;
    let DataType::List(field) = origins_list() else { return Err(StageError::new("origins are lists")) };
    let nulls = NullBuffer::union(lists.nulls(), images.nulls());
    let (offsets, values) = (lists.offsets().clone(), Arc::clone(lists.values()));
    Ok(Arc::new(ListArray::try_new(field, offsets, values, nulls)?))
}

/// Digests as Arrow has them.
pub fn digest_array(digests: &[ImageDigest]) -> Result<FixedSizeBinaryArray, StageError> {
    Ok(FixedSizeBinaryArray::try_new(DIGEST as i32, Buffer::from_vec(digests.concat()), None)?)
}

/// The column `origins` while it is built.
pub struct OriginLists {
    lists: Lists,
    /// Items of the lists that are closed.
    closed: usize,
    digests: Vec<ImageDigest>,
    origins: Vec<Option<Origin>>,
}

impl OriginLists {
    pub fn with_capacity(rows: usize) -> Self {
        Self { lists: Lists::with_capacity(rows), closed: 0, digests: Vec::new(), origins: Vec::new() }
    }

    /// One more image of the current row.
    pub fn item(&mut self, digest: ImageDigest, elsewhere: Option<Origin>) {
        self.digests.push(digest);
        self.origins.push(elsewhere);
    }

    /// Closes a row.
    pub fn push(&mut self) {
        self.lists.push(self.digests.len() - self.closed);
        self.closed = self.digests.len();
    }

    /// Closes a row of which nothing is known.
    pub fn push_null(&mut self) {
        self.lists.push_null();
    }

    pub fn finish(self) -> Result<ArrayRef, StageError> {
        let number = |part: fn(&Origin) -> u32| {
            let numbers = self.origins.iter().map(|origin| origin.as_ref().map(part));
            Arc::new(numbers.collect::<UInt32Array>()) as ArrayRef
        };
        let digests = digest_array(&self.digests)?;
        let columns = vec![
            Arc::new(digests) as ArrayRef,
            number(|origin| origin.partition),
            number(|origin| origin.row),
            number(|origin| origin.item),
        ];
        self.lists.finish(Arc::new(StructArray::try_new(origin_fields(), columns, None)?))
    }
}

/// A column of images.
pub struct ImageLists<'a> {
    lists: &'a ListArray,
    images: &'a BinaryViewArray,
}

impl<'a> ImageLists<'a> {
    /// The column `name` of a batch.
    pub fn of(rows: &'a RecordBatch, name: &str) -> Result<Self, StageError> {
        let lists: &ListArray = column(rows, name)?;
        let images = lists.values().as_any().downcast_ref();
        let wrong = || StageError::new(format!("`{name}` is no list of images"));
        Ok(Self { lists, images: images.ok_or_else(wrong)? })
    }

    /// How many images row `row` has; none when it is null.
    pub fn len(&self, row: usize) -> usize {
        if self.lists.is_valid(row) { item_range(self.lists, row).len() } else { 0 }
    }

    /// The images of row `row`; `None` for one that stands elsewhere.
    pub fn row(&self, row: usize) -> impl ExactSizeIterator<Item = Option<&'a [u8]>> + use<'a> {
        let range = if self.lists.is_valid(row) { item_range(self.lists, row) } else { 0..0 };
        let images = self.images;
        range.map(|item| images.is_valid(item).then(|| images.value(item)))
    }
}

/// Reads rows of another partition of the same table: its column of images.
pub type Elsewhere<'a> = &'a mut dyn FnMut(u32, &[usize]) -> Result<RecordBatch, StageError>;

/// The rows with all their images in the column `name`, those that stand in other rows too. `rows` have the columns `origins` and `reject`.
pub fn whole(rows: &RecordBatch, name: &str, elsewhere: Elsewhere<'_>) -> Result<RecordBatch, StageError> {
    let images = ImageLists::of(rows, name)?;
    let rejects: &StringArray = column(rows, "reject")?;
    let origins = Origins::of(rows)?;
    let kept = |row: usize| rejects.is_null(row).then_some(row);
    let wanted: BTreeSet<Origin> = (0..rows.num_rows())
        .filter_map(kept)
        .flat_map(|row| images.row(row).zip(origins.row(row)).collect::<Vec<_>>())
        .filter_map(|(here, (_, origin))| origin.filter(|_| here.is_none()))
        .collect();
    if wanted.is_empty() {
        return Ok(rows.clone());
    }
    let found = find(name, &wanted, elsewhere)?;
    let mut lists = Lists::with_capacity(rows.num_rows());
    let mut items = BinaryViewBuilder::new();
    for row in 0..rows.num_rows() {
        if kept(row).is_none() || images.lists.is_null(row) {
            lists.push_null();
            continue;
        }
        lists.push(images.len(row));
        let mut origins = origins.row(row);
        for here in images.row(row) {
            let origin = origins.next().and_then(|(_, origin)| origin);
            let there = || origin.and_then(|origin| found.get(&origin)).map(Vec::as_slice);
            items.append_option(here.or_else(there));
        }
    }
    let (index, _) = rows.schema_ref().column_with_name(name).ok_or_else(|| StageError::new("no images"))?;
    let mut columns = rows.columns().to_vec();
    columns[index] = lists.finish(Arc::new(items.finish()))?;
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

/// The images at these places.
fn find(
    name: &str,
    wanted: &BTreeSet<Origin>,
    elsewhere: Elsewhere<'_>,
) -> Result<BTreeMap<Origin, Vec<u8>>, StageError> {
    let wanted: Vec<Origin> = wanted.iter().copied().collect();
    let mut found = BTreeMap::new();
    for places in wanted.chunk_by(|one, other| one.partition == other.partition) {
        let Some(Origin { partition, .. }) = places.first().copied() else { continue };
        let mut rows: Vec<usize> = places.iter().map(|origin| origin.row as usize).collect();
        rows.dedup();
        let table = elsewhere(partition, &rows)?;
        let images = ImageLists::of(&table, name)?;
        for origin in places {
            let at = rows.binary_search(&(origin.row as usize)).ok();
            let image = at.and_then(|at| images.row(at).nth(origin.item as usize)).flatten();
            let image = image.ok_or_else(|| is_gone(name, *origin))?;
            found.insert(*origin, image.to_vec());
        }
    }
    Ok(found)
}

fn is_gone(name: &str, Origin { partition, row, item }: Origin) -> StageError {
    let text = format!(
        "`{name}` lacks image {} of row {row} of partition {partition}, which another row shows too",
        item + 1
    );
    StageError::new(text).help("Run `llavm verify` to find damaged files.")
}

/// Bytes, of which few are looked at unless their length and ends are those of others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Content<'a>(&'a [u8]);

impl Hash for Content<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        const END: usize = 64;
        let end = self.0.len().saturating_sub(END);
        (self.0.len(), &self.0[..self.0.len().min(END)], &self.0[end..]).hash(state);
    }
}

/// Which contents were seen, each with what became of it.
pub struct Distinct<'a, T>(HashMap<Content<'a>, T>);

impl<T> Default for Distinct<'_, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'a, T> Distinct<'a, T> {
    /// What became of `content`; made when it is seen first.
    pub fn get_or_make(&mut self, content: &'a [u8], make: impl FnOnce() -> T) -> &T {
        self.0.entry(Content(content)).or_insert_with(make)
    }
}

/// Items of `n_bytes` each: item n is the part number `places[n]` of `memory`, null without one. Parts that no item shows are left out.
pub fn shared_items(
    memory: &Buffer,
    n_bytes: usize,
    places: &[Option<usize>],
) -> Result<BinaryViewArray, StageError> {
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut known: HashMap<usize, u32> = HashMap::new();
    let mut view = |place: &Option<usize>| {
        let Some(place) = *place else { return 0 };
        let index = *known.entry(place).or_insert_with(|| {
            buffers.push(memory.slice_with_length(place * n_bytes, n_bytes));
            buffers.len() as u32 - 1
        });
        make_view(&buffers[index as usize], index, 0)
    };
    let views: ScalarBuffer<u128> = places.iter().map(&mut view).collect();
    let nulls = places.contains(&None).then(|| places.iter().map(Option::is_some).collect::<NullBuffer>());
    Ok(BinaryViewArray::try_new(views, buffers, nulls)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_share_their_bytes_and_unused_parts_are_left_out() {
        let memory = Buffer::from_vec((0..80).collect::<Vec<u8>>());
        let items = shared_items(&memory, 20, &[Some(3), Some(1), None, Some(3)]).unwrap();
        let starts: Vec<Option<u8>> = items.iter().map(|item| item.map(|item| item[0])).collect();
        assert_eq!((starts, items.data_buffers().len()), (vec![Some(60), Some(20), None, Some(60)], 2));
    }

    #[test]
    fn contents_that_differ_in_the_middle_only_are_different() {
        let (mut one, other) = (vec![7; 1000], vec![7; 1000]);
        one[500] = 8;
        let mut seen = Distinct::default();
        let found = [&one, &other, &one].map(|content| {
            let next = seen.0.len();
            *seen.get_or_make(content, || next)
        });
        assert_eq!(found, [0, 1, 0]);
    }

    /// Rows of one image each: its first byte, or where it stands.
    fn table(rows: &[Result<u8, Origin>], rejects: Vec<Option<&str>>) -> RecordBatch {
        let (mut lists, mut origins) = (Lists::with_capacity(0), OriginLists::with_capacity(0));
        for row in rows {
            lists.push(1);
            origins.item([0; DIGEST], row.err());
            origins.push();
        }
        let items: BinaryViewArray = rows.iter().map(|row| row.ok().map(|byte| vec![byte; 20])).collect();
        let columns = [
            ("pixels", lists.finish(Arc::new(items)).unwrap(), true),
            ("origins", origins.finish().unwrap(), true),
            ("reject", Arc::new(StringArray::from(rejects)) as ArrayRef, true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    #[test]
    fn images_of_other_rows_are_put_back_and_each_partition_is_read_once() {
        let at = |partition, row| Err(Origin { partition, row, item: 0 });
        let rows = table(
            &[Ok(1), at(3, 7), at(0, 2), at(3, 5), at(3, 7)],
            vec![None, None, None, None, Some("x/y: z")],
        );
        let mut asked = Vec::new();
        let back = whole(&rows, "pixels", &mut |partition, wanted| {
            asked.push((partition, wanted.to_vec()));
            let found: Vec<_> = wanted.iter().map(|row| Ok(10 * partition as u8 + *row as u8)).collect();
            let rejects = vec![Some("decode-resize/undecodable: another image of that row"); found.len()];
            Ok(table(&found, rejects))
        });
        let back = back.unwrap();
        let images = ImageLists::of(&back, "pixels").unwrap();
        let first = |row: usize| images.row(row).map(|image| image.unwrap()[0]).collect::<Vec<_>>();
        assert_eq!((0..5).map(first).collect::<Vec<_>>(), [vec![1], vec![37], vec![2], vec![35], vec![]]);
        assert_eq!(asked, [(0, vec![2]), (3, vec![5, 7])]);
    }

    #[test]
    fn an_image_that_is_nowhere_is_an_error_with_its_place() {
        let rows = table(&[Err(Origin { partition: 1, row: 4, item: 0 })], vec![None]);
        let other = table(&[Err(Origin { partition: 0, row: 0, item: 0 })], vec![None]);
        let error = whole(&rows, "pixels", &mut |_, _| Ok(other.clone())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`pixels` lacks image 1 of row 4 of partition 1, which another row shows too"
        );
    }
}
