//! The columns of a file that names them row by row (JSON, webdataset), seen in a sample; and those that only a search finds,
//! because few rows have them: images in a file of chats, say.

use super::image_cell::looks_like_image;
use super::raw::{RawColumn, RawFile, Request};
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::OpenContext;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Usable rows looked at in the first split, and in each of some other splits.
const FIRST_ROWS: usize = 64;
const OTHER_ROWS: usize = 4;
const OTHER_SPLITS: usize = 16;

/// Most columns that are taken note of: rows may be dictionaries with keys of their own.
const MOST_NAMES: usize = 1024;

/// Raised when the same rows give other columns.
const VERSION: u32 = 3;

/// The columns of a sample by name.
#[derive(Default)]
struct Kinds(BTreeMap<String, (String, bool)>);

/// Every column seen in a sample of the file, sorted by name, with the widest type seen. Remembered by the rows' content; `format`
/// says how they are read.
pub fn remembered_columns(
    file: &dyn RawFile,
    format: &str,
    context: &dyn OpenContext,
) -> Result<Vec<RawColumn>, StageError> {
    let key = format!("read/columns/{VERSION}/{format}/{}", rows_digest(file));
    remembered(&key, context, &mut || sampled(file))
}

/// Those of the columns `sought` that any row of the file has, with the widest type of all rows; where rows name their columns, also
/// the others: nobody misses one that only few rows have.
pub fn search(
    file: &dyn RawFile,
    sought: &[String],
    context: &dyn OpenContext,
) -> Result<Vec<RawColumn>, StageError> {
    let key = format!("read/search/{VERSION}/{sought:?}/{}", rows_digest(file));
    remembered(&key, context, &mut || {
        let columns = || (!file.names_in_rows()).then(|| sought.into());
        let request = || Request { columns: columns(), types_only: true, ..Request::default() };
        let split = |split| {
            let mut kinds = Kinds::default();
            kinds.add_rows(file, split, request(), usize::MAX).map(|_| kinds)
        };
        let splits = (0..file.splits().len()).into_par_iter().map(split);
        let mut all = Kinds::default();
        for Kinds(found) in splits.collect::<Result<Vec<_>, StageError>>()? {
            found.into_iter().for_each(|(name, (kind, images))| all.add(&name, &kind, images));
        }
        Ok(all)
    })
}

fn rows_digest(file: &dyn RawFile) -> String {
    let mut rows = blake3::Hasher::new();
    file.splits().iter().for_each(|split| {
        rows.update(split.digest.as_bytes());
    });
    rows.finalize().to_hex().to_string()
}

fn remembered(
    key: &str,
    context: &dyn OpenContext,
    find: &mut dyn FnMut() -> Result<Kinds, StageError>,
) -> Result<Vec<RawColumn>, StageError> {
    let bytes = context.remembered(key, &mut || find().map(Kinds::encode))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut parts = text.split('\0').map(str::to_owned);
    let next = || {
        let (name, kind) = (parts.next()?, parts.next()?);
        Some(RawColumn { name, kind, holds_images: parts.next()? == "images" })
    };
    Ok(std::iter::from_fn(next).collect())
}

/// Rows at the head of a file may be broken, or comments: they are passed over until there are enough that are rows.
fn sampled(file: &dyn RawFile) -> Result<Kinds, StageError> {
    let mut kinds = Kinds::default();
    let splits = file.splits().len();
    let step = splits.div_ceil(OTHER_SPLITS).max(1);
    let mut usable = 0;
    for split in (0..splits).step_by(step) {
        let wanted = if usable == 0 { FIRST_ROWS } else { OTHER_ROWS };
        usable += kinds.add_rows(file, split, Request { types_only: true, ..Request::default() }, wanted)?;
    }
    for split in 0..splits {
        if usable > 0 {
            break;
        }
        usable +=
            kinds.add_rows(file, split, Request { types_only: true, ..Request::default() }, FIRST_ROWS)?;
    }
    Ok(kinds)
}

impl Kinds {
    /// Adds up to `wanted` usable rows of a split, and gives how many there were.
    fn add_rows(
        &mut self,
        file: &dyn RawFile,
        split: usize,
        request: Request,
        wanted: usize,
    ) -> Result<usize, StageError> {
        let mut usable = 0;
        for chunk in file.read(split, request)? {
            let chunk = chunk?;
            for index in 0..chunk.rows().len() {
                if usable >= wanted {
                    return Ok(usable);
                }
                if let Ok(Value::Object(fields)) = chunk.value(index) {
                    usable += 1;
                    fields.iter().for_each(|(name, value)| self.add_cell(file, name, value));
                }
            }
        }
        Ok(usable)
    }

    fn add_cell(&mut self, file: &dyn RawFile, name: &str, value: &Value<'_>) {
        self.add(name, &file.kind(value), looks_like_image(value));
        if let Value::Object(fields) = value {
            fields.iter().for_each(|(field, value)| self.add_cell(file, &format!("{name}.{field}"), value));
        }
    }

    fn add(&mut self, name: &str, kind: &str, images: bool) {
        if self.0.len() >= MOST_NAMES && !self.0.contains_key(name) {
            return;
        }
        let (seen, holds_images) = self.0.entry(name.to_owned()).or_insert_with(|| (kind.to_owned(), false));
        *holds_images |= images;
        if seen != kind {
            *seen = wider(seen, kind);
        }
    }

    fn encode(self) -> Vec<u8> {
        let word = |images| if images { "images" } else { "" }.to_owned();
        let parts = self.0.into_iter().flat_map(|(name, (kind, images))| [name, kind, word(images)]);
        parts.collect::<Vec<_>>().join("\0").into_bytes()
    }
}

/// The type that holds cells of both.
pub fn wider(one: &str, other: &str) -> String {
    match (one, other) {
        ("null" | "list<null>", kind) | (kind, "null" | "list<null>") => kind.to_owned(),
        ("int", "float") | ("float", "int") => "float".to_owned(),
        ("bool" | "int" | "float" | "string", "bool" | "int" | "float" | "string") if one != other => {
            "string".to_owned()
        }
        (first, _) => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_type_of_a_column_is_named() {
        for (one, other, both) in [
            ("null", "int", "int"),
            ("int", "float", "float"),
            ("float", "int", "float"),
            ("int", "string", "string"),
            ("list<null>", "list<string>", "list<string>"),
            ("int", "int", "int"),
        ] {
            assert_eq!(wider(one, other), both);
        }
    }
}
