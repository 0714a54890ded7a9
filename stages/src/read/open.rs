//! Opening the source: every file's rows are counted, the columns are matched, partitions are laid out.

use super::Read;
use super::broken::BrokenFile;
use super::build::RowRules;
use super::columns::{Mapping, exists, no_column};
use super::delimited::{Delimited, Dialect};
use super::files::{Format, short_names};
use super::image_column::ImageColumn;
use super::image_digest::ImageDigests;
use super::image_files::ImageFiles;
use super::json_array::{JsonArray, Layout, layout};
use super::json_lines::JsonLines;
use super::locate::local;
use super::parquet::{Dictionaries, Parquet};
use super::raw::{RawColumn, RawFile, Request};
use super::sample::search;
use super::select::Filter;
use super::source::{NamedFile, Part, ReadSource};
use super::text::TextFile;
use super::webdataset::Webdataset;
use crate::sql::Predicate;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::OpenContext;
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Opens all files of `read`.
pub fn open(read: &Read, context: &dyn OpenContext) -> Result<ReadSource, StageError> {
    let paths = read.files.files()?;
    let (names, dictionaries) = (short_names(&paths), Arc::default());
    let mut files: Vec<NamedFile> = paths
        .par_iter()
        .zip(names)
        .map(|(path, name)| {
            Ok(NamedFile { raw: open_file(read, path, &name, &dictionaries, context)?, name })
        })
        .collect::<Result<_, StageError>>()?;
    let columns = all_columns(read, &files, context)?;
    let shown = shown_name(&files);
    let mapping = mapping(read, &files, &shown, &columns)?;
    let filter = read.predicate.as_deref().filter(|_| !columns.is_empty());
    let filter = filter.map(|text| Filter::new(text, &shown, &columns)).transpose()?;
    let rules = rules(read, mapping, &shown, &columns, context)?;
    prepare(&mut files, &rules, filter.as_ref(), context)?;
    let mut parts = parts(&files, read.limit);
    if let Some(column) = &rules.image {
        digest_images(&mut parts, &files, &ImageDigests::new(&rules.images, column, context))?;
    }
    Ok(ReadSource::new(files, parts, rules, filter))
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
    Ok(RowRules {
        mapping,
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
    path: &Path,
    name: &str,
    dictionaries: &Arc<Dictionaries>,
    context: &dyn OpenContext,
) -> Result<Box<dyn RawFile>, StageError> {
    let rows = read.partition_rows;
    let format = read.format.map_or_else(|| Format::of(path), Ok)?;
    let opened: Result<Box<dyn RawFile>, String> = match format {
        Format::Parquet => boxed(Parquet::open(path, rows, dictionaries, context)?),
        Format::Jsonl => Ok(Box::new(TextFile::open(path, JsonLines, rows, context)?)),
        Format::Json => match layout(path).map_err(|cause| StageError::io(path, cause))? {
            Ok(Layout::Array) => Ok(Box::new(TextFile::open(path, JsonArray, rows, context)?)),
            Ok(Layout::Lines) => Ok(Box::new(TextFile::open(path, JsonLines, rows, context)?)),
            Err(cause) => Err(cause),
        },
        Format::Csv => table(read, path, Dialect::Csv, context)?,
        Format::Tsv => table(read, path, Dialect::Tsv, context)?,
        Format::Webdataset => boxed(Webdataset::open(path, rows, context)?),
    };
    match opened {
        Ok(file) => Ok(file),
        Err(cause) => Ok(Box::new(BrokenFile::new(path, name, &cause, context)?)),
    }
}

fn table(
    read: &Read,
    path: &Path,
    dialect: Dialect,
    context: &dyn OpenContext,
) -> Result<Result<Box<dyn RawFile>, String>, StageError> {
    match Delimited::open(path, dialect, read.header)? {
        Ok(format) => Ok(Ok(Box::new(TextFile::open(path, format, read.partition_rows, context)?))),
        Err(cause) => Ok(Err(cause)),
    }
}

fn boxed<T: RawFile + 'static>(opened: Result<T, String>) -> Result<Box<dyn RawFile>, String> {
    opened.map(|file| Box::new(file) as Box<dyn RawFile>)
}

/// The columns of all files, each name once, in order of the files; behind them the wanted ones that only few rows have.
fn all_columns(
    read: &Read,
    files: &[NamedFile],
    context: &dyn OpenContext,
) -> Result<Vec<RawColumn>, StageError> {
    let mut all = Vec::new();
    files.iter().for_each(|file| add(&mut all, file.raw.columns()));
    let sought = sought(read, &all);
    if all.is_empty() || sought.is_empty() {
        return Ok(all);
    }
    let open_ended: Vec<_> = files.iter().filter(|file| !file.raw.has_fixed_columns()).collect();
    let found = open_ended.par_iter().map(|file| search(file.raw.as_ref(), &sought, context));
    let found: Vec<_> = found.collect::<Result<_, _>>()?;
    found.iter().for_each(|columns| add(&mut all, columns));
    Ok(all)
}

fn add(all: &mut Vec<RawColumn>, columns: &[RawColumn]) {
    for column in columns {
        if !all.iter().any(|seen| seen.name == column.name) {
            all.push(column.clone());
        }
    }
}

/// The wanted columns that none of `columns` is.
fn sought(read: &Read, columns: &[RawColumn]) -> Vec<String> {
    let predicate = read.predicate.as_deref().and_then(|text| Predicate::parse(text).ok());
    let named = predicate.iter().flat_map(|predicate| predicate.columns().iter().map(String::as_str));
    let named = named.chain(read.explode.as_deref()).map(|name| vec![name]);
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

/// Tells every file which columns it will be asked for.
fn prepare(
    files: &mut [NamedFile],
    rules: &RowRules,
    filter: Option<&Filter>,
    context: &dyn OpenContext,
) -> Result<(), StageError> {
    let mut columns = rules.needed(&["images", "messages", "id", "language", "source"]);
    columns.extend(filter.iter().flat_map(|filter| filter.columns()).cloned());
    let request = Request { columns: Some(columns.into()), ..Request::default() };
    files
        .par_iter_mut()
        .try_for_each(|file| file.raw.prepare(&request, rules.mapping.image.as_deref(), context))
}

fn parts(files: &[NamedFile], limit: Option<u64>) -> Vec<Part> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (file, named) in files.iter().enumerate() {
        for (piece, raw) in named.raw.pieces().iter().enumerate() {
            let rows = (raw.rows.end - raw.rows.start).min(left);
            left -= rows;
            if rows > 0 {
                parts.push(Part { file, piece, rows: rows as usize, images: None });
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
        part.images = digests.digest(files[part.file].raw.as_ref(), part.piece, part.rows)?;
        Ok(())
    })
}
