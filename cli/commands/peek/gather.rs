//! From a stage's table to a [`Page`]: whatever columns it and its ancestors have are shown.

use super::row::{Image, Message, Page, Row, Segment, Token};
use super::tokens;
use crate::ui::failure::Failure;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, ListArray, PrimitiveArray, RecordBatch,
    StringArray,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int32Type, UInt32Type};
use arrow::util::display::array_value_to_string;
use llavm_model::processor::image::codecs::{fit_into, thumbnail};
use llavm_model::tokenizer::Tokenizer;
use llavm_pipeline::graph::NodeIndex;
use llavm_pipeline::{Column, Engine, StageError, Table};
use llavm_stages::image_lists::whole;
use llavm_stages::messages::{MessageRows, Turn};
use llavm_stages::segments::{self, SegmentRows};

/// Longest side of an image that is shown before it was prepared, in pixels.
const SIDE: u32 = 224;

/// The columns that have a way of their own to be shown.
const SHOWN: [&str; 9] =
    ["id", "images", "pixels", "origins", "messages", "segments", "input_ids", "train", "labels"];

/// Rows `first..first + count` of the table of `node`.
pub fn gather(engine: &Engine, node: NodeIndex, first: u64, count: usize) -> Result<Page, Failure> {
    let table = engine.table(&engine.graph().nodes[node].name)?;
    gather_from(engine, &table, node, first, count)
}

/// As [`gather`], from a table that is open: each of its files is checked once.
pub fn gather_from(
    engine: &Engine,
    table: &Table<'_>,
    node: NodeIndex,
    first: u64,
    count: usize,
) -> Result<Page, Failure> {
    let graph = engine.graph();
    let chosen = &graph.nodes[node];
    let own = chosen.output().unwrap_or_default();
    let wanted = wanted(&table.columns(), |name| own.get(name).is_some());
    let mut batch = table.read(first, count, &wanted.iter().map(String::as_str).collect::<Vec<_>>())?;
    if has(&batch, "pixels") && batch.num_rows() > 0 {
        batch = with_images(table, &batch)?;
    }
    let tokenizer = if has(&batch, "input_ids") { find_tokenizer(engine, node)? } else { None };
    let rows = (0..batch.num_rows())
        .map(|row| show(&batch, row, first, tokenizer.as_ref()))
        .collect::<Result<_, _>>()?;
    Ok(Page {
        manifest: graph.name.clone(),
        stage: chosen.name.clone(),
        kind: chosen.stage.kind.to_owned(),
        rows,
        reasons: None,
    })
}

/// The rows with the images that stand in other rows.
fn with_images(table: &Table<'_>, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let mut failed = None;
    let whole = whole(batch, "pixels", &mut |partition, rows| {
        table.take(partition as usize, rows, &["pixels", "origins"]).map_err(|error| {
            let text = StageError::new(error.to_string());
            failed = Some(error);
            text
        })
    });
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(whole?),
    }
}

/// The columns to read: those with a way of their own, the best of each sort, and the stage's own plain ones.
fn wanted(columns: &[Column], is_own: impl Fn(&str) -> bool) -> Vec<String> {
    let there = |name: &str| columns.iter().any(|column| column.name == name);
    let hidden = |name: &str| match name {
        "images" => there("pixels"),
        "origins" => !there("pixels"),
        "messages" => there("segments"),
        "train" => there("labels") || !there("input_ids"),
        _ => false,
    };
    let shown = |column: &&Column| {
        let name = column.name.as_str();
        if SHOWN.contains(&name) { !hidden(name) } else { is_own(name) && is_plain(&column.data_type) }
    };
    columns.iter().filter(shown).map(|column| column.name.clone()).collect()
}

/// Types a person can read in a line.
fn is_plain(data_type: &DataType) -> bool {
    data_type.is_primitive() || matches!(data_type, DataType::Utf8 | DataType::Boolean)
}

/// The tokenizer of the stage, or of the nearest one before it that has one.
fn find_tokenizer(engine: &Engine, node: NodeIndex) -> Result<Option<Tokenizer>, Failure> {
    for ancestor in engine.graph().upstream(&[node]).into_iter().rev() {
        let resources = engine.graph().nodes[ancestor].stage.role.parameters().resources()?;
        let file = resources.into_iter().find(|resource| resource.path.ends_with("tokenizer.json"));
        if let Some(folder) = file.as_ref().and_then(|file| file.path.parent()) {
            let tokenizer = Tokenizer::from_folder(folder);
            return tokenizer.map(Some).map_err(|error| Failure::failed(error.to_string(), None));
        }
    }
    Ok(None)
}

fn show(
    batch: &RecordBatch,
    row: usize,
    first: u64,
    tokenizer: Option<&Tokenizer>,
) -> Result<Row, StageError> {
    let segments = match value(batch, "segments", row) {
        Some(_) => {
            let rows = SegmentRows::of(batch)?;
            rows.row(row).map(|segment| shown(&segment)).collect()
        }
        None => Vec::new(),
    };
    Ok(Row {
        position: first + row as u64,
        id: string(batch, "id", row).unwrap_or_default(),
        images: images(batch, row),
        messages: messages(batch, row),
        segments,
        tokens: show_tokens(batch, row, tokenizer),
        others: others(batch, row)?,
        reject: string(batch, "reject", row),
    })
}

/// A segment; of the pads of an image, one and how many there are.
fn shown(segment: &segments::Segment<'_>) -> Segment {
    let text = match (segment.role, repeated(segment.text)) {
        (segments::IMAGE, Some((pad, times))) if times > 1 => format!("{pad} ×{times}"),
        _ => segment.text.to_owned(),
    };
    Segment { text, train: segment.train }
}

/// The shortest text that `text` is a repetition of, and how often.
fn repeated(text: &str) -> Option<(&str, usize)> {
    let starts = text.char_indices().map(|(start, _)| start).skip(1).chain([text.len()]);
    let mut lengths = starts.filter(|length| *length > 0 && text.len().is_multiple_of(*length));
    lengths.find_map(|length| {
        let unit = text.get(..length)?;
        let times = text.len() / length;
        (unit.repeat(times) == text).then_some((unit, times))
    })
}

fn has(batch: &RecordBatch, name: &str) -> bool {
    batch.column_by_name(name).is_some()
}

/// The column, when its value in `row` is not null.
fn value<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Option<&'a ArrayRef> {
    batch.column_by_name(name).filter(|column| row < column.len() && column.is_valid(row))
}

fn string(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let strings = value(batch, name, row)?.as_any().downcast_ref::<StringArray>()?;
    Some(strings.value(row).to_owned())
}

/// The items of a list that is not null.
fn list(batch: &RecordBatch, name: &str, row: usize) -> Option<ArrayRef> {
    Some(value(batch, name, row)?.as_any().downcast_ref::<ListArray>()?.value(row))
}

/// Stored pixels, or raw images made small.
fn images(batch: &RecordBatch, row: usize) -> Vec<Image> {
    if let Some(items) = list(batch, "pixels", row) {
        let prepared = items.as_any().downcast_ref::<BinaryViewArray>();
        return prepared
            .into_iter()
            .flat_map(|prepared| prepared.iter().flatten())
            .filter_map(Image::from_planes)
            .collect();
    }
    let Some(items) = list(batch, "images", row) else { return Vec::new() };
    let encoded = items.as_any().downcast_ref::<BinaryArray>();
    let all = encoded.into_iter().flat_map(|encoded| encoded.iter().flatten());
    all.filter_map(|bytes| thumbnail(bytes, |width, height| fit_into(SIDE, width, height)))
        .map(|small| Image { width: small.width as usize, height: small.height as usize, rgb: small.rgb })
        .collect()
}

fn messages(batch: &RecordBatch, row: usize) -> Vec<Message> {
    let column = batch.column_by_name("messages");
    let lists = column.and_then(|column| column.as_any().downcast_ref());
    let Some(rows) = lists.and_then(MessageRows::of_lists) else { return Vec::new() };
    // Calls, thoughts and tools are text that the model reads or writes as well.
    let texts =
        |turn: &Turn<'_>| turn.texts().skip(1).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
    let turns = rows.row(row).into_iter().flatten();
    turns.map(|turn| Message { role: turn.role.to_owned(), content: texts(&turn) }).collect()
}

fn show_tokens(batch: &RecordBatch, row: usize, tokenizer: Option<&Tokenizer>) -> Vec<Token> {
    let decode = |ids: &[u32]| match tokenizer.map(|tokenizer| tokenizer.decode(ids, false)) {
        Some(Ok(text)) => text,
        // Without its tokenizer a token is its id.
        _ => format!("{ids:?}"),
    };
    let Some(ids) = numbers::<UInt32Type>(batch, "input_ids", row) else { return Vec::new() };
    if let Some(labels) = numbers::<Int32Type>(batch, "labels", row) {
        return tokens::of_shift_labels(&ids, &labels, &decode);
    }
    let train: Vec<bool> = list(batch, "train", row)
        .and_then(|items| {
            items
                .as_any()
                .downcast_ref::<BooleanArray>()
                .map(|flags| flags.iter().map(|flag| flag == Some(true)).collect())
        })
        .unwrap_or_else(|| vec![false; ids.len()]);
    tokens::of_tokenize(&ids, &train, &decode)
}

fn numbers<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str, row: usize) -> Option<Vec<T::Native>> {
    let items = list(batch, name, row)?;
    Some(items.as_any().downcast_ref::<PrimitiveArray<T>>()?.values().to_vec())
}

/// Plain columns, as text.
fn others(batch: &RecordBatch, row: usize) -> Result<Vec<(String, String)>, StageError> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    fields
        .filter(|(field, column)| {
            let name = field.name().as_str();
            name != "reject" && !SHOWN.contains(&name) && is_plain(column.data_type()) && column.is_valid(row)
        })
        .map(|(field, column)| Ok((field.name().clone(), array_value_to_string(column, row)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_are_counted_and_other_text_is_not() {
        assert_eq!(repeated(&"<|图|>".repeat(49)), Some(("<|图|>", 49)));
        assert_eq!(repeated("aab"), Some(("aab", 1)));
        assert_eq!(repeated(""), None);
        let segment = |text, role| shown(&segments::Segment { text, train: true, role }).text;
        assert_eq!(segment("<p><p><p>", segments::IMAGE), "<p> ×3");
        assert_eq!(segment("hahaha", segments::USER), "hahaha");
    }

    #[test]
    fn the_most_processed_column_of_each_sort_is_read() {
        let columns = |names: &[&str]| -> Vec<Column> {
            names
                .iter()
                .map(|name| Column { name: (*name).to_owned(), data_type: DataType::UInt32 })
                .collect()
        };
        let of = |names: &[&str]| wanted(&columns(names), |name| name == "n_images");
        assert_eq!(of(&["id", "images", "messages", "width"]), ["id", "images", "messages"]);
        assert_eq!(of(&["id", "pixels", "images", "n_images"]), ["id", "pixels", "n_images"]);
        assert_eq!(
            of(&["labels", "input_ids", "train", "segments", "messages"]),
            ["labels", "input_ids", "segments"]
        );
    }
}
