//! What the tests of several stages share: rows of conversations, and stages applied one after the other.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow::array::{
    Array, ArrayRef, BinaryArray, ListArray, ListBuilder, RecordBatch, StringBuilder, StructBuilder,
    UInt32Array,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, UInt32Type};
use llavm_pipeline::stage::{Digest, MapStage, OpenContext, StageKind};
use llavm_pipeline::{Rejects, StageError};
use llavm_stages::row::message_fields;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of the repository.
pub fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The folder of the Qwen3 tokenizer.
pub fn qwen() -> String {
    root("data/qwen3-tokenizer").display().to_string()
}

/// The cases that Transformers rendered.
pub fn golden() -> Value {
    let text = std::fs::read_to_string(root("stages/tests/golden/chat.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The items of a list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// A list of ids.
pub fn ids(value: &Value) -> Vec<u32> {
    list(value).iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Opening a stage here needs nothing from the engine.
pub struct NoEngine;

impl OpenContext for NoEngine {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        Err(StageError::new(format!("{} is not digested in tests", path.display())))
    }

    fn files_digest(&self, memo: &str, _: &[PathBuf]) -> Result<Digest, StageError> {
        Err(StageError::new(format!("{memo} is not digested in tests")))
    }

    fn seed(&self) -> u64 {
        42
    }
}

/// A table on its way through stages.
#[derive(Clone)]
pub struct Table {
    pub batch: RecordBatch,
    /// `<kind>/<code>: <detail>` of rejected rows.
    pub rejects: Vec<Option<String>>,
}

impl Table {
    pub fn new(batch: RecordBatch) -> Self {
        Self { rejects: vec![None; batch.num_rows()], batch }
    }

    /// The rows `from..to`.
    pub fn slice(&self, from: usize, to: usize) -> Self {
        Self { batch: self.batch.slice(from, to - from), rejects: self.rejects[from..to].to_vec() }
    }

    /// Applies the stage `T` with these parameters.
    pub fn then<T: StageKind + MapStage>(&self, params: Value) -> Self {
        let stage: T = serde_json::from_value(params).unwrap();
        assert_eq!(stage.check(), []);
        let mut rejects = Rejects::after(self.rejects.iter().map(Option::is_some).collect());
        let batch = stage.open(&NoEngine).unwrap().apply(&self.batch, &mut rejects).unwrap();
        assert_eq!(batch.schema(), stage.output().schema());
        let mut reasons = self.rejects.clone();
        for (row, reject) in rejects.new_rejects() {
            reasons[row] = Some(format!("{}/{}: {}", T::KIND, reject.code, reject.detail));
        }
        for (row, reason) in reasons.iter().enumerate().filter(|(_, reason)| reason.is_some()) {
            assert!(
                batch.columns().iter().all(|column| column.is_null(row)),
                "{reason:?} leaves null columns"
            );
        }
        Self { batch, rejects: reasons }
    }

    /// Reason of the reject, without its detail.
    pub fn code(&self, row: usize) -> Option<&str> {
        self.rejects[row].as_deref().map(|reason| reason.split(':').next().unwrap())
    }

    pub fn input_ids(&self, row: usize) -> Vec<u32> {
        let lists = self.lists("input_ids").value(row);
        arrow::array::cast::as_primitive_array::<UInt32Type>(&lists).values().to_vec()
    }

    pub fn labels(&self, row: usize) -> Vec<i32> {
        let lists = self.lists("labels").value(row);
        arrow::array::cast::as_primitive_array::<Int32Type>(&lists).values().to_vec()
    }

    pub fn train(&self, row: usize) -> Vec<bool> {
        let lists = self.lists("train").value(row);
        arrow::array::cast::as_boolean_array(&lists).iter().map(Option::unwrap).collect()
    }

    /// `(text, train, role)` of each segment.
    pub fn segments(&self, row: usize) -> Vec<(String, bool, String)> {
        let rows = llavm_stages::segments::SegmentRows::of(&self.batch).unwrap();
        rows.row(row).map(|piece| (piece.text.to_owned(), piece.train, piece.role.to_owned())).collect()
    }

    /// The texts of all segments, or only of the trained or the other ones.
    pub fn text(&self, row: usize, train: Option<bool>) -> String {
        let wanted = |segment: &&(String, bool, String)| train.is_none_or(|train| segment.1 == train);
        self.segments(row).iter().filter(wanted).map(|segment| segment.0.as_str()).collect()
    }

    fn lists(&self, name: &str) -> &ListArray {
        self.batch.column_by_name(name).unwrap().as_any().downcast_ref().unwrap()
    }
}

/// One turn: role and content.
pub type Turn = (String, String);

/// Turns from JSON.
pub fn turns(messages: &Value) -> Vec<Turn> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list(messages).iter().map(|message| (text(&message["role"]), text(&message["content"]))).collect()
}

/// Rows of `messages` and `n_images`, as a source gives them.
pub fn conversations(rows: &[(Vec<Turn>, u32)]) -> Table {
    let fields = Fields::from(vec![
        Field::new("role", DataType::Utf8, true),
        Field::new("content", DataType::Utf8, true),
    ]);
    let mut messages = ListBuilder::new(StructBuilder::from_fields(fields, rows.len()));
    for (turns, _) in rows {
        for (role, content) in turns {
            let turn = messages.values();
            turn.field_builder::<StringBuilder>(0).unwrap().append_value(role);
            turn.field_builder::<StringBuilder>(1).unwrap().append_value(content);
            turn.append(true);
        }
        messages.append(true);
    }
    let n_images: UInt32Array = rows.iter().map(|(_, n_images)| Some(*n_images)).collect();
    let columns = [
        ("messages", Arc::new(messages.finish()) as ArrayRef, true),
        ("n_images", Arc::new(n_images) as ArrayRef, true),
    ];
    Table::new(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
}

/// A row of turns `[role, content, tool_calls, extra, tools]`, of which the last may be left out.
pub fn messages(turns: &Value) -> Table {
    let mut messages = ListBuilder::new(StructBuilder::from_fields(message_fields(), 0));
    for turn in turns.as_array().unwrap() {
        for field in 0..message_fields().len() {
            let text = messages.values().field_builder::<StringBuilder>(field).unwrap();
            text.append_option(turn[field].as_str());
        }
        messages.values().append(true);
    }
    messages.append(true);
    let columns = [
        ("messages", Arc::new(messages.finish()) as ArrayRef, true),
        ("n_images", Arc::new(UInt32Array::from(vec![0])) as ArrayRef, true),
    ];
    Table::new(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
}

/// One row.
pub fn conversation(turns: &[(&str, &str)], n_images: u32) -> Table {
    let turns = turns.iter().map(|(role, content)| ((*role).to_owned(), (*content).to_owned())).collect();
    conversations(&[(turns, n_images)])
}

/// Rows of encoded images.
pub fn images(rows: &[Vec<Vec<u8>>]) -> Table {
    let flat: BinaryArray = rows.iter().flatten().map(|image| Some(image.as_slice())).collect();
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    let field = Arc::new(Field::new("item", DataType::Binary, true));
    let images = ListArray::try_new(field, offsets, Arc::new(flat), None).unwrap();
    Table::new(
        RecordBatch::try_from_iter_with_nullable([("images", Arc::new(images) as ArrayRef, true)]).unwrap(),
    )
}
