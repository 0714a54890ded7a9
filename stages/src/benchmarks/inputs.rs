//! The files of a benchmark, as a manifest names them, and the questions in them.

use super::files::{self, Image};
use super::item::Item;
use super::sources;
use crate::read::locate;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::Missing;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Columns of which a row that asks something has one; other rows bring images.
const QUESTION: [&str; 4] = ["question", "answer", "answers", "caption"];

/// A benchmark by name, and its files: paths or patterns; none for those that `llavm fetch NAME` brings.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub name: &'a str,
    pub files: &'a [String],
}

impl Inputs<'_> {
    /// What is wrong with files that are not named.
    pub fn mistake(&self) -> Option<String> {
        let known: Vec<&str> = sources::of(self.name).map(|source| source.name).collect();
        (self.files.is_empty() && known.len() > 1)
            .then(|| format!("must name the files of {}", known.join(" or ")))
    }

    /// The files as a manifest names them.
    fn patterns(&self) -> Vec<String> {
        match sources::of(self.name).next() {
            Some(source) if self.files.is_empty() => source.patterns(),
            Some(_) | None => self.files.to_vec(),
        }
    }

    /// The files, in order.
    pub fn paths(&self) -> Result<Vec<PathBuf>, StageError> {
        Ok(self.patterns().iter().map(|file| expand(file)).collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Files that are not there, named by `param`.
    pub fn missing(&self, param: &'static str) -> Vec<Missing> {
        let own = sources::of(self.name).next().filter(|_| self.files.is_empty());
        let advice = |file: &String| {
            let help = match own {
                Some(source) => format!("Download it with `llavm fetch {}`.", source.name),
                None => locate::advice(file).unwrap_or_else(|| {
                    "Download the benchmark's files first: `llavm fetch NAME`.".to_owned()
                }),
            };
            let text = match expand(file) {
                Ok(paths) if !paths.is_empty() => return None,
                Ok(_) => format!("no file matches `{file}`"),
                Err(error) => error.to_string(),
            };
            Some(Missing { param, text, help })
        };
        self.patterns().iter().filter_map(advice).collect()
    }
}

/// The files that a path or pattern names, in order.
fn expand(file: &str) -> Result<Vec<PathBuf>, StageError> {
    let pattern = locate::pattern(file)?;
    let wrong = |error: &dyn std::fmt::Display| StageError::new(format!("`{file}`: {error}"));
    let paths = glob::glob(&pattern).map_err(|error| wrong(&error))?;
    let mut paths = paths.collect::<Result<Vec<PathBuf>, _>>().map_err(|error| wrong(&error))?;
    paths.sort();
    Ok(paths)
}

/// The questions of files, and what stands for their images.
pub fn items(paths: &[PathBuf]) -> Result<Vec<Item>, StageError> {
    let mut items = Vec::new();
    // Rows that bring images only, for questions that name them (GQA).
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in paths {
        for record in files::read(path)? {
            if !QUESTION.iter().any(|name| record.get(name).is_some()) {
                images.insert(record.text(&["id", "index"]).unwrap_or_default(), record.list("image"));
                continue;
            }
            let item = Item::of(record, items.len()).map_err(StageError::new);
            items.push(item.map_err(|error| files::in_file(path, &error))?);
        }
    }
    for item in items.iter_mut().filter(|item| item.images.is_empty()) {
        item.images = item.image.as_ref().and_then(|name| images.get(name)).cloned().unwrap_or_default();
    }
    Ok(items)
}

/// Hands over the images of files.
pub fn images(
    paths: &[PathBuf],
    take: &mut dyn FnMut(Image) -> Result<(), StageError>,
) -> Result<(), StageError> {
    paths.iter().try_for_each(|path| files::images(path, take))
}
