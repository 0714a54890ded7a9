//! The rows of a benchmark's file: VLMEvalKit's TSV, lmms-eval's Parquet, JSON, JSONL, XLSX.
//!
//! Images stay in their files: what stands for one is its digest in the column `image`. In a TSV a cell of 64 characters or
//! fewer is no image but the index of the row that has it.

use super::record::Record;
use super::xlsx;
use crate::arrays::item_range;
use arrow::array::{
    Array, ArrayRef, BinaryArray, LargeBinaryArray, LargeListArray, ListArray, RecordBatch, StructArray,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llavm_pipeline::StageError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Cells of a TSV's `image` that are longer hold one.
const LONGEST_INDEX: usize = 64;
/// The column of images.
const IMAGE: &str = "image";

/// The rows of a file, by the ending of its name.
pub fn read(path: &Path) -> Result<Vec<Record>, StageError> {
    let rows = match ending(path).as_str() {
        "tsv" => tsv(path),
        "parquet" => parquet(path),
        "json" => json(path),
        "jsonl" => jsonl(path),
        "xlsx" => xlsx::read(path),
        _ => Err(StageError::new("its name ends in none of tsv, parquet, jsonl, json, xlsx")),
    };
    let rows = rows.map_err(|error| in_file(path, &error))?;
    if rows.is_empty() {
        return Err(in_file(path, &StageError::new("it has no rows")));
    }
    Ok(rows)
}

/// An image of a file.
#[derive(Clone, Debug)]
pub struct Image {
    /// What stands for it in the rows.
    pub digest: String,
    /// Encoded, or why it cannot be had.
    pub content: Result<Vec<u8>, String>,
}

/// Hands over the images of a TSV or Parquet file one after the other, each as often as it is there. Other files have none.
pub fn images(path: &Path, take: &mut dyn FnMut(Image) -> Result<(), StageError>) -> Result<(), StageError> {
    let taken = match ending(path).as_str() {
        "parquet" => parquet_images(path, take),
        "tsv" => tsv_images(path, take),
        _ => Ok(()),
    };
    taken.map_err(|error| in_file(path, &error))
}

/// The ending of a file's name.
fn ending(path: &Path) -> String {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase()
}

fn tsv_images(path: &Path, take: &mut dyn FnMut(Image) -> Result<(), StageError>) -> Result<(), StageError> {
    let wrong = |error: csv::Error| StageError::new(error.to_string());
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').flexible(true).from_reader(open(path)?);
    let Some(column) = reader.headers().map_err(wrong)?.iter().position(|name| name == IMAGE) else {
        return Ok(());
    };
    for row in reader.records() {
        let row = row.map_err(wrong)?;
        let Some(cell) = row.get(column).filter(|cell| cell.len() > LONGEST_INDEX) else { continue };
        let content = STANDARD.decode(cell.trim()).map_err(|error| format!("it is no base64: {error}"));
        take(Image { digest: digest(cell.as_bytes()), content })?;
    }
    Ok(())
}

fn parquet_images(
    path: &Path,
    take: &mut dyn FnMut(Image) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let wrong = |error: parquet::errors::ParquetError| StageError::new(error.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(open(path)?).map_err(wrong)?;
    let columns = ProjectionMask::columns(builder.parquet_schema(), [IMAGE]);
    let reader = builder.with_projection(columns).with_batch_size(64).build();
    for batch in reader.map_err(wrong)? {
        let batch = batch?;
        let Some(column) = batch.column_by_name(IMAGE) else { continue };
        for row in 0..batch.num_rows() {
            let image = |bytes: &[u8]| Image { digest: digest(bytes), content: Ok(bytes.to_vec()) };
            bytes_of(column, row).into_iter().try_for_each(|bytes| take(image(bytes)))?;
        }
    }
    Ok(())
}

/// The bytes of the images in a cell.
fn bytes_of(column: &ArrayRef, at: usize) -> Vec<&[u8]> {
    if column.is_null(at) {
        return Vec::new();
    }
    let any = column.as_any();
    if let Some(lists) = any.downcast_ref::<ListArray>() {
        return item_range(lists, at).flat_map(|item| bytes_of(lists.values(), item)).collect();
    }
    if let Some(fields) = any.downcast_ref::<StructArray>() {
        return fields.column_by_name("bytes").map_or(Vec::new(), |bytes| bytes_of(bytes, at));
    }
    let bytes = any.downcast_ref::<BinaryArray>().map(|bytes| bytes.value(at));
    bytes
        .or_else(|| any.downcast_ref::<LargeBinaryArray>().map(|bytes| bytes.value(at)))
        .into_iter()
        .collect()
}

/// An error with the file's name before it.
pub fn in_file(path: &Path, error: &StageError) -> StageError {
    let named = StageError::new(format!("{}: {error}", path.display()));
    match error.advice() {
        Some(advice) => named.help(advice),
        None => named,
    }
}

fn open(path: &Path) -> Result<File, StageError> {
    File::open(path).map_err(|cause| StageError::new(cause.to_string()))
}

fn tsv(path: &Path) -> Result<Vec<Record>, StageError> {
    let wrong = |error: csv::Error| StageError::new(error.to_string());
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').flexible(true).from_reader(open(path)?);
    let names: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for row in reader.records() {
        let row = row.map_err(wrong)?;
        if row.len() != names.len() {
            let (line, has, wanted) = (row.position().map_or(0, csv::Position::line), row.len(), names.len());
            return Err(StageError::new(format!(
                "line {line} has {has} cells, the head of the table {wanted}"
            )));
        }
        let cells = names.iter().zip(&row).map(|(name, cell)| (name.clone(), tsv_cell(name, cell)));
        rows.push(Record(cells.collect()));
    }
    share_images(&mut rows);
    Ok(rows)
}

fn tsv_cell(name: &str, cell: &str) -> Value {
    let is_image = name == IMAGE && cell.len() > LONGEST_INDEX;
    Value::String(if is_image { digest(cell.as_bytes()) } else { cell.to_owned() })
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Puts the digest of the row it names where a row names another's image.
fn share_images(rows: &mut [Record]) {
    let text = |row: &Record, name: &str| row.text(&[name]);
    let images: BTreeMap<String, String> =
        rows.iter().filter_map(|row| Some((text(row, "index")?, text(row, IMAGE)?))).collect();
    for row in rows {
        let named = text(row, IMAGE).and_then(|index| images.get(&index));
        if let Some(image) = named {
            row.0.insert(IMAGE.to_owned(), Value::String(image.clone()));
        }
    }
}

fn json(path: &Path) -> Result<Vec<Record>, StageError> {
    let text = std::fs::read(path).map_err(|cause| StageError::new(cause.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| StageError::new(error.to_string()))?;
    match value {
        Value::Array(rows) => {
            rows.into_iter().enumerate().map(|(n, row)| object(row, &format!("item {}", n + 1))).collect()
        }
        _ => Err(StageError::new("it is no JSON array of objects")),
    }
}

fn jsonl(path: &Path) -> Result<Vec<Record>, StageError> {
    let text = std::fs::read_to_string(path).map_err(|cause| StageError::new(cause.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(n, line): (usize, &str)| {
        let place = format!("line {}", n + 1);
        let value = serde_json::from_str(line);
        object(value.map_err(|error| StageError::new(format!("{place}: {error}")))?, &place)
    };
    lines.map(row).collect()
}

fn object(value: Value, place: &str) -> Result<Record, StageError> {
    match value {
        Value::Object(fields) => Ok(Record(fields)),
        _ => Err(StageError::new(format!("{place} is no JSON object"))),
    }
}

fn parquet(path: &Path) -> Result<Vec<Record>, StageError> {
    let wrong = |error: parquet::errors::ParquetError| StageError::new(error.to_string());
    let reader = ParquetRecordBatchReaderBuilder::try_new(open(path)?)
        .and_then(ParquetRecordBatchReaderBuilder::build);
    let mut rows = Vec::new();
    for batch in reader.map_err(wrong)? {
        rows.extend(records(&batch?)?);
    }
    Ok(rows)
}

fn records(batch: &RecordBatch) -> Result<Vec<Record>, StageError> {
    let mut rows = vec![Map::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (at, row) in rows.iter_mut().enumerate() {
            row.insert(field.name().clone(), value(column, at)?);
        }
    }
    Ok(rows.into_iter().map(Record).collect())
}

/// A cell: text, a list, or the digest of bytes (of an image's, when it is a struct that has them).
fn value(column: &ArrayRef, at: usize) -> Result<Value, StageError> {
    if column.is_null(at) {
        return Ok(Value::Null);
    }
    let any = column.as_any();
    if let Some(lists) = any.downcast_ref::<ListArray>() {
        let items = item_range(lists, at).map(|item| value(lists.values(), item));
        return Ok(Value::Array(items.collect::<Result<_, _>>()?));
    }
    if let Some(lists) = any.downcast_ref::<LargeListArray>() {
        let offsets = lists.value_offsets();
        let items = (offsets[at]..offsets[at + 1]).map(|item| value(lists.values(), item as usize));
        return Ok(Value::Array(items.collect::<Result<_, _>>()?));
    }
    if let Some(fields) = any.downcast_ref::<StructArray>() {
        let bytes = fields.column_by_name("bytes");
        return bytes.map_or(Ok(Value::Null), |bytes| value(bytes, at));
    }
    if let [bytes] = bytes_of(column, at).as_slice() {
        return Ok(Value::String(digest(bytes)));
    }
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::default())?;
    Ok(Value::String(formatter.value(at).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_tsv_shares_the_images_that_its_rows_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let image = "QUJD".repeat(30);
        fs::write(&path, format!("index\timage\tquestion\n1\t{image}\t\"two\nlines\"\n1000001\t1\tagain\n"))
            .unwrap();
        let rows = read(&path).unwrap();
        assert_eq!(rows[0].text(&["question"]).as_deref(), Some("two\nlines"));
        assert_eq!(rows[0].text(&["image"]).unwrap().len(), 64);
        assert_eq!(rows[0].text(&["image"]), rows[1].text(&["image"]));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            read(&path).unwrap_err().to_string().replace(&format!("{}", folder.path().display()), "")
        };
        assert_eq!(
            wrong("a.tsv", "index\tanswer\n1\n"),
            "/a.tsv: line 2 has 1 cells, the head of the table 2"
        );
        assert!(wrong("a.jsonl", "{}\n\n{\n").starts_with("/a.jsonl: line 3: "));
        assert_eq!(wrong("b.jsonl", "{}\n[]\n"), "/b.jsonl: line 2 is no JSON object");
        assert_eq!(wrong("a.json", "{}"), "/a.json: it is no JSON array of objects");
        assert_eq!(wrong("empty.tsv", "index\n"), "/empty.tsv: it has no rows");
        assert!(wrong("a.txt", "").contains("ends in none of"));
        assert!(wrong("a.parquet", "no").starts_with("/a.parquet: "));
        assert!(wrong("a.xlsx", "no").starts_with("/a.xlsx: "));
    }
}
