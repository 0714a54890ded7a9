//! What the rows hold and nothing uses: columns, keys of the turns, and marks for images in the texts.
//!
//! Nobody misses a column that was dropped in silence. Columns that look like the row's image stop the run where no column is read as
//! one; the others are listed.

use super::columns::Mapping;
use super::conversation::unused_keys;
use super::image_cell::has_image_ending;
use super::marks::{Marks, likely};
use super::raw::{NamedFile, RawColumn, RawFile, Request};
use super::value::Value;
use super::webdataset::numbered;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::OpenContext;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Words of which the name of an image column consists.
const IMAGE_WORDS: [&str; 14] = [
    "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics", "jpg", "jpeg",
    "png", "webp",
];
const BESIDE_IMAGE: [&str; 14] = [
    "path", "paths", "file", "files", "name", "names", "filename", "id", "ids", "bytes", "base64", "data",
    "url", "urls",
];

/// The column of a tar that holds all images of a sample.
const IMAGES_OF_TAR: &str = "image";

/// Rows whose texts are looked at for marks, in the first split of each of the first files.
const LOOKED_AT: usize = 64;
const FILES: usize = 8;

/// Raised when other marks are found in the same rows.
const VERSION: u32 = 2;

/// The columns that look like images, of those that nothing uses.
pub fn image_like<'a>(columns: &'a [RawColumn], used: &[String]) -> Vec<&'a RawColumn> {
    let is_used = |column: &RawColumn| used.iter().any(|name| covers(name, &column.name));
    columns
        .iter()
        .filter(|column| !is_used(column) && (holds_images(column) || is_named_so(column)))
        .collect()
}

fn covers(used: &str, name: &str) -> bool {
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    within(used, name) || within(name, used)
}

fn holds_images(column: &RawColumn) -> bool {
    let kind = column.kind.trim_start_matches("list<");
    column.holds_images || kind.starts_with("binary") || kind.starts_with("struct<bytes: binary")
}

fn is_named_so(column: &RawColumn) -> bool {
    let name = column.name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).peekable();
    let is_image = words.clone().any(|word| IMAGE_WORDS.contains(&word));
    let kind = column.kind.trim_start_matches("list<");
    let is_name = kind.starts_with("string") || kind.starts_with("int");
    is_image && is_name && words.all(|word| IMAGE_WORDS.contains(&word) || BESIDE_IMAGE.contains(&word))
}

/// The error for a source that reads no image though a column looks like one.
pub fn no_image(columns: &[&RawColumn], shown: &str) -> StageError {
    let listed: Vec<_> =
        columns.iter().map(|column| format!("`{}` ({})", column.name, column.kind)).collect();
    let verb = if columns.len() == 1 { "looks" } else { "look" };
    let text =
        format!("no column of {shown} is read as the image, but {} {verb} like one", listed.join(", "));
    let name = columns.first().map_or("image", |column| column.name.as_str());
    StageError::new(text).help(format!(
        "Name it: columns = {{ image = \"{name}\" }}. Set text_only = true if the rows are to be read without images."
    ))
}

/// What a person should know of the rows: columns that nothing uses, marks that nothing replaces.
pub fn notes(
    files: &[NamedFile],
    columns: &[RawColumn],
    mapping: &Mapping,
    used: &[String],
    marks: &Marks,
    context: &dyn OpenContext,
) -> Result<Vec<String>, StageError> {
    let lost = files.iter().filter_map(|file| file.raw.lost());
    let mut notes: Vec<String> = lost.map(|why| format!("a file cannot be read: {why}")).collect();
    notes.extend(files.iter().filter_map(twice));
    let is_used = |column: &&RawColumn| used.iter().any(|name| covers(name, &column.name));
    let is_field = |column: &&RawColumn| {
        column
            .name
            .rsplit_once('.')
            .is_some_and(|(outer, _)| columns.iter().any(|column| column.name == outer))
    };
    // Of a tar, `image` is what its image members are, whatever they are called.
    let is_tar = columns.iter().any(|column| column.name == "__key__");
    let all_images = used.iter().any(|name| name == IMAGES_OF_TAR);
    let is_image = |column: &&RawColumn| is_tar && has_image_ending(&format!(".{}", column.name));
    // Numbered members are columns by themselves, and lists under what stands behind the number.
    let is_numbered = |column: &&RawColumn| {
        is_tar
            && numbered(&column.name)
                .is_some_and(|(_, rest)| columns.iter().any(|column| column.name == rest))
    };
    let is_listed = |column: &RawColumn| {
        numbered(&column.name).is_some_and(|(_, rest)| is_tar && used.iter().any(|name| covers(name, rest)))
    };
    let is_used = |column: &&RawColumn| is_used(column) || is_listed(column);
    let is_member = |column: &&RawColumn| {
        is_tar && column.name == IMAGES_OF_TAR || all_images && is_image(column) || is_numbered(column)
    };
    let unused: Vec<_> = columns
        .iter()
        .filter(|column| {
            !is_used(column) && !is_field(column) && column.is_text() && column.name != "__key__"
        })
        .filter(|column| !is_member(column))
        .map(|column| format!("`{}` ({})", column.name, shortened(&column.kind)))
        .collect();
    let reads_some = used.iter().any(|name| has_image_ending(&format!(".{name}")));
    if is_tar
        && !all_images
        && reads_some
        && columns.iter().any(|column| is_image(&column) && !is_used(&column))
    {
        notes.push("samples have image members that are not read: columns = { image = \"image\" } takes all images of a sample".to_owned());
    }
    if !unused.is_empty() {
        notes.push(format!("columns that nothing uses: {}", unused.join(", ")));
    }
    let in_rows = seen_in(files, mapping, marks, context)?;
    if !in_rows.keys.is_empty() {
        let listed: Vec<_> = in_rows.keys.iter().map(|(key, count)| format!("`{key}` ({count})")).collect();
        notes.push(format!(
            "keys of turns that nothing uses, and how many of the first rows have them: {}",
            listed.join(", ")
        ));
    }
    for (mark, count) in in_rows.marks {
        notes.push(format!(
            "{count} of the first rows hold `{mark}`, which stands for no image here: set placeholders = [\"{mark}\"] if it should"
        ));
    }
    Ok(notes)
}

/// What is said of a file of which several columns have one name.
fn twice(file: &NamedFile) -> Option<String> {
    let mut names = BTreeSet::new();
    let twice: BTreeSet<&str> = file
        .raw
        .columns()
        .iter()
        .map(|column| column.name.as_str())
        .filter(|name| !names.insert(*name))
        .collect();
    let listed: Vec<_> = twice.into_iter().map(|name| format!("`{name}`")).collect();
    (!listed.is_empty()).then(|| {
        format!(
            "{}: several columns are called {}, of which the last is read: rename them",
            file.name,
            listed.join(", ")
        )
    })
}

fn shortened(kind: &str) -> String {
    const SHOWN: usize = 48;
    if kind.chars().count() <= SHOWN {
        kind.to_owned()
    } else {
        kind.chars().take(SHOWN).chain(['…']).collect()
    }
}

/// How many rows have what nothing uses.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    marks: BTreeMap<String, usize>,
    keys: BTreeMap<String, usize>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        let add = |all: &mut BTreeMap<String, usize>, more: BTreeMap<String, usize>| {
            more.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
        };
        add(&mut self.marks, other.marks);
        add(&mut self.keys, other.keys);
    }
}

/// What the first rows of the first files hold. Remembered by their content.
fn seen_in(
    files: &[NamedFile],
    mapping: &Mapping,
    marks: &Marks,
    context: &dyn OpenContext,
) -> Result<Seen, StageError> {
    let mut all = Seen::default();
    let texts = mapping.needed(&["messages"]);
    for file in files.iter().take(FILES) {
        let Some(split) = file.raw.splits().first() else { continue };
        let key = format!("read/marks/{VERSION}/{marks:?}/{texts:?}/{}", split.digest.to_hex());
        let mut find = || {
            let found = seen_of(file.raw.as_ref(), &texts, marks)?;
            serde_json::to_vec(&found).map_err(|error| StageError::new(error.to_string()))
        };
        let found = context.remembered(&key, &mut find)?;
        all.add(serde_json::from_slice(&found).unwrap_or_default());
    }
    Ok(all)
}

fn seen_of(file: &dyn RawFile, texts: &[String], marks: &Marks) -> Result<Seen, StageError> {
    let mut found = Seen::default();
    let request = Request { columns: Some(texts.into()), limit: Some(LOOKED_AT), ..Request::default() };
    for chunk in file.read(0, request)? {
        let chunk = chunk?;
        for index in 0..chunk.rows().len() {
            let Ok(Value::Object(fields)) = chunk.value(index) else { continue };
            let mark = fields.iter().find_map(|(_, value)| mark_of(value, marks));
            let mark = mark.into_iter().map(|mark| (mark.to_owned(), 1)).collect();
            let keys: BTreeSet<String> = fields.iter().flat_map(|(_, value)| unused_keys(value)).collect();
            found.add(Seen { marks: mark, keys: keys.into_iter().map(|key| (key, 1)).collect() });
        }
    }
    Ok(found)
}

fn mark_of(value: &Value<'_>, marks: &Marks) -> Option<&'static str> {
    match value {
        Value::Text(text) => likely(text, marks),
        Value::List(items) => items.iter().find_map(|item| mark_of(item, marks)),
        Value::Object(fields) => fields.iter().find_map(|(_, value)| mark_of(value, marks)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_columns_are_known_by_type_and_by_name() {
        let columns = [
            RawColumn::new("photo", "struct<bytes: binary, path: string>"),
            RawColumn::new("raw", "binary"),
            RawColumn::new("image_path", "string"),
            RawColumn::new("image_caption", "string"),
            RawColumn::new("image_width", "int"),
            RawColumn::new("text", "string"),
        ];
        let found = |used: &[String]| {
            image_like(&columns, used).iter().map(|column| column.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), ["photo", "raw", "image_path"]);
        assert_eq!(found(&["photo.bytes".to_owned(), "raw".to_owned()]), ["image_path"]);
    }
}
