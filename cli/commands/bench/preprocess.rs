//! `llavm bench preprocess`: rows like CC3M's, made up, through the stages of `manifests/cc3m-tokens.toml`.

use super::Tokenizer;
use crate::ui::failure::{Failure, Outcome};
use crate::ui::output::print;
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::error::ArrowError;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageError};
use llavm_model::processor::image::ImageProcessor;
use llavm_pipeline::Silent;
use llavm_pipeline::units::{bytes, mebibytes};
use llavm_pipeline::{Engine, Manifest, Options};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// The stages that are timed.
const MANIFEST: &str = include_str!("../../../manifests/cc3m-tokens.toml");

/// Photos of which crops are made: a portrait, an animal, a table, a machine.
const PHOTOS: [&[u8]; 4] = [
    include_bytes!("../../../data/photos/astronaut.jpg"),
    include_bytes!("../../../data/photos/chelsea.jpg"),
    include_bytes!("../../../data/photos/coffee.jpg"),
    include_bytes!("../../../data/photos/rocket.jpg"),
];

/// Crops of each photo; rows take turns.
const CROPS: u32 = 24;

/// Pixels of a crop: 300 x 400, CC3M's usual size.
const AREA: f64 = 120_000.0;

/// Rows in one file, as in the data set's.
const FILE_ROWS: usize = 8192;

/// Rows in one row group: few enough that making them takes less memory than the run that is measured.
const GROUP_ROWS: usize = 1024;

const ANSWERS: [&str; 4] = [
    "portrait of a smiling astronaut with a flag and a model of a space shuttle behind her",
    "a tabby cat with green eyes looks past the camera",
    "a cup of coffee on a saucer with a spoon, on a wooden table",
    "a rocket on its launch pad before a grey sky",
];

/// Time preprocessing, from parquet files to pixels and token shards
///
/// The images are crops of a few photos, about 300 x 400 pixels and 30 KB, no two of them the same bytes. Works in a temporary folder,
/// which needs about 200 KB a row.
#[derive(clap::Args)]
pub struct Args {
    /// Rows
    #[arg(long, default_value = "4096", value_name = "N")]
    rows: NonZeroUsize,

    /// Rows that show the same image, as far apart as the rows allow
    #[arg(long, default_value = "1", value_name = "N")]
    repeat: NonZeroUsize,

    /// Threads that work on rows [default: one for each core]
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    #[command(flatten)]
    tokenizer: Tokenizer,
}

pub fn run(args: &Args) -> Outcome {
    let tokenizer = args.tokenizer.name()?;
    let folder = tempfile::tempdir()?;
    let crops = crops().map_err(failed)?;
    let images = Images { distinct: args.rows.get().div_ceil(args.repeat.get()), crops: &crops };
    let image_bytes = make(folder.path(), args.rows.get(), &images)?;
    let jobs = args.jobs.map_or(Options::default().jobs, NonZeroUsize::get);
    let engine = Engine::open(manifest(folder.path(), tokenizer)?, Options { jobs, ..Options::default() })?;
    let finished = engine.run(&Silent, &AtomicBool::new(false))?;
    if !finished.errors.is_empty() {
        return Err(Failure::from(finished.errors));
    }
    let summary = finished.summary;
    let rate = args.rows.get() as f64 / summary.seconds;
    let bare = decode_rate(args.rows.get(), jobs, &crops);
    print(&format!(
        "decoding and resizing alone, nothing read or written: {bare:.0} rows/s, of which preprocessing reaches {:.0}%\n",
        100.0 * rate / bare
    ))?;
    print(&format!(
        "preprocess {} rows with {} images of {} on {jobs} threads, peak memory {}: {rate:.0} rows/s ({rate:.0} samples/s)\n",
        args.rows,
        images.distinct,
        bytes(image_bytes / args.rows.get() as u64),
        mebibytes(summary.peak_rss_mib),
    ))?;
    Ok(())
}

/// The graph on the made-up files, with its store beside them.
fn manifest(folder: &Path, tokenizer: &str) -> Result<llavm_pipeline::Graph, Failure> {
    let text = format!("store = {:?}\n{MANIFEST}", folder.join("store").display().to_string());
    let set = [format!("raw={}", folder.display()), format!("tokenizer={tokenizer}")];
    let path = Path::new("manifests/cc3m-tokens.toml");
    let manifest = Manifest::read(text.as_bytes(), path, &set, &llavm_stages::registry())?;
    manifest.check_files(&(0..manifest.graph.nodes.len()).collect::<Vec<_>>())?;
    Ok(manifest.graph)
}

/// Rows per second of `decode-resize` by itself, on as many threads.
fn decode_rate(rows: usize, jobs: usize, crops: &[Vec<u8>]) -> f64 {
    let (processor, start) = (ImageProcessor::default(), Instant::now());
    std::thread::scope(|scope| {
        for first in 0..jobs {
            let processor = &processor;
            let rows = (first..rows).step_by(jobs);
            scope.spawn(move || {
                rows.filter(|row| processor.prepare(&crops[row % crops.len()]).is_ok()).count()
            });
        }
    });
    rows as f64 / start.elapsed().as_secs_f64()
}

/// Which row shows what.
struct Images<'a> {
    distinct: usize,
    crops: &'a [Vec<u8>],
}

impl Images<'_> {
    /// The image of a row: a crop with the image's number in a comment, so that no other image has its bytes.
    fn of(&self, row: usize) -> Vec<u8> {
        let number = row % self.distinct;
        let (start, rest) = self.crops[number % self.crops.len()].split_at(2);
        // A JPEG comment: its marker, and a length that counts itself.
        let comment = [&[0xFF, 0xFE, 0, 10][..], &(number as u64).to_be_bytes()].concat();
        [start, &comment, rest].concat()
    }
}

/// Writes the parquet files; the bytes of all images.
fn make(folder: &Path, rows: usize, images: &Images<'_>) -> Result<u64, Failure> {
    let mut total = 0;
    for (n, first) in (0..rows).step_by(FILE_ROWS).enumerate() {
        let rows: Vec<usize> = (first..rows.min(first + FILE_ROWS)).collect();
        total += rows.iter().map(|row| images.of(*row).len() as u64).sum::<u64>();
        write(&folder.join(format!("train-{n:05}.parquet")), &rows, images).map_err(failed)?;
    }
    Ok(total)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("cannot make the rows: {error}"), None)
}

fn write(path: &Path, rows: &[usize], images: &Images<'_>) -> Result<(), io::Error> {
    let schema = batch(&[], images).map_err(io::Error::other)?.schema();
    let mut writer = ArrowWriter::try_new(File::create_new(path)?, schema, None)?;
    for rows in rows.chunks(GROUP_ROWS) {
        writer.write(&batch(rows, images).map_err(io::Error::other)?)?;
        writer.flush()?;
    }
    writer.close()?;
    Ok(())
}

fn batch(rows: &[usize], images: &Images<'_>) -> Result<RecordBatch, ArrowError> {
    let images: BinaryArray = rows.iter().map(|row| Some(images.of(*row))).collect();
    let inputs: StringArray = rows.iter().map(|_| Some("Describe the image concisely.\n<image>")).collect();
    let outputs: StringArray = rows.iter().map(|row| Some(ANSWERS[row % ANSWERS.len()])).collect();
    let columns: [(&str, ArrayRef); 3] =
        [("image", Arc::new(images)), ("input", Arc::new(inputs)), ("output", Arc::new(outputs))];
    RecordBatch::try_from_iter(columns)
}

/// Encoded crops of every photo: other places, sizes and qualities.
fn crops() -> Result<Vec<Vec<u8>>, ImageError> {
    let photos: Vec<DynamicImage> =
        PHOTOS.iter().map(|photo| image::load_from_memory(photo)).collect::<Result<_, _>>()?;
    (0..CROPS).flat_map(|n| photos.iter().map(move |photo| crop(photo, n))).collect()
}

fn crop(photo: &DynamicImage, n: u32) -> Result<Vec<u8>, ImageError> {
    // From 0 to 1, the same in every run and spread evenly: multiples of the golden ratio.
    let spread = |step: u32| (f64::from(n * 3 + step) * 0.618_033_988_75).fract();
    let side = |whole: u32, step: u32| (f64::from(whole) * (0.55 + 0.4 * spread(step))) as u32;
    let (width, height) = (side(photo.width(), 0), side(photo.height(), 1));
    let place = |room: u32| (f64::from(room) * spread(2)) as u32;
    let part = photo.crop_imm(place(photo.width() - width), place(photo.height() - height), width, height);
    let scale = (AREA / (f64::from(width) * f64::from(height))).sqrt();
    let scaled = |side: u32| (f64::from(side) * scale) as u32;
    let part = part.resize_exact(scaled(width), scaled(height), FilterType::CatmullRom).to_rgb8();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 84 + (n % 10) as u8).encode_image(&part)?;
    Ok(bytes)
}
