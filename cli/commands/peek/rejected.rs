//! `peek --rejected`: which rows of a table cannot be used, and how many for each reason.

use super::gather::gather_from;
use super::row::Page;
use crate::ui::failure::Failure;
use arrow::array::{Array, AsArray};
use llavm_pipeline::graph::NodeIndex;
use llavm_pipeline::registry::RoleKind;
use llavm_pipeline::{Column, Engine};
use std::collections::BTreeMap;

/// Rows looked at together.
const CHUNK: usize = 1024;

/// The first `count` rejected rows from row `first` on, and the reasons of all of them.
pub fn gather_rejected(engine: &Engine, node: NodeIndex, first: u64, count: usize) -> Result<Page, Failure> {
    let (mut shown, mut reasons) = (Vec::new(), BTreeMap::<String, u64>::new());
    let chosen = &engine.graph().nodes[node];
    let table = engine.table(&chosen.name)?;
    // A source rejects a row only when a column that cannot be made is asked for; other tables store the reason.
    let is_source = chosen.stage.role.kind() == RoleKind::Source;
    let columns: Vec<Column> = if is_source { table.columns() } else { Vec::new() };
    let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut at = first;
    loop {
        let batch = table.read(at, CHUNK, &columns)?;
        let rejects = batch.column_by_name("reject").and_then(|column| column.as_string_opt::<i32>());
        let Some(rejects) = rejects.filter(|rejects| !rejects.is_empty()) else { break };
        for (row, reason) in (at..).zip(rejects).filter_map(|(row, reason)| Some((row, reason?))) {
            let code = reason.split_once(": ").map_or(reason, |(code, _)| code);
            *reasons.entry(code.to_owned()).or_default() += 1;
            if shown.len() < count {
                shown.push(row);
            }
        }
        at += rejects.len() as u64;
    }
    let mut page = gather_from(engine, &table, node, first, 0)?;
    for row in shown {
        page.rows.extend(gather_from(engine, &table, node, row, 1)?.rows);
    }
    page.reasons = Some(reasons.into_iter().collect());
    Ok(page)
}
