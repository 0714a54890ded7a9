//! What a person sees for every kind of mistake, and what holds for any manifest.

mod columns;
mod facts;
mod links;
mod names;
mod properties;
mod toy;
mod values;
mod wirings;

use super::{Manifest, ManifestError, read_with};
use miette::{GraphicalReportHandler, GraphicalTheme};
use std::path::Path;

/// A manifest of toy kinds without a mistake.
const GOOD: &str = r#"
name = "toys"
seed = 7
store = "${root}/store"

[vars]
root = "/data"
raw = "${root}/raw"
size = 32

[stages.rows]
kind = "read"
files = ["${raw}/*.parquet"]
columns = { image = "img", text = "caption" }

[stages.few]
kind = "keep"
from = "rows"
where = "length(text) < 9"

[stages.pixels]
kind = "resize"
from = "few"
size = "${size}"

[stages.tokens]
kind = "tokenize"
from = "few"
max_rejects = { fraction = 0.5 }

[stages.shards]
kind = "shard"
from = ["tokens", "pixels"]

[stages.model]
kind = "train"
from = "shards"
"#;

fn load(text: &str) -> Result<Manifest, ManifestError> {
    load_with(text, &[])
}

fn load_with(text: &str, set: &[&str]) -> Result<Manifest, ManifestError> {
    let set: Vec<String> = set.iter().map(|&one| one.to_owned()).collect();
    let environment = |name: &str| (name == "PLACE").then(|| "/mnt".to_owned());
    read_with(text.as_bytes(), Path::new("toys.toml"), &set, &toy::registry(), &environment)
}

fn drawn(error: &ManifestError) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut out = String::new();
    for problem in error.problems() {
        handler.render_report(&mut out, problem).unwrap();
    }
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// What is reported about `text`, which must have a mistake.
fn reported(text: &str) -> String {
    drawn(&load(text).err().expect("a mistake"))
}

/// What is reported about [`GOOD`] with `old` replaced by `new`.
fn reported_after(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old} is in the good manifest");
    reported(&GOOD.replacen(old, new, 1))
}
