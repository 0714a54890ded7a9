//! Every sample manifest runs, and its shards hold what the data say.

use crate::project::{Project, repository};
use crate::tables::{Tokens, batches, shards_folder, stage_files, tokens_of_split};
use arrow::array::{Array, AsArray};
use std::collections::{BTreeMap, BTreeSet};

/// Manifest, the folder it reads, its rows, and its rows in training and validation shards.
const SAMPLES: [(&str, &str, u64, usize, usize); 4] = [
    ("cc3m-sample", "cc3m", 320, 304, 16),
    ("instruct-sample", "instruct", 128, 115, 13),
    ("llava-sample", "llava", 40, 36, 4),
    // two groups of 32: 3 of each for validation, the captions twice in training
    ("zh-sample", "zh", 64, 2 * 29 + 29, 6),
];
/// `input_ids` and `labels`.
type Expected = (Vec<u32>, Vec<i32>);

const IMAGE_PAD: u32 = 151_655;
const IM_END: i32 = 151_645;
const IGNORE: i32 = -100;

fn sample(name: &str, data: &str) -> (Project, String) {
    let manifest = format!("manifests/{name}.toml");
    (Project::with(&[&format!("data/{data}"), "data/qwen3-tokenizer", &manifest]), manifest)
}

fn splits(project: &Project, manifest: &str) -> [Vec<Tokens>; 2] {
    let folder = shards_folder(project, manifest, "shards");
    ["train", "validation"].map(|split| tokens_of_split(&folder, split))
}

#[test]
fn every_sample_runs_and_no_row_of_it_is_rejected() {
    for (name, data, rows, train, validation) in SAMPLES {
        let (project, manifest) = sample(name, data);
        let summary = project.run(&[&manifest]);
        let read: u64 = summary.values().filter(|stage| stage.kind == "read").map(|stage| stage.rows).sum();
        assert_eq!(read, rows, "{name}");
        assert!(summary.values().all(|stage| stage.rejected.is_empty()), "{name}: {summary:?}");
        assert_eq!(splits(&project, &manifest).map(|rows| rows.len()), [train, validation], "{name}");
    }
}

#[test]
fn a_row_has_49_pads_an_image_and_loss_on_answers_only() {
    for (name, data, ..) in SAMPLES {
        let (project, manifest) = sample(name, data);
        project.run(&[&manifest]);
        for row in splits(&project, &manifest).into_iter().flatten() {
            let pads = row.input_ids.iter().filter(|id| **id == IMAGE_PAD).count();
            assert_eq!(pads, 49 * row.n_images as usize, "{name} {:?}", row.place);
            assert_eq!(row.labels.len(), row.input_ids.len(), "{name} {:?}", row.place);
            let trained: Vec<_> = row.labels.iter().filter(|label| **label != IGNORE).copied().collect();
            assert!(
                trained.contains(&IM_END) && !trained.contains(&(IMAGE_PAD as i32)),
                "{name} {:?}",
                row.place
            );
            for (next, label) in
                row.input_ids.iter().skip(1).zip(&row.labels).filter(|(_, label)| **label != IGNORE)
            {
                assert_eq!(*label, next.cast_signed(), "{name} {:?}: a label is the next token", row.place);
            }
        }
    }
}

#[test]
fn no_row_is_in_training_and_validation() {
    for (name, data, ..) in SAMPLES {
        let (project, manifest) = sample(name, data);
        project.run(&[&manifest]);
        let [train, validation] = splits(&project, &manifest)
            .map(|rows| rows.into_iter().map(|row| row.place).collect::<BTreeSet<_>>());
        assert_eq!(train.intersection(&validation).count(), 0, "{name}");
    }
}

#[test]
fn a_row_of_tokens_points_at_its_own_pixels() {
    let (project, manifest) = sample("llava-sample", "llava");
    project.run(&[&manifest]);
    let pixels: BTreeMap<_, _> = (0..).zip(stage_files(&project, &manifest, "pixels")).collect();
    for row in splits(&project, &manifest).into_iter().flatten() {
        let (_, partition, index) = row.place;
        let images: Vec<_> = batches(&pixels[&partition])
            .into_iter()
            .flat_map(|batch| {
                let lists = batch.column_by_name("pixels").unwrap().as_list::<i32>().clone();
                (0..lists.len()).map(move |row| lists.value(row)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(images[index as usize].len(), row.n_images as usize, "{:?}", row.place);
    }
}

#[test]
fn the_first_rows_are_those_transformers_gives() {
    // sample_tokens.json is written by scripts/check_with_python.py --fixture
    let fixture = std::fs::read_to_string(repository().join("tests/pipeline/sample_tokens.json")).unwrap();
    let fixture: BTreeMap<String, Vec<Expected>> = serde_json::from_str(&fixture).unwrap();
    let tables = [
        ("cc3m-sample", "cc3m", "labels"),
        ("instruct-sample", "instruct", "labels"),
        ("llava-sample", "llava", "labels"),
        ("zh-sample", "zh", "captions-labels"),
        ("zh-sample", "zh", "talk-labels"),
    ];
    for (name, data, stage) in tables {
        let (project, manifest) = sample(name, data);
        project.run(&[&manifest, "--until", stage]);
        let first = batches(&stage_files(&project, &manifest, stage)[0]).remove(0);
        let ids = first.column_by_name("input_ids").unwrap().as_list::<i32>();
        let labels = first.column_by_name("labels").unwrap().as_list::<i32>();
        let expected = &fixture[&format!("{name}/{stage}")];
        assert!(!expected.is_empty());
        for (row, (want_ids, want_labels)) in expected.iter().enumerate() {
            let ids = ids.value(row);
            let labels = labels.value(row);
            assert_eq!(
                ids.as_primitive::<arrow::datatypes::UInt32Type>().values().to_vec(),
                *want_ids,
                "{name} row {row}"
            );
            assert_eq!(
                labels.as_primitive::<arrow::datatypes::Int32Type>().values().to_vec(),
                *want_labels,
                "{name} row {row}"
            );
        }
    }
}
