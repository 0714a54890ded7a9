//! The opened source: partitions of drawn rows, their digests, their rows in batches.
//!
//! What a partition's digest holds, by the columns asked for:
//!
//! | part | enters |
//! |---|---|
//! | seed, `objects`, which rows | always |
//! | `size` | `images`, `image_digests` |
//! | `languages`, `kinds`, `yes_no`, `turns` | `messages`, `language`, `kind` |

use super::questions::{Turn, ask};
use super::scene::Scene;
use super::words::Language;
use super::{Shapes, paint};
use crate::arrays::Lists;
use crate::image_lists::{digest_array, image_digest};
use crate::row::message_fields;
use arrow::array::{
    Array, ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions, StringArray, StructArray, UInt32Array,
    make_array, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema};
use image::ImageError;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::{BATCH_ROWS, BatchIterator, Digest, Source, SourcePartition};
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;
use std::sync::Arc;

/// Raised when the same parameters give other rows.
const ROWS_VERSION: u32 = 2;

/// `shapes`, opened.
pub struct ShapesSource {
    stage: Shapes,
    seed: u64,
    partitions: Vec<SourcePartition>,
    partition_rows: u64,
}

/// One drawn row.
pub struct Row {
    pub scene: Scene,
    pub language: Language,
    pub turns: Vec<Turn>,
}

impl ShapesSource {
    pub fn new(stage: Shapes, seed: u64, partition_rows: u64) -> Self {
        let starts = (0..stage.rows).step_by(partition_rows as usize);
        let label = |start: u64| {
            let end = stage.rows.min(start + partition_rows);
            SourcePartition { label: format!("shapes rows {start}..{end}") }
        };
        let partitions = starts.map(label).collect();
        Self { stage, seed, partitions, partition_rows }
    }

    /// Scene and questions draw from streams of their own, so that other questions leave the images as they are.
    pub fn row(&self, index: u64) -> Row {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(2 * index);
        let scene = Scene::draw(&mut random, self.stage.objects);
        random.set_stream(2 * index + 1);
        let language = self.stage.languages.choose(&mut random).copied().unwrap_or(Language::En);
        let turns = ask(&mut random, &self.stage, &scene, language);
        Row { scene, language, turns }
    }

    fn rows(&self, partition: usize) -> Result<Range<u64>, StageError> {
        let start = partition as u64 * self.partition_rows;
        if partition >= self.partitions.len() {
            return Err(StageError::new(format!("there is no partition {partition}")));
        }
        Ok(start..self.stage.rows.min(start + self.partition_rows))
    }

    fn batch(&self, rows: Range<u64>, columns: &[&str]) -> Result<RecordBatch, StageError> {
        let drawn: Vec<Row> = rows.clone().map(|row| self.row(row)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(drawn.len()));
        let wanted = columns.iter().filter(|column| **column != "reject");
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for &column in wanted {
            let array = self.column(column, rows.start, &drawn)?;
            fields.push(Field::new(column, array.data_type().clone(), true));
            arrays.push(array);
        }
        fields.push(Field::new("reject", DataType::Utf8, true));
        arrays.push(new_null_array(&DataType::Utf8, drawn.len()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
    }

    fn column(&self, column: &str, first: u64, rows: &[Row]) -> Result<ArrayRef, StageError> {
        let text = |texts: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(texts)) };
        Ok(match column {
            "id" => text((first..).take(rows.len()).map(|row| format!("shapes-{row}")).collect()),
            "images" => lists(rows, &BinaryArray::from_iter_values(self.images(rows)?))?,
            "image_digests" => {
                let digest = |image: &Vec<u8>| image_digest(&blake3::hash(image));
                let digests: Vec<_> = self.images(rows)?.iter().map(digest).collect();
                lists(rows, &digest_array(&digests)?)?
            }
            "n_images" => Arc::new(UInt32Array::from(vec![1; rows.len()])),
            "messages" => messages(rows)?,
            "language" => text(rows.iter().map(|row| row.language.code().to_owned()).collect()),
            "source" => text(vec!["shapes".to_owned(); rows.len()]),
            "kind" => kinds(rows)?,
            "scene" => text(rows.iter().map(|row| row.scene.label()).collect()),
            other => return Err(StageError::new(format!("`shapes` has no column `{other}`"))),
        })
    }

    fn images(&self, rows: &[Row]) -> Result<Vec<Vec<u8>>, StageError> {
        let png = |row: &Row| paint::png(&row.scene, self.stage.size);
        let failed = |error: ImageError| StageError::new(error.to_string()).because(error);
        rows.iter().map(|row| png(row).map_err(failed)).collect()
    }

    /// What decides the content of one column besides seed, `objects` and the rows.
    fn column_identity(&self, column: &str) -> serde_json::Value {
        let Shapes { languages, size, turns, kinds, yes_no, .. } = &self.stage;
        match column {
            "images" | "image_digests" => serde_json::json!([column, size]),
            "messages" | "language" | "kind" => serde_json::json!([column, languages, turns, kinds, yes_no]),
            _ => serde_json::json!([column]),
        }
    }
}

/// One item for each row.
fn lists(rows: &[Row], items: &dyn Array) -> Result<ArrayRef, StageError> {
    let mut lists = Lists::with_capacity(rows.len());
    rows.iter().for_each(|_| lists.push(1));
    lists.finish(make_array(items.to_data()))
}

fn messages(rows: &[Row]) -> Result<ArrayRef, StageError> {
    let mut lists = Lists::with_capacity(rows.len());
    let (mut roles, mut contents) = (Vec::new(), Vec::new());
    for row in rows {
        for Turn { question, answer, .. } in &row.turns {
            roles.extend(["user", "assistant"]);
            contents.extend([question.as_str(), answer.as_str()]);
        }
        lists.push(2 * row.turns.len());
    }
    let none: ArrayRef = Arc::new(StringArray::new_null(roles.len()));
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(roles)), Arc::new(StringArray::from(contents))];
    columns.resize(message_fields().len(), none);
    lists.finish(Arc::new(StructArray::try_new(message_fields(), columns, None)?))
}

fn kinds(rows: &[Row]) -> Result<ArrayRef, StageError> {
    let mut lists = Lists::with_capacity(rows.len());
    let mut names = Vec::new();
    for row in rows {
        names.extend(row.turns.iter().map(|turn| turn.kind.name()));
        lists.push(row.turns.len());
    }
    lists.finish(Arc::new(StringArray::from(names)))
}

impl Source for ShapesSource {
    fn partitions(&self) -> &[SourcePartition] {
        &self.partitions
    }

    fn digest(&self, partition: usize, columns: &[&str]) -> Result<Digest, StageError> {
        let rows = self.rows(partition)?;
        let mut sorted: Vec<&str> = columns.to_vec();
        sorted.sort_unstable();
        let columns: Vec<serde_json::Value> =
            sorted.into_iter().map(|column| self.column_identity(column)).collect();
        let identity = serde_json::json!({
            "version": ROWS_VERSION,
            "seed": self.seed,
            "objects": self.stage.objects,
            "rows": [rows.start, rows.end],
            "columns": columns,
        });
        Ok(blake3::hash(identity.to_string().as_bytes()))
    }

    fn batches(&self, partition: usize, columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        let rows = self.rows(partition)?;
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let batches = rows.clone().step_by(BATCH_ROWS).map(move |start| {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            self.batch(start..rows.end.min(start + BATCH_ROWS as u64), &columns)
        });
        Ok(Box::new(batches))
    }
}
