//! `shard` on token rows in memory, one core, disk writes included: rows a second are the items a second of the report.

#![allow(clippy::unwrap_used, reason = "a benchmark without its data cannot go on")]

use arrow::array::{
    ArrayRef, Int32Builder, ListBuilder, RecordBatch, StringArray, UInt32Array, UInt32Builder,
};
use divan::counter::ItemsCount;
use llavm_pipeline::stage::{
    BATCH_ROWS, BatchIterator, Digest, GatherInputs, GatherStage, Group, PARTITION_ROWS, PartitionView,
};
use llavm_pipeline::{Columns, StageError};
use llavm_stages::shard::Shard;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

fn main() {
    divan::main();
}

/// A partition of rows of about 110 tokens, the length of a CC3M row; every batch is the same.
struct Tokens {
    index: usize,
    batch: RecordBatch,
}

fn batch() -> RecordBatch {
    let mut ids = ListBuilder::new(UInt32Builder::new());
    let mut labels = ListBuilder::new(Int32Builder::new());
    for row in 0..BATCH_ROWS as u32 {
        for token in 0..100 + row % 20 {
            ids.values().append_value(token);
            labels.values().append_value(-100);
        }
        ids.append(true);
        labels.append(true);
    }
    RecordBatch::try_from_iter_with_nullable([
        ("input_ids", Arc::new(ids.finish()) as ArrayRef, true),
        ("labels", Arc::new(labels.finish()) as ArrayRef, true),
        ("n_images", Arc::new(UInt32Array::from(vec![1; BATCH_ROWS])) as ArrayRef, true),
        ("reject", Arc::new(StringArray::new_null(BATCH_ROWS)) as ArrayRef, true),
    ])
    .unwrap()
}

impl PartitionView for Tokens {
    fn index(&self) -> usize {
        self.index
    }

    fn first_row(&self) -> u64 {
        (self.index * PARTITION_ROWS) as u64
    }

    fn rows(&self) -> usize {
        PARTITION_ROWS
    }

    fn batches(&self, _: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        Ok(Box::new(std::iter::repeat_n(&self.batch, PARTITION_ROWS / BATCH_ROWS).cloned().map(Ok)))
    }

    fn files(&self) -> Vec<Option<PathBuf>> {
        vec![None]
    }

    fn digests(&self) -> Vec<Digest> {
        vec![blake3::hash(b"tokens")]
    }
}

#[divan::bench(args = ["none", "length"], sample_count = 5)]
fn shard(bencher: divan::Bencher<'_, '_>, bucket: &str) {
    const PARTITIONS: usize = 50;
    let params = json!({ "validation": 0.05, "bucket": bucket });
    let stage: Shard = serde_json::from_value(params).unwrap();
    let batch = batch();
    bencher
        .counter(ItemsCount::new(PARTITIONS * PARTITION_ROWS))
        .with_inputs(|| tempfile::tempdir().unwrap())
        .bench_values(|output| {
            let partition =
                |index| Box::new(Tokens { index, batch: batch.clone() }) as Box<dyn PartitionView>;
            let partitions = (0..PARTITIONS).map(partition).collect();
            let tables = vec!["labels".to_owned()];
            let group = Group { weight: 1.0, tables, kept: Columns::new(), partitions };
            stage.gather(&GatherInputs { groups: vec![group], seed: 42 }, output.path()).unwrap();
        });
}
