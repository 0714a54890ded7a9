//! An image that several rows show is decoded once and kept once, and nobody sees the difference.

use crate::project::Project;
use crate::tables::{assert_same, batches, results, stage_files};
use arrow::array::{Array, AsArray, BinaryViewArray, RecordBatch, StringArray};
use arrow::datatypes::UInt32Type;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

const MANIFEST: &str = r#"
[stages.rows]
kind = "read"
files = "rows.jsonl"
columns = { image = "image", prompt = "prompt", answer = "answer" }
images = "images"
partition_rows = 8
max_rejects = 1.0

[stages.long]
kind = "filter"
from = "rows"
where = "id NOT LIKE '%#3'"
max_rejects = 1.0

[stages.pixels]
kind = "decode-resize"
from = "long"
size = 28
max_rejects = 1.0
"#;

const ROWS: usize = 60;
const IMAGES: usize = 7;

/// The image of each row: far apart and side by side, in one partition and in others. `x` cannot be decoded.
fn image_of(row: usize) -> String {
    if row % 13 == 4 { "x.jpg".to_owned() } else { format!("{:04}.jpg", (row * row + row / 9) % IMAGES) }
}

fn project(images: &dyn Fn(usize) -> String) -> Project {
    let project = Project::with(&["data/zh/images"]);
    std::fs::rename(project.path("data/zh/images"), project.path("images")).unwrap();
    project.write("images/x.jpg", "no image at all");
    write_rows(&project, images);
    project.write("m.toml", MANIFEST);
    project
}

fn write_rows(project: &Project, images: &dyn Fn(usize) -> String) {
    let mut lines = String::new();
    for row in 0..ROWS {
        let image = images(row);
        writeln!(lines, r#"{{"image": "{image}", "prompt": "What is this?", "answer": "Row {row}."}}"#)
            .unwrap();
    }
    project.write("rows.jsonl", lines);
}

/// An image's pixels or where they stand: partition, row, and which of its images.
type Kept = Result<Vec<u8>, Option<(usize, usize, usize)>>;

/// One row of the stored pixels: its reason, and its images.
struct Row {
    reject: Option<String>,
    images: Vec<Kept>,
}

/// The rows of each partition.
fn rows(project: &Project) -> Vec<Vec<Row>> {
    let of_file = |file: PathBuf| batches(&file).iter().flat_map(of_batch).collect();
    stage_files(project, "m.toml", "pixels").into_iter().map(of_file).collect()
}

fn of_batch(batch: &RecordBatch) -> Vec<Row> {
    let list = |name: &str| batch.column_by_name(name).unwrap().as_list::<i32>().clone();
    let (pixels, origins) = (list("pixels"), list("origins"));
    let rejects: &StringArray = batch.column_by_name("reject").unwrap().as_string();
    let of_row = |row: usize| {
        if pixels.is_null(row) {
            return Vec::new();
        }
        let (items, origins) = (pixels.value(row), origins.value(row));
        let (items, origins): (&BinaryViewArray, _) = (items.as_binary_view(), origins.as_struct());
        let part = |name: &str, item: usize| {
            let numbers = origins.column_by_name(name).unwrap().as_primitive::<UInt32Type>();
            numbers.is_valid(item).then(|| numbers.value(item) as usize)
        };
        let place = |item| Some((part("partition", item)?, part("row", item)?, part("item", item)?));
        let one =
            |(item, bytes): (usize, Option<&[u8]>)| bytes.map(<[u8]>::to_vec).ok_or_else(|| place(item));
        items.iter().enumerate().map(one).collect()
    };
    (0..batch.num_rows())
        .map(|row| Row {
            reject: rejects.is_valid(row).then(|| rejects.value(row).to_owned()),
            images: of_row(row),
        })
        .collect()
}

/// What each row shows, wherever it stands; its reason where it was rejected.
fn shown(rows: &[Vec<Row>]) -> Vec<Result<Vec<u8>, String>> {
    let image = |image: &Kept| match image {
        Ok(bytes) => bytes.clone(),
        Err(place) => {
            let (partition, row, item) = place.unwrap();
            rows[partition][row].images[item].clone().unwrap()
        }
    };
    let all = rows.iter().flatten();
    all.map(|row| row.reject.clone().map_or_else(|| Ok(row.images.iter().flat_map(image).collect()), Err))
        .collect()
}

#[test]
fn equal_images_are_kept_once_and_every_row_shows_its_own() {
    let project = project(&image_of);
    let summary = project.run(&["m.toml"]);
    assert_eq!(summary["pixels.distinct"].kind, "distinct-images");
    let found = rows(&project);
    let kept: Vec<&Vec<u8>> = found.iter().flatten().flat_map(|row| row.images.iter().flatten()).collect();
    assert_eq!((found.len(), kept.len()), (8, IMAGES));
    // Each row as it is when it is the only one.
    let mut known: BTreeMap<String, Result<Vec<u8>, String>> = BTreeMap::new();
    for (row, found) in shown(&found).into_iter().enumerate() {
        if row == 3 {
            assert!(found.unwrap_err().starts_with("filter/"), "the row that stood first for others");
            continue;
        }
        let name = image_of(row);
        let alone = known.entry(name.clone()).or_insert_with(|| {
            let project = self::project(&|_| name.clone());
            project.replace("m.toml", "from = \"long\"", "from = \"rows\"");
            project.run(&["m.toml"]);
            shown(&rows(&project)).swap_remove(0)
        });
        assert_eq!(&found, alone, "row {row}, {name}");
    }
    assert!(known["x.jpg"].as_ref().unwrap_err().starts_with("decode-resize/undecodable"));
}

#[test]
fn threads_and_processes_change_no_byte() {
    let once = |jobs: &str| {
        let project = project(&image_of);
        project.run(&["m.toml", "--jobs", jobs]);
        results(&project.path(".llavm"))
    };
    let one = once("1");
    for jobs in ["2", "5"] {
        assert_same(&one, &once(jobs));
    }
}

#[test]
fn another_image_makes_again_only_what_stands_elsewhere_now() {
    let project = project(&image_of);
    project.run(&["m.toml"]);
    let (last, before) = (ROWS - 1, shown(&rows(&project)));
    // The only row of the last partition that changes shows what stands in the first.
    write_rows(&project, &|row| if row == last { image_of(0) } else { image_of(row) });
    let summary = project.run(&["m.toml"]);
    assert_eq!((summary["pixels"].ran, summary["pixels"].reused), (1, 7));
    let after = shown(&rows(&project));
    assert_eq!((&after[..last], &after[last]), (&before[..last], &before[0]));
    // The first row, whose image stood there for others, shows what cannot be decoded: its image stands elsewhere now.
    write_rows(&project, &|row| if row == 0 { "x.jpg".to_owned() } else { image_of(row) });
    project.run(&["m.toml"]);
    let found = rows(&project);
    let after = shown(&found);
    assert!(after[0].as_ref().unwrap_err().contains("undecodable"));
    assert_eq!(after[1..], before[1..]);
    assert_eq!(found.iter().flatten().flat_map(|row| row.images.iter().flatten()).count(), IMAGES);
}

#[test]
fn pixels_that_are_not_stored_and_those_kept_once_are_the_same() {
    let kept = project(&image_of);
    kept.run(&["m.toml"]);
    kept.stdout(&["peek", "m.toml", "pixels", "--rows", "60", "--html", "kept.html"]);
    kept.replace("m.toml", "size = 28", "size = 28\nstore = false");
    kept.stdout(&["peek", "m.toml", "pixels", "--rows", "60", "--html", "computed.html"]);
    assert_eq!(kept.read("kept.html"), kept.read("computed.html"));
}

#[test]
fn a_run_from_the_pixels_on_makes_what_goes_before_them() {
    let project = project(&image_of);
    project.run(&["m.toml", "--until", "long"]);
    let summary = project.run(&["m.toml", "--from", "pixels"]);
    assert_eq!(crate::project::ran(&summary), ["pixels", "pixels.distinct"]);
}
