//! The column `messages` of a batch, to write.

use super::conversation::Message;
use crate::row::{message_fields, messages_type};
use arrow::array::{ArrayRef, ListArray, NullBufferBuilder, StringBuilder, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use llavm_pipeline::StageError;
use std::sync::Arc;

/// `messages` under construction.
#[derive(Default)]
pub struct Messages {
    roles: StringBuilder,
    contents: StringBuilder,
    tool_calls: StringBuilder,
    extra: StringBuilder,
    tools: StringBuilder,
    lengths: Vec<usize>,
    valid: Vec<bool>,
}

impl Messages {
    pub fn append(&mut self, turns: &[Message<'_>]) {
        for turn in turns {
            self.roles.append_value(turn.role.name());
            self.contents.append_value(&turn.content);
            self.tool_calls.append_option(turn.tool_calls.as_deref());
            self.extra.append_option(turn.extra.as_deref());
            self.tools.append_option(turn.tools.as_deref());
        }
        self.lengths.push(turns.len());
        self.valid.push(true);
    }

    pub fn append_null(&mut self) {
        self.lengths.push(0);
        self.valid.push(false);
    }

    pub fn finish(&mut self) -> Result<ListArray, StageError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.roles.finish()),
            Arc::new(self.contents.finish()),
            Arc::new(self.tool_calls.finish()),
            Arc::new(self.extra.finish()),
            Arc::new(self.tools.finish()),
        ];
        let turns = StructArray::try_new(message_fields(), columns, None)?;
        let mut nulls = NullBufferBuilder::new(self.valid.len());
        self.valid.drain(..).for_each(|valid| nulls.append(valid));
        let offsets = OffsetBuffer::from_lengths(self.lengths.drain(..));
        let DataType::List(item) = messages_type() else {
            return Err(StageError::new("`messages` is no list"));
        };
        Ok(ListArray::try_new(item, offsets, Arc::new(turns), nulls.finish())?)
    }
}
