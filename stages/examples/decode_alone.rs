//! How fast this machine decodes and resizes images when nothing else is done: the yardstick of `scripts/bench_preprocess.py`.
//!
//!     cargo run --release -p llavm-stages --example decode_alone -- FOLDER
//!
//! Reads the column `image` of all Parquet files in FOLDER into memory, then works on all cores, once to warm up and once
//! for the clock. Prints `N rows/s`.

use arrow::array::{AsArray, RecordBatch};
use llavm_model::processor::image::ImageProcessor;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("give the folder of the Parquet files")?;
    let mut images = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            images.extend(read_images(&path)?);
        }
    }
    decode(&images);
    let start = Instant::now();
    let decoded = decode(&images);
    let rate = decoded as f64 / start.elapsed().as_secs_f64();
    writeln(&format!("{decoded} of {} images, {rate:.0} rows/s", images.len()))
}

fn read_images(path: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mask = ProjectionMask::columns(reader.parquet_schema(), ["image"]);
    let batches: Vec<RecordBatch> = reader.with_projection(mask).build()?.collect::<Result<_, _>>()?;
    let cells = batches.iter().flat_map(|batch| batch.column(0).as_binary::<i32>().iter().flatten());
    Ok(cells.map(<[u8]>::to_vec).collect())
}

/// How many images could be decoded.
fn decode(images: &[Vec<u8>]) -> usize {
    let processor = ImageProcessor::default();
    images.par_iter().filter(|image| processor.prepare(image).is_ok()).count()
}

fn writeln(line: &str) -> Result<(), Box<dyn Error>> {
    use std::io::Write;
    Ok(std::io::stdout().write_all(format!("{line}\n").as_bytes())?)
}
