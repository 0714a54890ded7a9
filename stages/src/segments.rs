//! The column `segments`: a rendered conversation in pieces, each with who wrote it and whether it is trained on.
//!
//! `list<struct<text: utf8, train: bool, role: utf8>>`; the texts of a row, joined, are what the template rendered.
//! `role` is `system`, `user`, `assistant` or `tool` for text from the data, `template` for what the chat template wrote
//! around it, `image` for the pads of one picture. It is what keeps an `<image>` in an answer from becoming a picture, and
//! a `<|im_end|>` typed by a user from ending a turn.

use crate::arrays::{Lists, column, item_range, list_of};
use arrow::array::{
    Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::datatypes::{DataType, Field, Fields};
use llavm_pipeline::StageError;
use std::sync::Arc;

/// The role of text that the chat template wrote.
pub const TEMPLATE: &str = "template";
/// The role of the pads of one picture.
pub const IMAGE: &str = "image";
/// The role of a question, the only text in which a placeholder is looked for.
pub const USER: &str = "user";

/// One piece of a rendered conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    pub text: &'a str,
    /// Whether its tokens carry loss.
    pub train: bool,
    pub role: &'a str,
}

impl Segment<'_> {
    /// Whether the text comes from the data set: neither from the template nor put in for a picture.
    pub fn is_data(&self) -> bool {
        self.role != TEMPLATE && self.role != IMAGE
    }
}

/// The type of the column `segments`.
pub fn segments_type() -> DataType {
    list_of(DataType::Struct(fields()))
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("train", DataType::Boolean, true),
        Field::new("role", DataType::Utf8, true),
    ])
}

/// The column `segments` of a batch, to read.
pub struct SegmentRows<'a> {
    lists: &'a ListArray,
    text: &'a StringArray,
    train: &'a BooleanArray,
    role: &'a StringArray,
}

impl<'a> SegmentRows<'a> {
    pub fn of(rows: &'a RecordBatch) -> Result<Self, StageError> {
        let lists: &ListArray = column(rows, "segments")?;
        let wrong = || StageError::new("`segments` is not list<struct<text: utf8, train: bool, role: utf8>>");
        let pieces = lists.values().as_any().downcast_ref::<StructArray>().ok_or_else(wrong)?;
        let text = pieces.column_by_name("text").and_then(|column| column.as_any().downcast_ref());
        let train = pieces.column_by_name("train").and_then(|column| column.as_any().downcast_ref());
        let role = pieces.column_by_name("role").and_then(|column| column.as_any().downcast_ref());
        match (text, train, role) {
            (Some(text), Some(train), Some(role)) => Ok(Self { lists, text, train, role }),
            _ => Err(wrong()),
        }
    }

    /// The segments of a row that is not null.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Segment<'a>> + Clone + use<'a> {
        let (text, train, role) = (self.text, self.train, self.role);
        item_range(self.lists, row).map(move |item| Segment {
            text: text.value(item),
            train: train.value(item),
            role: role.value(item),
        })
    }
}

/// The column `segments`, written row by row.
pub struct SegmentsBuilder {
    text: StringBuilder,
    train: Vec<bool>,
    role: StringBuilder,
    lists: Lists,
    open: usize,
}

impl SegmentsBuilder {
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            text: StringBuilder::new(),
            train: Vec::new(),
            role: StringBuilder::new(),
            lists: Lists::with_capacity(rows),
            open: 0,
        }
    }

    /// Adds a segment to the row being written.
    pub fn push(&mut self, segment: Segment<'_>) {
        self.text.append_value(segment.text);
        self.train.push(segment.train);
        self.role.append_value(segment.role);
        self.open += 1;
    }

    /// Closes the row.
    pub fn end_row(&mut self) {
        self.lists.push(std::mem::take(&mut self.open));
    }

    /// Closes a rejected row, to which nothing was added.
    pub fn null_row(&mut self) {
        self.lists.push_null();
    }

    pub fn finish(mut self) -> Result<ArrayRef, StageError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.text.finish()),
            Arc::new(BooleanArray::from(self.train)),
            Arc::new(self.role.finish()),
        ];
        self.lists.finish(Arc::new(StructArray::try_new(fields(), columns, None)?))
    }
}
