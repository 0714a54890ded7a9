//! Stages that hand keys on: a source whose rows hold their number, a map, and a gather stage that counts.

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use llavm_pipeline::stage::{
    Apply, BATCH_ROWS, BatchIterator, Digest, GatherInputs, GatherStage, MapStage, OpenContext, Parameters,
    SequentialPass, Source, SourcePartition, SourceStage, StageKind, Units,
};
use llavm_pipeline::{Columns, Registry, Rejects, StageError};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

pub fn registry() -> Registry {
    Registry::default().source::<Keys>().map::<Step>().gather::<Collect>()
}

/// Rows that hold nothing but their number.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    rows: usize,
    partition_rows: usize,
}

impl StageKind for Keys {
    const KIND: &'static str = "keys";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "Rows that hold nothing but their number";
}

impl Parameters for Keys {}

impl SourceStage for Keys {
    fn output(&self) -> Columns {
        Columns::new().with("id", DataType::Utf8)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Source>, StageError> {
        let label = |first: usize| {
            let end = self.rows.min(first + self.partition_rows);
            SourcePartition { label: format!("rows {first}..{end}") }
        };
        let partitions = (0..self.rows).step_by(self.partition_rows.max(1)).map(label).collect();
        Ok(Box::new(OpenKeys { keys: self.clone(), partitions }))
    }
}

struct OpenKeys {
    keys: Keys,
    partitions: Vec<SourcePartition>,
}

impl Source for OpenKeys {
    fn partitions(&self) -> &[SourcePartition] {
        &self.partitions
    }

    fn digest(&self, partition: usize, columns: &[&str]) -> Result<Digest, StageError> {
        let mut bytes = [0; 32];
        let name = (partition as u64).to_le_bytes().into_iter().chain(columns.concat().into_bytes());
        bytes.iter_mut().zip(name).for_each(|(byte, of_name)| *byte = of_name);
        Ok(Digest::from_bytes(bytes))
    }

    fn batches(&self, partition: usize, _columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        let Keys { rows, partition_rows } = self.keys;
        let first = partition * partition_rows;
        let end = rows.min(first + partition_rows);
        let batch = move |start: usize| {
            let rows = start..end.min(start + BATCH_ROWS);
            let ids: StringArray = rows.clone().map(|row| Some(row.to_string())).collect();
            let rejects = StringArray::new_null(rows.len());
            columns([("id", Arc::new(ids) as ArrayRef), ("reject", Arc::new(rejects))])
        };
        Ok(Box::new((first..end).step_by(BATCH_ROWS).map(batch)))
    }
}

fn columns<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch, StageError> {
    let nullable = columns.map(|(name, array)| (name, array, true));
    Ok(RecordBatch::try_from_iter_with_nullable(nullable)?)
}

/// A column under another name.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    takes: String,
    gives: String,
    /// Whether a pass in row order goes over it.
    #[serde(default)]
    in_order: bool,
}

impl StageKind for Step {
    const KIND: &'static str = "step";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "A column under another name";
}

impl Parameters for Step {}

impl MapStage for Step {
    fn input(&self) -> Columns {
        Columns::new().with(&self.takes, DataType::Utf8)
    }

    fn output(&self) -> Columns {
        Columns::new().with(&self.gives, DataType::Utf8)
    }

    fn open(&self, _context: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        let Self { takes, gives, .. } = self.clone();
        let missing = move || StageError::new(format!("there is no column `{takes}`"));
        Ok(Box::new(move |rows: &RecordBatch, _: &mut Rejects| {
            columns([(&gives, Arc::clone(rows.columns().first().ok_or_else(&missing)?))])
        }))
    }

    fn sequential(&self) -> Option<Box<dyn SequentialPass>> {
        self.in_order.then(|| Box::new(AsItIs) as Box<dyn SequentialPass>)
    }
}

/// A pass that changes nothing.
struct AsItIs;

impl SequentialPass for AsItIs {
    fn next(&mut self, rows: &RecordBatch, _rejects: &mut Rejects) -> Result<RecordBatch, StageError> {
        Ok(rows.clone())
    }
}

/// Counts the rows of all tables.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collect {}

impl StageKind for Collect {
    const KIND: &'static str = "collect";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "Counts the rows of all tables";
}

impl Parameters for Collect {}

impl GatherStage for Collect {
    fn input(&self) -> Columns {
        Columns::new().with("tokens", DataType::Utf8).with("pixels", DataType::Utf8)
    }

    fn units(&self) -> Units {
        Units::Whole
    }

    fn gather(&self, inputs: &GatherInputs<'_>, output: &Path) -> Result<(), StageError> {
        let rows: usize =
            inputs.groups.iter().flat_map(|group| &group.partitions).map(|view| view.rows()).sum();
        let path = output.join("rows");
        std::fs::write(&path, rows.to_string()).map_err(|cause| StageError::io(&path, cause))
    }
}
