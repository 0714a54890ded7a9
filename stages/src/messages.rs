//! The column `messages` of a batch, to read: the turns of each row.

use crate::arrays::{column, item_range};
use arrow::array::{Array, ListArray, RecordBatch, StringArray, StructArray};
use llavm_model::message::{Json, Message};
use llavm_pipeline::StageError;

/// One turn of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    pub role: &'a str,
    pub content: &'a str,
    /// JSON text of a list.
    pub tool_calls: Option<&'a str>,
    /// JSON text of an object.
    pub extra: Option<&'a str>,
    /// JSON text of a list, beside the first turn.
    pub tools: Option<&'a str>,
}

impl<'a> Turn<'a> {
    /// As chat templates take it.
    pub fn message(&self) -> Result<Message<'a>, StageError> {
        let json = |name: &str, text: Option<&str>| {
            let no_json = |cause| StageError::new(format!("`{name}` of a turn is no JSON: {cause}"));
            text.map(|text| Json::parse(text).map_err(no_json)).transpose()
        };
        Ok(Message {
            role: self.role,
            content: self.content,
            tool_calls: json("tool_calls", self.tool_calls)?,
            extra: json("extra", self.extra)?,
            tools: json("tools", self.tools)?,
        })
    }

    /// Every text that it consists of.
    pub fn texts(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let beside = [self.tool_calls, self.extra, self.tools];
        [self.role, self.content].into_iter().chain(beside.into_iter().flatten())
    }
}

/// The conversations of a batch.
pub struct MessageRows<'a> {
    lists: &'a ListArray,
    role: &'a StringArray,
    content: &'a StringArray,
    tool_calls: Option<&'a StringArray>,
    extra: Option<&'a StringArray>,
    tools: Option<&'a StringArray>,
}

impl<'a> MessageRows<'a> {
    pub fn of(rows: &'a RecordBatch) -> Result<Self, StageError> {
        let lists: &ListArray = column(rows, "messages")?;
        Self::of_lists(lists).ok_or_else(|| {
            StageError::new("`messages` is not list<struct<role, content, tool_calls, extra, tools>> of utf8")
        })
    }

    /// Of lists of any type; `None` where they are no messages.
    pub fn of_lists(lists: &'a ListArray) -> Option<Self> {
        let turns = lists.values().as_any().downcast_ref::<StructArray>()?;
        let text = |name: &str| turns.column_by_name(name)?.as_any().downcast_ref::<StringArray>();
        let (tool_calls, extra, tools) = (text("tool_calls"), text("extra"), text("tools"));
        Some(Self { lists, role: text("role")?, content: text("content")?, tool_calls, extra, tools })
    }

    /// The turns of a row; `None` where it is null.
    pub fn row(&self, row: usize) -> Option<impl ExactSizeIterator<Item = Turn<'a>> + use<'_, 'a>> {
        let given = |texts: Option<&'a StringArray>, item: usize| {
            texts.filter(|texts| texts.is_valid(item)).map(|texts| texts.value(item))
        };
        let turn = move |item: usize| Turn {
            role: self.role.value(item),
            content: self.content.value(item),
            tool_calls: given(self.tool_calls, item),
            extra: given(self.extra, item),
            tools: given(self.tools, item),
        };
        self.lists.is_valid(row).then(|| item_range(self.lists, row).map(turn))
    }
}
