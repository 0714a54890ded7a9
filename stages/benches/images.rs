//! `decode-resize` on the images of `data/cc3m`, one core: images a second are the items a second of the report.

#![allow(clippy::unwrap_used, reason = "a benchmark without its data cannot go on")]

use arrow::array::{AsArray, BinaryArray};
use divan::counter::ItemsCount;
use llavm_model::processor::image::ImageProcessor;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::Path;

fn main() {
    divan::main();
}

/// The encoded images of the first file.
fn images() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/cc3m/train-00000-of-00003.parquet");
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["image"]);
    let batches = reader.with_projection(mask).build().unwrap();
    let cells = batches.flat_map(|batch| {
        let images: BinaryArray = batch.unwrap().column(0).as_binary::<i32>().clone();
        images.iter().flatten().map(<[u8]>::to_vec).collect::<Vec<_>>()
    });
    cells.collect()
}

#[divan::bench(args = ["bicubic", "bilinear"], sample_count = 10)]
fn decode_resize(bencher: divan::Bencher<'_, '_>, filter: &str) {
    let processor: ImageProcessor = serde_json::from_value(serde_json::json!({ "filter": filter })).unwrap();
    let images = images();
    bencher
        .counter(ItemsCount::new(images.len()))
        .bench(|| images.iter().filter(|image| processor.prepare(image).is_ok()).count());
}
