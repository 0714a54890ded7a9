//! Small kinds, one of each role and then some.

use crate::spec::columns::Columns;
use crate::spec::error::StageError;
use crate::spec::registry::Registry;
use crate::spec::stage::{
    Apply, Fact, GatherInputs, GatherStage, JobContext, JobStage, Kept, MapStage, Missing, OpenContext,
    Parameters, Source, SourceStage, StageKind, Units,
};
use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

pub(super) fn registry() -> Registry {
    Registry::default()
        .source::<Read>()
        .map::<Keep>()
        .map::<Resize>()
        .map::<Tokenize>()
        .map::<Recode>()
        .gather::<Shard>()
        .job::<Train>()
}

fn list(of: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", of, true)))
}

macro_rules! kind {
    ($type:ty, $name:literal, $about:literal, [$($param:literal),*]) => {
        impl StageKind for $type {
            const KIND: &'static str = $name;
            const VERSION: u32 = 1;
            const ABOUT: &'static str = $about;
        }
    };
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Read {
    files: Vec<String>,
    columns: ReadColumns,
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadColumns {
    image: String,
    text: String,
}

kind!(Read, "read", "Reads rows.", ["files", "columns", "limit"]);

impl Parameters for Read {
    fn missing(&self) -> Vec<Missing> {
        let gone = self.files.iter().filter(|file| file.contains("gone"));
        gone.map(|file| Missing {
            param: "files",
            text: format!("no file matches `{file}`"),
            help: "Check the path; it is relative to the current directory.".to_owned(),
        })
        .collect()
    }
}

impl SourceStage for Read {
    fn output(&self) -> Columns {
        Columns::new()
            .with("id", DataType::Utf8)
            .with("images", list(DataType::Binary))
            .with("text", DataType::Utf8)
    }

    fn open(&self, _: &dyn OpenContext) -> Result<Box<dyn Source>, StageError> {
        Err(StageError::new("a toy"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keep {
    r#where: String,
}

kind!(Keep, "keep", "Keeps some rows.", ["where"]);

impl Parameters for Keep {}

impl MapStage for Keep {
    fn input(&self) -> Columns {
        Columns::new().with("text", DataType::Utf8)
    }

    fn output(&self) -> Columns {
        Columns::new()
    }

    fn passes_through(&self) -> bool {
        true
    }

    fn open(&self, _: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Err(StageError::new("a toy"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Resize {
    size: u32,
    filter: Filter,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Filter {
    Bicubic,
    Bilinear,
}

impl Default for Resize {
    fn default() -> Self {
        Self { size: 224, filter: Filter::Bicubic }
    }
}

kind!(Resize, "resize", "Decodes and resizes.", ["size", "filter"]);

impl Parameters for Resize {
    fn check(&self) -> Vec<(&'static str, String)> {
        if self.size == 0 { vec![("size", "`size` must be at least 1".to_owned())] } else { Vec::new() }
    }

    fn facts(&self) -> Vec<Fact> {
        vec![size_fact(self.size)]
    }
}

impl MapStage for Resize {
    fn input(&self) -> Columns {
        Columns::new().with("images", list(DataType::Binary))
    }

    fn output(&self) -> Columns {
        Columns::new().with("pixels", list(DataType::UInt8))
    }

    fn open(&self, _: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
        Err(StageError::new("a toy"))
    }
}

/// A map without parameters from one column to another.
macro_rules! plain_map {
    ($type:ident, $name:literal, $input:literal: $input_type:expr, $output:literal: $output_type:expr) => {
        #[derive(Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $type {}

        kind!($type, $name, "A toy.", []);

        impl Parameters for $type {}

        impl MapStage for $type {
            fn input(&self) -> Columns {
                Columns::new().with($input, $input_type)
            }

            fn output(&self) -> Columns {
                Columns::new().with($output, $output_type)
            }

            fn open(&self, _: &dyn OpenContext) -> Result<Box<dyn Apply>, StageError> {
                Err(StageError::new("a toy"))
            }
        }
    };
}

plain_map!(Tokenize, "tokenize", "text": DataType::Utf8, "input_ids": list(DataType::UInt32));
plain_map!(Recode, "recode", "input_ids": list(DataType::UInt32), "input_ids": list(DataType::Int64));

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Shard {
    validation: f64,
    keep: Vec<String>,
}

impl Default for Shard {
    fn default() -> Self {
        Self { validation: 0.05, keep: Vec::new() }
    }
}

kind!(Shard, "shard", "Packs rows.", ["validation", "keep"]);

impl Parameters for Shard {}

impl GatherStage for Shard {
    fn input(&self) -> Columns {
        Columns::new().with("input_ids", list(DataType::UInt32)).with("pixels", list(DataType::UInt8))
    }

    fn keeps(&self) -> Vec<Kept> {
        let kept = |name: &String| Kept { name: name.clone(), param: "keep", optional: name == "language" };
        self.keep.iter().map(kept).collect()
    }

    fn units(&self) -> Units {
        Units::Whole
    }

    fn gather(&self, _: &GatherInputs<'_>, _: &Path) -> Result<(), StageError> {
        Err(StageError::new("a toy"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Train {
    #[serde(default)]
    init_from: Option<String>,
    #[serde(default)]
    size: Option<u32>,
}

fn size_fact(size: u32) -> Fact {
    Fact {
        name: "the size of an image",
        param: "size",
        value: size.to_string(),
        shown: format!("{size} pixels"),
        help: "Set both alike.".to_owned(),
    }
}

impl StageKind for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "Trains.";
    const LINKS: &'static [&'static str] = &["init_from"];
}

impl Parameters for Train {
    fn facts(&self) -> Vec<Fact> {
        self.size.map(size_fact).into_iter().collect()
    }
}

impl JobStage for Train {
    fn run(&self, _: &dyn JobContext) -> Result<(), StageError> {
        Err(StageError::new("a toy"))
    }
}
