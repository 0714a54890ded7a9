//! `shard` on tables in memory: nothing lost, nothing twice, the same every time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::unused_self, reason = "what a row holds is asked of its set")]

mod common;

use arrow::array::{Array, BooleanBuilder, Int32Builder, ListBuilder, StringBuilder, UInt32Builder};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Int32Type, UInt32Type};
use arrow::ipc::reader::FileReader;
use llavm_pipeline::stage::{BatchIterator, Digest, GatherInputs, GatherStage, Group, PartitionView};
use llavm_pipeline::{Columns, StageError};
use llavm_stages::arrays::list_of;
use llavm_stages::shard::Shard;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of made-up tokens: row `n` of group `g` has `length(n)` tokens, all `g * 1000000 + n`; every seventh is rejected
/// if `rejects`.
#[derive(Clone)]
struct Made {
    group: u32,
    partition: usize,
    first: u32,
    rows: u32,
    rejects: bool,
    salt: u32,
}

impl Made {
    fn token(&self, row: u32) -> u32 {
        self.group * 1_000_000 + row
    }

    fn is_rejected(&self, row: u32) -> bool {
        self.rejects && row % 7 == 3
    }

    /// Five rows show an image, in whatever group.
    fn image(&self, row: u32) -> u32 {
        row / 5
    }

    fn is_untrained(&self, row: u32) -> bool {
        row % 11 == 5
    }

    fn length(&self, row: u32) -> u32 {
        1 + (row * 37 + self.salt) % 50
    }

    fn batch(&self, rows: std::ops::Range<u32>) -> RecordBatch {
        let mut ids = ListBuilder::new(UInt32Builder::new());
        let mut labels = ListBuilder::new(Int32Builder::new());
        for row in rows.clone() {
            let fine = !self.is_rejected(row);
            for n in (0..self.length(row)).filter(|_| fine) {
                ids.values().append_value(self.token(row));
                labels.values().append_value(if n == 0 { -100 } else { self.token(row).cast_signed() });
            }
            ids.append(fine);
            labels.append(fine);
        }
        let reason =
            |row| if row % 2 == 0 { "decode-resize/undecodable: no" } else { "tokenize/too-long: 9 tokens" };
        let reject: StringArray =
            rows.clone().map(|row| self.is_rejected(row).then(|| reason(row))).collect();
        let n_images: UInt32Array =
            rows.clone().map(|row| (!self.is_rejected(row)).then_some(row % 3)).collect();
        let id: StringArray = rows.clone().map(|row| Some(self.token(row).to_string())).collect();
        let mut images = ListBuilder::new(StringBuilder::new());
        let mut train = ListBuilder::new(BooleanBuilder::new());
        for row in rows.clone() {
            images.append_value([Some(format!("{}.jpg", self.image(row)))]);
            train.append_value((0..self.length(row)).map(|n| Some(n > 0 && !self.is_untrained(row))));
        }
        let mut kind = ListBuilder::new(StringBuilder::new());
        for row in rows {
            kind.extend([(row % 4 > 0).then(|| (0..row % 4).map(|n| Some(format!("{row} {n}"))))]);
        }
        RecordBatch::try_from_iter_with_nullable([
            ("input_ids", Arc::new(ids.finish()) as ArrayRef, true),
            ("labels", Arc::new(labels.finish()) as ArrayRef, true),
            ("n_images", Arc::new(n_images) as ArrayRef, true),
            ("id", Arc::new(id) as ArrayRef, true),
            ("kind", Arc::new(kind.finish()) as ArrayRef, true),
            ("group", Arc::new(images.finish()) as ArrayRef, true),
            ("train", Arc::new(train.finish()) as ArrayRef, true),
            ("reject", Arc::new(reject) as ArrayRef, true),
        ])
        .unwrap()
    }
}

impl PartitionView for Made {
    fn index(&self) -> usize {
        self.partition
    }

    fn first_row(&self) -> u64 {
        self.first.into()
    }

    fn rows(&self) -> usize {
        self.rows as usize
    }

    fn batches(&self, columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
        let wanted: Vec<String> = columns.iter().chain(&["reject"]).map(|name| (*name).to_owned()).collect();
        let project = move |batch: RecordBatch| {
            let indices: Vec<usize> =
                wanted.iter().map(|name| batch.schema().index_of(name).unwrap()).collect();
            batch.project(&indices).map_err(StageError::from)
        };
        let end = self.first + self.rows;
        let starts = (self.first..end).step_by(16);
        Ok(Box::new(starts.map(move |start| project(self.batch(start..end.min(start + 16))))))
    }

    fn files(&self) -> Vec<Option<PathBuf>> {
        vec![Some(PathBuf::from(format!("tables/labels/{}.arrow", self.partition))), None]
    }

    fn digests(&self) -> Vec<Digest> {
        vec![blake3::hash(b"labels"), blake3::hash(b"pixels")]
    }
}

fn group(number: u32, rows: u32, weight: f64, salt: u32) -> Group<'static> {
    let partition = |(partition, first): (usize, u32)| {
        let rows = 40.min(rows - first);
        Box::new(Made { group: number, partition, first, rows, rejects: true, salt })
            as Box<dyn PartitionView>
    };
    let partitions = (0..rows).step_by(40).enumerate().map(partition).collect();
    let tables = vec!["labels".to_owned(), "pixels".to_owned()];
    Group { weight, tables, kept: kept(), partitions }
}

/// What a group has besides tokens.
fn kept() -> Columns {
    Columns::new().with("id", DataType::Utf8).with("kind", list_of(DataType::Utf8))
}

/// The same with the names of their images.
fn with_images(mut group: Group<'static>) -> Group<'static> {
    group.kept = kept().with("group", list_of(DataType::Utf8));
    group
}

/// One row of a shard: tokens, labels, number of images, (group, partition, row).
type Row = (Vec<u32>, Vec<i32>, u32, [u32; 3]);

struct Output(tempfile::TempDir);

impl Output {
    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.0.path().join(name)).unwrap()).unwrap()
    }

    fn rows(&self, split: &str) -> Vec<Vec<Row>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.0.path().join(split))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| shard_rows(file)).collect()
    }

    fn all(&self, split: &str) -> Vec<Row> {
        self.rows(split).concat()
    }

    /// Every file, by name.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in ["", "train", "validation"] {
            for entry in std::fs::read_dir(self.0.path().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let name = path.strip_prefix(self.0.path()).unwrap().to_owned();
                    files.insert(name, std::fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

fn shard_rows(path: &Path) -> Vec<Row> {
    let batches = FileReader::try_new(File::open(path).unwrap(), None).unwrap();
    let mut rows = Vec::new();
    for batch in batches.map(Result::unwrap) {
        let list = |name: &str, row: usize| batch.column_by_name(name).unwrap().as_list::<i32>().value(row);
        let pointer = batch.column_by_name("row").unwrap().as_struct();
        for row in 0..batch.num_rows() {
            let part = |name| pointer.column_by_name(name).unwrap().as_primitive::<UInt32Type>().value(row);
            rows.push((
                list("input_ids", row).as_primitive::<UInt32Type>().values().to_vec(),
                list("labels", row).as_primitive::<Int32Type>().values().to_vec(),
                batch.column_by_name("n_images").unwrap().as_primitive::<UInt32Type>().value(row),
                [part("group"), part("partition"), part("row")],
            ));
        }
    }
    rows
}

fn shard(groups: Vec<Group<'_>>, seed: u64, params: Value) -> Output {
    let stage: Shard = serde_json::from_value(params).unwrap();
    let output = tempfile::tempdir().unwrap();
    stage.gather(&GatherInputs { groups, seed }, output.path()).unwrap();
    Output(output)
}

/// How many of the first `rows` rows are not rejected.
fn usable(rows: u32) -> usize {
    (0..rows).filter(|row| row % 7 != 3).count()
}

/// Rows by their place in the whole table, sorted.
fn table_rows(rows: &[Row]) -> Vec<(u32, u32)> {
    let mut places: Vec<_> = rows.iter().map(|row| (row.3[0], row.3[1] * 40 + row.3[2])).collect();
    places.sort_unstable();
    places
}

#[test]
fn every_usable_row_is_in_one_split_once_and_points_at_where_it_came_from() {
    let output = shard(vec![group(0, 250, 1.0, 0), group(1, 100, 1.0, 0)], 42, json!({ "validation": 0.1 }));
    let (train, validation) = (output.all("train"), output.all("validation"));
    assert_eq!(
        validation.len(),
        (usable(250) as f64 * 0.1).round() as usize + (usable(100) as f64 * 0.1).round() as usize
    );
    let places = table_rows(&[train.clone(), validation.clone()].concat());
    let expected: Vec<_> = [(0, 250), (1, 100)]
        .into_iter()
        .flat_map(|(g, n)| (0..n).filter(|row| row % 7 != 3).map(move |row| (g, row)))
        .collect();
    assert_eq!(places, expected);
    for (ids, labels, n_images, [group, partition, row]) in train.iter().chain(&validation) {
        let place = partition * 40 + row;
        let made = Made { group: *group, partition: 0, first: 0, rows: 0, rejects: true, salt: 0 };
        assert_eq!(ids, &vec![made.token(place); made.length(place) as usize]);
        assert_eq!((labels[0], *n_images), (-100, place % 3));
        assert!(labels[1..].iter().all(|label| *label == made.token(place).cast_signed()));
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_another_seed_another_order() {
    let params = json!({ "validation": 0.2, "bucket": "length", "bucket_rows": 8 });
    let run = |seed| shard(vec![group(0, 250, 1.0, 0)], seed, params.clone());
    assert_eq!(run(1).bytes(), run(1).bytes());
    assert_ne!(run(1).all("train"), run(2).all("train"));
    assert_ne!(table_rows(&run(1).all("validation")), table_rows(&run(2).all("validation")));
}

#[test]
fn a_change_of_text_leaves_the_split_as_it_was() {
    let run = |salt| shard(vec![group(0, 250, 1.0, salt)], 42, json!({ "validation": 0.1 }));
    assert_eq!(table_rows(&run(0).all("validation")), table_rows(&run(9).all("validation")));
    assert_ne!(run(0).all("train"), run(9).all("train"));
}

#[test]
fn rejected_rows_are_left_out_and_told_by_reason() {
    let output = shard(vec![group(0, 50, 1.0, 0)], 42, json!({}));
    let rejects = output.json("rejects.json");
    assert_eq!(rejects["total"], 7);
    assert_eq!(rejects["by_reason"], json!({ "decode-resize/undecodable": 3, "tokenize/too-long": 4 }));
    assert_eq!(
        rejects["rows"][6],
        json!({ "group": 0, "partition": 1, "row": 5, "reason": "tokenize/too-long: 9 tokens" })
    );
    let shards = output.json("shards.json");
    assert_eq!(shards["train"]["rows"], 43);
    assert_eq!(shards["rejected"], rejects["by_reason"]);
    assert_eq!(shards["groups"][0]["rows"], 50);
    assert_eq!(shards["groups"][0]["partitions"][1]["files"], json!(["tables/labels/1.arrow", null]));
}

#[test]
fn a_weight_says_how_often_a_row_is_trained_on() {
    let groups =
        vec![group(0, 100, 2.0, 0), group(1, 100, 0.5, 0), group(2, 100, 1.5, 0), group(3, 100, 0.0, 0)];
    let output = shard(groups, 42, json!({ "validation": 0.1 }));
    let mut times: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    for place in table_rows(&output.all("train")) {
        *times.entry(place).or_default() += 1;
    }
    let n = usable(100) - (usable(100) as f64 * 0.1).round() as usize;
    let rows =
        |group, often| times.iter().filter(|(place, times)| place.0 == group && **times == often).count();
    let half = (n as f64 / 2.0).round() as usize;
    assert_eq!([rows(0, 2), rows(1, 1), rows(2, 2), rows(2, 1)], [n, half, half, n - half]);
    assert!(times.keys().all(|place| place.0 != 3));
    assert_eq!(output.json("shards.json")["train"]["groups"], json!([2 * n, half, n + half, 0]));
    assert_eq!(output.all("validation").len(), 4 * (usable(100) - n));
}

#[test]
fn files_hold_as_many_rows_as_asked_and_nothing_else_is_left() {
    let output = shard(vec![group(0, 250, 1.0, 0)], 42, json!({ "rows_per_shard": 50 }));
    let lengths: Vec<usize> = output.rows("train").iter().map(Vec::len).collect();
    assert_eq!(lengths, [50, 50, 50, 50, usable(250) - 200]);
    assert_eq!(output.json("shards.json")["train"]["shards"], json!(lengths));
    let names: Vec<_> = output.bytes().into_keys().collect();
    assert_eq!(names[0], PathBuf::from("rejects.json"));
    assert_eq!(names.last().unwrap(), &PathBuf::from("train/00004.arrow"));
    assert_eq!(names.len(), 7);
    let whole = shard(vec![group(0, 250, 1.0, 0)], 42, json!({}));
    assert_eq!(whole.all("train"), output.all("train"));
}

#[test]
fn buckets_bring_rows_of_like_length_together_and_lose_none() {
    let params = |bucket: &str| json!({ "bucket": bucket, "bucket_rows": 8 });
    let padding = |output: &Output| -> usize {
        let rows = output.all("train");
        let longest = |batch: &[Row]| batch.iter().map(|row| row.0.len()).max().unwrap();
        let padded: usize = rows.chunks(8).map(|batch| longest(batch) * batch.len()).sum();
        padded - rows.iter().map(|row| row.0.len()).sum::<usize>()
    };
    let run = |bucket| shard(vec![group(0, 250, 1.0, 0)], 42, params(bucket));
    let (none, length) = (run("none"), run("length"));
    assert_eq!(table_rows(&none.all("train")), table_rows(&length.all("train")));
    assert!(padding(&length) * 10 < padding(&none), "{} and {}", padding(&length), padding(&none));
    let first: Vec<usize> = length.all("train").chunks(8).map(|batch| batch[0].0.len()).collect();
    assert!(!first.is_sorted(), "the runs themselves are shuffled");
}

#[test]
fn partitions_one_by_one_have_together_what_the_table_has() {
    let stage = json!({ "validation": 0.03, "shuffle": "partition" });
    let mut rows = Vec::new();
    let mut n_validation = 0;
    for first in (0..400).step_by(40) {
        let made =
            Made { group: 1, partition: first as usize / 40, first, rows: 40, rejects: false, salt: 0 };
        let tables = vec!["labels".to_owned(), "pixels".to_owned()];
        let empty = Group { weight: 1.0, tables: tables.clone(), kept: kept(), partitions: Vec::new() };
        let partitions = vec![Box::new(made) as Box<dyn PartitionView>];
        let one = Group { weight: 1.0, tables, kept: kept(), partitions };
        let output = shard(vec![empty, one], 42, stage.clone());
        n_validation += output.all("validation").len();
        rows.extend(output.all("train"));
        rows.extend(output.all("validation"));
    }
    assert_eq!(n_validation, 12);
    assert_eq!(table_rows(&rows), (0..400).map(|row| (1, row)).collect::<Vec<_>>());
}

#[test]
fn a_table_without_usable_rows_gives_empty_splits() {
    let output = shard(vec![group(0, 0, 1.0, 0)], 42, json!({ "validation": 0.5 }));
    assert_eq!(output.json("shards.json")["train"]["rows"], 0);
    assert_eq!(output.all("validation"), []);
}

/// The batches of all files of a split, one after the other.
fn batch(output: &Output, split: &str) -> RecordBatch {
    let folder = output.0.path().join(split);
    let files = (0..).map(|n| folder.join(format!("{n:05}.arrow"))).take_while(|file| file.exists());
    let batches: Vec<RecordBatch> = files
        .flat_map(|file| FileReader::try_new(File::open(file).unwrap(), None).unwrap().map(Result::unwrap))
        .collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[test]
fn kept_columns_stay_with_their_rows_through_split_mix_and_shuffle() {
    let params = json!({ "validation": 0.3, "keep": ["kind", "language"], "rows_per_shard": 50 });
    let without = Group { kept: Columns::new().with("id", DataType::Utf8), ..group(1, 60, 1.0, 5) };
    let output = shard(vec![group(0, 130, 2.0, 0), without], 42, params);
    for split in ["train", "validation"] {
        let batch = batch(&output, split);
        assert!(batch.num_rows() > 30);
        let (id, kind) = (batch["id"].as_string::<i32>(), batch["kind"].as_list::<i32>());
        assert_eq!(batch["language"].null_count(), batch.num_rows());
        for (n, row) in output.all(split).iter().enumerate() {
            assert_eq!(id.value(n), row.0[0].to_string());
            let (group, number) = (row.0[0] / 1_000_000, row.0[0] % 1_000_000);
            assert_eq!(kind.is_null(n), group == 1 || number % 4 == 0);
            if kind.is_valid(n) {
                let kinds = kind.value(n);
                let kinds: Vec<_> = kinds.as_string::<i32>().iter().map(Option::unwrap).collect();
                let expected: Vec<_> =
                    (0..number % 4).map(|question| format!("{number} {question}")).collect();
                assert_eq!(kinds, expected);
            }
        }
    }
}

#[test]
fn a_row_is_left_out_for_what_its_tables_say_and_not_for_what_is_kept() {
    struct Strict(Made);
    impl PartitionView for Strict {
        fn index(&self) -> usize {
            self.0.index()
        }
        fn first_row(&self) -> u64 {
            self.0.first_row()
        }
        fn rows(&self) -> usize {
            self.0.rows()
        }
        /// Whoever reads `kind` sees every row rejected.
        fn batches(&self, columns: &[&str]) -> Result<BatchIterator<'_>, StageError> {
            let strict = columns.contains(&"kind");
            Ok(Box::new(self.0.batches(columns)?.map(move |batch| {
                let batch = batch?;
                let mut arrays = batch.columns().to_vec();
                if strict && let Some(reject) = arrays.last_mut() {
                    *reject = Arc::new(StringArray::from(vec!["read/bad: kind"; batch.num_rows()]));
                }
                Ok(RecordBatch::try_new(batch.schema(), arrays)?)
            })))
        }
        fn files(&self) -> Vec<Option<PathBuf>> {
            self.0.files()
        }
        fn digests(&self) -> Vec<Digest> {
            self.0.digests()
        }
    }
    let made = Made { group: 0, partition: 0, first: 0, rows: 70, rejects: true, salt: 0 };
    let strict = vec![Box::new(Strict(made)) as Box<dyn PartitionView>];
    let output =
        shard(vec![Group { partitions: strict, ..group(0, 0, 1.0, 0) }], 42, json!({ "keep": ["kind"] }));
    assert_eq!(output.all("train").len(), usable(70));
}

/// Images by number, of rows of groups of tables in which five rows show each.
fn images(rows: &[Row]) -> BTreeSet<u32> {
    table_rows(rows).into_iter().map(|(_, row)| row / 5).collect()
}

#[test]
fn rows_of_one_image_are_on_one_side_whatever_group_they_are_of() {
    let groups = || vec![with_images(group(0, 400, 1.0, 0)), with_images(group(1, 200, 2.0, 0))];
    let output = shard(groups(), 42, json!({ "validation": 0.1 }));
    let (train, validation) = (output.all("train"), output.all("validation"));
    assert!(images(&train).is_disjoint(&images(&validation)));
    let wanted = (usable(400) + usable(200)) as f64 * 0.1;
    let share = validation.len() as f64;
    assert!((wanted - 5.0..=wanted + 15.0).contains(&share), "{share} rows for {wanted}");
    assert_eq!(output.bytes(), shard(groups(), 42, json!({ "validation": 0.1 })).bytes());
    let by_row = shard(groups(), 42, json!({ "validation": 0.1, "split": "row" }));
    assert!(!images(&by_row.all("train")).is_disjoint(&images(&by_row.all("validation"))));
}

#[test]
fn partitions_taken_one_by_one_agree_on_the_side_of_an_image() {
    let side = |partition: usize| {
        let mut group = with_images(group(0, 400, 1.0, 0));
        group.partitions = vec![group.partitions.remove(partition)];
        shard(vec![group], 42, json!({ "validation": 0.3, "shuffle": "partition" }))
    };
    let units: Vec<Output> = (0..10).map(side).collect();
    let all = |split: &str| units.iter().flat_map(|unit| unit.all(split)).collect::<Vec<_>>();
    assert!(images(&all("train")).is_disjoint(&images(&all("validation"))));
    let share = all("validation").len() as f64 / usable(400) as f64;
    assert!((0.15..0.45).contains(&share), "{share}");
}

#[test]
fn a_set_of_few_images_keeps_one_of_them_for_validation() {
    let output = shard(vec![with_images(group(0, 15, 1.0, 0))], 42, json!({ "validation": 0.1 }));
    assert_eq!(images(&output.all("validation")).len(), 1);
    assert_eq!(images(&output.all("train")).len(), 2);
}

#[test]
fn unshifted_labels_are_those_of_the_same_token_and_the_file_says_so() {
    let note = |output: &Output| {
        let file = File::open(output.0.path().join("train/00000.arrow")).unwrap();
        FileReader::try_new(file, None).unwrap().schema().metadata()["llavm.labels"].clone()
    };
    let shifted = shard(vec![group(0, 100, 1.0, 0)], 42, json!({}));
    let output = shard(vec![group(0, 100, 1.0, 0)], 42, json!({ "shift": false }));
    assert_eq!((note(&shifted).as_str(), note(&output).as_str()), ("shifted", "unshifted"));
    assert_eq!(output.json("shards.json")["shifted"], false);
    for (ids, labels, ..) in output.all("train") {
        assert_eq!(
            (labels[0], &labels[1..]),
            (-100, &ids[1..].iter().map(|id| id.cast_signed()).collect::<Vec<_>>()[..])
        );
    }
    let untrained =
        (0..100).filter(|row| row % 7 != 3 && (row % 11 == 5 || 1 + (row * 37) % 50 == 1)).count();
    assert_eq!(output.json("rejects.json")["by_reason"]["shard/nothing-to-train"], untrained);
}
