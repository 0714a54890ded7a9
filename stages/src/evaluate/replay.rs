//! Questions by themselves, put into tokens by the run's own text stages.

use super::questions::{Ask, NO_ANSWER, Tokens};
use super::rows::Row;
use crate::arrays::{Lists, column, items};
use crate::row::message_fields;
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, StructArray, UInt32Array};
use arrow::datatypes::{Int32Type, UInt32Type};
use llavm_pipeline::StageError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Passes rows through the text stages of a group: `input_ids`, `labels`, `reject` come back.
pub type Replay<'a> = &'a dyn Fn(usize, &RecordBatch) -> Result<RecordBatch, StageError>;

/// The tokens of each question, or why it cannot be asked.
pub fn tokens(
    asks: &[Ask],
    rows: &[Row],
    replay: Replay<'_>,
) -> Result<Vec<Result<Tokens, String>>, StageError> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, ask) in asks.iter().enumerate() {
        groups.entry(rows[ask.row].place.group).or_default().push(at);
    }
    let mut tokens = vec![Err(String::new()); asks.len()];
    for (group, members) in groups {
        let batch = source_rows(&members.iter().map(|at| &asks[*at]).collect::<Vec<_>>(), rows)?;
        let replayed = replay(group, &batch)?;
        for (n, at) in members.into_iter().enumerate() {
            tokens[at] = row(&replayed, n)?;
        }
    }
    Ok(tokens)
}

fn row(batch: &RecordBatch, n: usize) -> Result<Result<Tokens, String>, StageError> {
    let rejects: &StringArray = column(batch, "reject")?;
    if rejects.is_valid(n) {
        return Ok(Err(rejects.value(n).to_owned()));
    }
    let ids = items::<UInt32Type>(column(batch, "input_ids")?, n)?;
    let labels = items::<Int32Type>(column(batch, "labels")?, n)?;
    Ok(Tokens::of(ids, labels).ok_or_else(|| NO_ANSWER.to_owned()))
}

/// One-question rows as a source would give them, without the bytes of their pictures.
fn source_rows(asks: &[&Ask], rows: &[Row]) -> Result<RecordBatch, StageError> {
    let ids = asks.iter().map(|ask| Some(format!("{}#{}", rows[ask.row].id, ask.turn)));
    let n_images = asks.iter().map(|ask| rows[ask.row].n_images);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids.collect::<StringArray>())),
        ("n_images", Arc::new(UInt32Array::from_iter_values(n_images))),
        ("messages", messages(asks, rows)?),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, values)| (name, values, true)),
    )?)
}

/// System turns of the row, the question, the answer.
fn messages(asks: &[&Ask], rows: &[Row]) -> Result<ArrayRef, StageError> {
    let mut lists = Lists::with_capacity(asks.len());
    let (mut roles, mut contents) = (Vec::new(), Vec::new());
    for ask in asks {
        let before = roles.len();
        for turn in rows[ask.row].turns.iter().take_while(|turn| turn.role == "system") {
            roles.push("system");
            contents.push(turn.content.as_str());
        }
        roles.extend(["user", "assistant"]);
        contents.extend([ask.user.as_str(), ask.assistant.as_str()]);
        lists.push(roles.len() - before);
    }
    let texts = |texts: Vec<&str>| Arc::new(StringArray::from(texts)) as ArrayRef;
    let turns = StructArray::try_new(message_fields(), vec![texts(roles), texts(contents)], None)?;
    lists.finish(Arc::new(turns))
}
