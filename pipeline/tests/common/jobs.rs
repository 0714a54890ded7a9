//! Toy stages that give folders: `pack` gathers, `count` and `probe` are jobs.

use super::toys::column;
use super::trap::trap;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use llavm_pipeline::stage::{
    GatherInputs, GatherStage, JobContext, JobStage, Kept, Parameters, StageKind, Units,
};
use llavm_pipeline::{Columns, StageError};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Gather: writes `rows.txt` (texts of all rows that are fine) and `files.txt` (what a shard would point at).
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pack {
    pub per_partition: bool,
    /// Columns written to `kept.txt`.
    pub keep: Vec<String>,
    /// See [`trap`].
    #[serde(skip_serializing)]
    pub trap: PathBuf,
}

impl StageKind for Pack {
    const KIND: &'static str = "pack";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy shard";
}
impl Parameters for Pack {}
impl GatherStage for Pack {
    fn input(&self) -> Columns {
        Columns::new().with("upper", DataType::Utf8)
    }

    fn keeps(&self) -> Vec<Kept> {
        let kept = |name: &String| Kept { name: name.clone(), param: "keep", optional: name == "id" };
        self.keep.iter().map(kept).collect()
    }

    fn units(&self) -> Units {
        if self.per_partition { Units::PerPartition } else { Units::Whole }
    }

    fn gather(&self, inputs: &GatherInputs<'_>, output: &Path) -> Result<(), StageError> {
        trap(&self.trap);
        let (mut lines, mut files) = (String::new(), String::new());
        for group in &inputs.groups {
            for view in &group.partitions {
                let (index, first, rows) = (view.index(), view.first_row(), view.rows());
                writeln!(files, "{index} {first} {rows} {:?}", view.files()).unwrap();
                for batch in view.batches(&["upper"])? {
                    let batch = batch?;
                    let (upper, reject) = (column(&batch, "upper"), column(&batch, "reject"));
                    for row in 0..batch.num_rows() {
                        if reject.is_null(row) {
                            writeln!(lines, "{}", upper.value(row)).unwrap();
                        }
                    }
                }
            }
        }
        if !self.keep.is_empty() {
            fs::write(output.join("kept.txt"), kept(inputs)?).unwrap();
        }
        fs::create_dir(output.join("inner")).unwrap();
        fs::write(output.join("inner/rows.txt"), lines).unwrap();
        fs::write(output.join("files.txt"), files).unwrap();
        Ok(())
    }
}

/// The kept columns of all rows, a line each.
fn kept(inputs: &GatherInputs<'_>) -> Result<String, StageError> {
    let mut lines = String::new();
    for group in &inputs.groups {
        let names: Vec<&str> = group.kept.names().collect();
        for view in &group.partitions {
            for batch in view.batches(&names)? {
                lines += &text(&batch?.project(&(0..names.len()).collect::<Vec<_>>())?);
            }
        }
    }
    Ok(lines)
}
/// The rows of a batch, a line each, values apart by a space.
pub fn text(batch: &RecordBatch) -> String {
    let value = |row: usize| {
        move |column: &ArrayRef| {
            if column.is_null(row) { "-".to_owned() } else { array_value_to_string(column, row).unwrap() }
        }
    };
    let line = |row: usize| batch.columns().iter().map(value(row)).collect::<Vec<_>>().join(" ") + "\n";
    (0..batch.num_rows()).map(line).collect()
}

/// Job: counts the rows of all units. Goes on where an interrupted one stopped.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Count {
    pub name: String,
    /// A file to which every unit is noted when it is read.
    #[serde(skip_serializing)]
    pub trace: PathBuf,
    /// Units after which the job waits until the run is cancelled; 0 for never.
    #[serde(skip_serializing)]
    pub wait_after: usize,
    /// See [`trap`].
    #[serde(skip_serializing)]
    pub trap: PathBuf,
}

impl StageKind for Count {
    const KIND: &'static str = "count";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy job";
}
impl Parameters for Count {}
impl JobStage for Count {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let saved = context.output().join("total.txt");
        let before = fs::read_to_string(&saved).unwrap_or_else(|_| "0 0".to_owned());
        let (done, total) = before.split_once(' ').unwrap();
        let (mut unit, mut total): (usize, usize) = (done.parse().unwrap(), total.parse().unwrap());
        while let Some(folder) = context.folder(0, unit)? {
            trap(&self.trap);
            let rows = fs::read_to_string(folder.join("inner/rows.txt")).unwrap().lines().count();
            total += rows;
            unit += 1;
            fs::write(&saved, format!("{unit} {total}")).unwrap();
            let mut trace = fs::read_to_string(&self.trace).unwrap_or_default();
            writeln!(trace, "{unit}").unwrap();
            fs::write(&self.trace, trace).unwrap();
            context.progress(0.5, "counting");
            while unit == self.wait_after && !context.cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if context.cancelled() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Job: writes down what it sees of the world.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Another stage to read.
    #[serde(skip_serializing)]
    pub init_from: Option<String>,
    /// Columns to take of each table of the gather stage that is input 0.
    pub take: Vec<Vec<String>>,
    /// Has no effect on the output but on what is ephemeral.
    #[serde(skip_serializing)]
    pub clock: String,
}

impl StageKind for Probe {
    const KIND: &'static str = "probe";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "toy job";
    const LINKS: &'static [&'static str] = &["init_from"];
}
impl Parameters for Probe {}
impl JobStage for Probe {
    fn run(&self, context: &dyn JobContext) -> Result<(), StageError> {
        let write = |name: &str, text: String| fs::write(context.output().join(name), text).unwrap();
        write("inputs.txt", context.inputs().join(" "));
        write("threads.txt", context.pool().install(rayon::current_num_threads).to_string());
        for (table, columns) in self.take.iter().enumerate() {
            write(&format!("table-{table}.txt"), take(context, table, columns)?);
        }
        let lineage: Vec<String> =
            context.lineage(0)?.into_iter().map(|stage| format!("{} {}", stage.name, stage.kind)).collect();
        write("lineage.txt", lineage.join("\n"));
        let settings =
            context.settings(0)?.into_iter().map(|one| format!("{} {} {}", one.stage, one.what, one.value));
        write("settings.txt", settings.collect::<Vec<_>>().join("\n"));
        fs::create_dir_all(context.output().join("runs")).unwrap();
        write("runs/origin.json", serde_json::to_string(&context.origin()?).unwrap());
        write("runs/clock.txt", self.clock.clone());
        Ok(())
    }

    fn ephemeral(&self) -> &'static [&'static str] {
        &["runs"]
    }

    fn reads_settings(&self) -> bool {
        true
    }
}

/// Rows of all partitions of a table, the last row first and the first one twice.
fn take(context: &dyn JobContext, table: usize, columns: &[String]) -> Result<String, StageError> {
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut lines = String::new();
    let mut unit = 0;
    while let Some(folder) = context.folder(0, unit)? {
        for line in fs::read_to_string(folder.join("files.txt")).unwrap().lines() {
            let words: Vec<usize> = line.split(' ').take(3).map(|word| word.parse().unwrap()).collect();
            let rows = context.rows(0, 0, table, words[0])?;
            let wanted: Vec<usize> = (0..words[2]).rev().chain([0]).collect();
            lines += &text(&rows.take(&wanted, &columns)?);
            assert!(rows.take(&[words[2]], &columns).is_err(), "there is no such row");
        }
        unit += 1;
    }
    Ok(lines)
}
