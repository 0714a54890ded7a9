//! Opening the source: every file's rows are counted, the columns are matched, partitions are laid out.

use super::Read;
use super::broken::BrokenFile;
use super::build::RowRules;
use super::columns::{MADE, Mapping, exists, no_column};
use super::conversation::Reader;
use super::files::short_names;
use super::format::Format;
use super::image_column::ImageColumn;
use super::image_digest::ImageDigests;
use super::image_files::ImageFiles;
use super::input::Input;
use super::locate::local;
use super::opening::Opening;
use super::parquet::Dictionaries;
use super::raw::{NamedFile, RawColumn, RawFile, Request};
use super::sample::{search, wider};
use super::select::Filter;
use super::source::{Part, ReadSource};
use super::unread_images;
use super::unused::{image_like, no_image, notes};
use crate::sql::Predicate;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::OpenContext;
use llavm_pipeline::storage::remote::{RemoteFile, is_remote};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// The name of a row in a webdataset tar.
const KEY: &str = "__key__";

/// Opens all files of `read`.
#[tracing::instrument(level = "debug", skip_all)]
pub fn open(read: &Read, context: &dyn OpenContext) -> Result<ReadSource, StageError> {
    let Examined { mut files, rules, filter, used, notes } = examine(read, context)?;
    prepare(&mut files, used, &rules, context)?;
    let mut parts = parts(&files, read.limit);
    digest_images(&mut parts, &files, &ImageDigests::new(&rules, context))?;
    all_fetched(&files)?;
    Ok(ReadSource::new(files, parts, rules, filter, notes, context.memory()))
}

/// Files whose columns have been matched with what the manifest says of them.
pub struct Examined {
    files: Vec<NamedFile>,
    rules: RowRules,
    filter: Option<Filter>,
    /// The raw columns that are read.
    used: Vec<String>,
    /// What a person should know of the rows.
    pub notes: Vec<String>,
}

/// Lists rows and columns of all files, and matches them with the manifest.
pub fn examine(read: &Read, context: &dyn OpenContext) -> Result<Examined, StageError> {
    let paths = read.files.files()?;
    let (names, dictionaries) = (short_names(&paths), Arc::default());
    let files: Vec<NamedFile> = paths
        .par_iter()
        .zip(names)
        .map(|(path, name)| {
            let input = Arc::new(open_input(read, path, context)?);
            let raw = open_file(read, &input, &name, &dictionaries, context)?;
            Ok(NamedFile { name, input, raw })
        })
        .collect::<Result<_, StageError>>()?;
    let columns = all_columns(read, &files, context)?;
    let shown = shown_name(&files);
    let mapping = mapping(read, &files, &shown, &columns)?;
    let filter = read.predicate.as_deref().filter(|_| !columns.is_empty());
    let filter = filter.map(|text| Filter::new(text, &shown, &columns)).transpose()?;
    let rules = rules(read, mapping, &shown, &columns, context)?;
    let mut used = rules.needed(&MADE);
    used.extend(filter.iter().flat_map(Filter::columns).cloned());
    let images = image_like(&columns, &used);
    if rules.reader.holds_images() && !read.text_only && !images.is_empty() {
        return Err(no_image(&images, &shown));
    }
    let mut notes = notes(&files, &columns, &rules.reader.mapping, &used, &rules.reader.marks, context)?;
    notes.extend(unread_images::notes(&files, &rules, context)?);
    all_fetched(&files)?;
    Ok(Examined { files, rules, filter, used, notes })
}

/// An error when something of a file elsewhere could not be fetched: what was found without it means nothing.
fn all_fetched(files: &[NamedFile]) -> Result<(), StageError> {
    files.iter().try_for_each(|file| file.input.take_failure())
}

/// What the manifest says about rows, checked against the columns there are.
fn rules(
    read: &Read,
    mapping: Mapping,
    shown: &str,
    columns: &[RawColumn],
    context: &dyn OpenContext,
) -> Result<RowRules, StageError> {
    let explode = read.explode.clone().filter(|_| !columns.is_empty());
    if let Some(name) = explode.as_deref().filter(|name| columns.iter().all(|column| column.name != **name)) {
        return Err(no_column(name, shown, columns));
    }
    let places = read.images.0.iter().map(|path| local(path)).collect::<Result<Vec<_>, _>>()?;
    let image = mapping.image.clone().map(|column| ImageColumn {
        column,
        name: read.image_name.clone(),
        placeholders: read.placeholder_images,
    });
    let key = columns.iter().any(|column| column.name == KEY).then(|| KEY.to_owned());
    Ok(RowRules {
        identity: mapping.id.clone().or(key).filter(|_| !read.prompts.is_empty()),
        reader: Reader { mapping, marks: read.placeholders.clone() },
        image,
        images: ImageFiles::open(&places, context)?,
        prompts: read.prompts.texts()?,
        seed: context.seed(),
        explode,
        language: read.language.clone(),
        source: read.source.clone(),
    })
}

fn open_file(
    read: &Read,
    input: &Arc<Input>,
    name: &str,
    dictionaries: &Arc<Dictionaries>,
    context: &dyn OpenContext,
) -> Result<Box<dyn RawFile>, StageError> {
    let opened =
        format(read, input.path())?.open(&Opening { read, input: Arc::clone(input), dictionaries, context });
    // What could not be fetched is no broken file.
    input.take_failure()?;
    match opened? {
        Ok(file) => Ok(file),
        Err(cause) => Ok(Box::new(BrokenFile::new(input.path(), name, &cause, context)?)),
    }
}

fn format(read: &Read, path: &Path) -> Result<Format, StageError> {
    read.format.map_or_else(|| Format::of(path), Ok)
}

fn open_input(read: &Read, path: &Path, context: &dyn OpenContext) -> Result<Input, StageError> {
    let is_text = format(read, path)?.is_text();
    let encoding = read.encoding.filter(|_| is_text).map(|encoding| encoding.0);
    if is_remote(path) {
        RemoteFile::open(path)?;
    }
    Input::open(path, encoding, context.scratch_folder()).map_err(|cause| StageError::io(path, cause))
}

/// The columns of all files, each name once with the type that holds the cells of all, in order of the files; behind them the
/// wanted ones that only few rows have.
fn all_columns(
    read: &Read,
    files: &[NamedFile],
    context: &dyn OpenContext,
) -> Result<Vec<RawColumn>, StageError> {
    let mut all = Vec::new();
    files.iter().for_each(|file| add(&mut all, file.raw.columns()));
    if all.is_empty() {
        return Ok(all);
    }
    let (missing, compared) = (missing(read, &all), compared(read));
    let sought = |file: &NamedFile| -> Vec<String> {
        let missing = missing.iter().filter(|_| !file.raw.has_fixed_columns());
        let compared = compared.iter().filter(|_| !file.raw.has_fixed_types());
        missing.chain(compared).cloned().collect()
    };
    let found = files.par_iter().map(|file| match sought(file) {
        sought if sought.is_empty() => Ok(Vec::new()),
        sought => search(file.raw.as_ref(), &sought, context),
    });
    let found: Vec<_> = found.collect::<Result<_, _>>()?;
    found.iter().for_each(|columns| add(&mut all, columns));
    Ok(all)
}

fn add(all: &mut Vec<RawColumn>, columns: &[RawColumn]) {
    for column in columns {
        match all.iter_mut().find(|seen| seen.name == column.name) {
            Some(seen) => {
                seen.kind = wider(&seen.kind, &column.kind);
                seen.holds_images |= column.holds_images;
            }
            None => all.push(column.clone()),
        }
    }
}

/// The columns of `where`: their types have to be those of all rows.
fn compared(read: &Read) -> Vec<String> {
    let predicate = read.predicate.as_deref().and_then(|text| Predicate::parse(text).ok());
    predicate.map(|predicate| predicate.columns().to_vec()).unwrap_or_default()
}

/// The wanted columns that none of `columns` is.
fn missing(read: &Read, columns: &[RawColumn]) -> Vec<String> {
    let named = compared(read).into_iter().chain(read.explode.clone()).collect::<Vec<_>>();
    let named = named.iter().map(|name| vec![name.as_str()]);
    let wanted = read.columns.sought(read.conversation).into_iter().chain(named);
    let missing = wanted.filter(|names| !names.iter().any(|name| exists(name, columns)));
    missing.flatten().map(str::to_owned).collect()
}

/// What an error about the columns calls the files.
fn shown_name(files: &[NamedFile]) -> String {
    match files {
        [] => "no file".to_owned(),
        [file] => file.name.clone(),
        [first, rest @ ..] => format!("{} (and {} more)", first.name, rest.len()),
    }
}

/// Where no file could be opened there are no columns to check: every row is a reject anyway.
fn mapping(
    read: &Read,
    files: &[NamedFile],
    shown: &str,
    columns: &[RawColumn],
) -> Result<Mapping, StageError> {
    let has_prompts = !read.prompts.is_empty();
    if columns.is_empty() {
        return Ok(Mapping::unchecked(&read.columns, read.conversation));
    }
    let mapping = Mapping::new(&read.columns, read.conversation, has_prompts, shown, columns)?;
    for file in files.iter().filter(|file| file.raw.has_fixed_columns()) {
        if let Some(name) = mapping.first_missing(file.raw.columns()) {
            return Err(no_column(&name, &file.name, file.raw.columns()));
        }
    }
    Ok(mapping)
}

/// Lets every file know which columns it will be asked for.
fn prepare(
    files: &mut [NamedFile],
    columns: Vec<String>,
    rules: &RowRules,
    context: &dyn OpenContext,
) -> Result<(), StageError> {
    let request = Request { columns: Some(columns.into()), ..Request::default() };
    let image = rules.reader.mapping.image.as_deref();
    files.par_iter_mut().try_for_each(|file| file.raw.prepare(&request, image, context))
}

fn parts(files: &[NamedFile], limit: Option<u64>) -> Vec<Part> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (file, named) in files.iter().enumerate() {
        for (split, raw) in named.raw.splits().iter().enumerate() {
            let rows = (raw.rows.end - raw.rows.start).min(left);
            left -= rows;
            if rows > 0 {
                parts.push(Part { file, split, rows: rows as usize, images: None });
            }
        }
    }
    parts
}

fn digest_images(
    parts: &mut [Part],
    files: &[NamedFile],
    digests: &ImageDigests<'_>,
) -> Result<(), StageError> {
    parts.par_iter_mut().try_for_each(|part| {
        part.images = digests.digest(files[part.file].raw.as_ref(), part.split, part.rows)?;
        Ok(())
    })
}
