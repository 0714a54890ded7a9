//! The column `messages` of a batch, to read: the turns of each row.

use crate::arrays::{column, item_range};
use arrow::array::{Array, ListArray, RecordBatch, StringArray, StructArray};
use llavm_pipeline::StageError;

/// One turn of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    pub role: &'a str,
    pub content: &'a str,
    /// JSON text of a list.
    pub tool_calls: Option<&'a str>,
}

/// The conversations of a batch.
pub struct MessageRows<'a> {
    lists: &'a ListArray,
    role: &'a StringArray,
    content: &'a StringArray,
    tool_calls: Option<&'a StringArray>,
}

impl<'a> MessageRows<'a> {
    pub fn of(rows: &'a RecordBatch) -> Result<Self, StageError> {
        let lists: &ListArray = column(rows, "messages")?;
        Self::of_lists(lists).ok_or_else(|| {
            StageError::new("`messages` is not list<struct<role: utf8, content: utf8, tool_calls: utf8>>")
        })
    }

    /// Of lists of any type; `None` where they are no messages.
    pub fn of_lists(lists: &'a ListArray) -> Option<Self> {
        let turns = lists.values().as_any().downcast_ref::<StructArray>()?;
        let text = |name: &str| turns.column_by_name(name)?.as_any().downcast_ref::<StringArray>();
        Some(Self { lists, role: text("role")?, content: text("content")?, tool_calls: text("tool_calls") })
    }

    /// The turns of a row; `None` where it is null.
    pub fn row(&self, row: usize) -> Option<impl ExactSizeIterator<Item = Turn<'a>> + use<'_, 'a>> {
        let turn = |item: usize| Turn {
            role: self.role.value(item),
            content: self.content.value(item),
            tool_calls: self.tool_calls.filter(|calls| calls.is_valid(item)).map(|calls| calls.value(item)),
        };
        self.lists.is_valid(row).then(|| item_range(self.lists, row).map(turn))
    }
}
