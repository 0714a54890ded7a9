//! Images in formats that are not read, AVIF and HEIC above all, found in the first rows: said before anything runs, for each of them
//! would be a rejected row.

use super::build::RowRules;
use super::image_cell::Image;
use super::raw::{NamedFile, RawFile, Request};
use llavm_model::magic::{Content, Image as Format};
use llavm_model::processor::image::codecs::reads;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::OpenContext;
use llavm_pipeline::storage::remote::is_remote;
use std::collections::BTreeMap;

/// Rows looked at, in the first split of each of the first files.
const LOOKED_AT: usize = 64;
const FILES: usize = 8;

/// Raised when other images are found in the same rows.
const VERSION: u32 = 1;

/// Formats by the endings of names, where there are no bytes to look at.
const ENDINGS: [(&str, Format); 6] = [
    (".avif", Format::Avif),
    (".heic", Format::Heic),
    (".heif", Format::Heic),
    (".jxl", Format::JpegXl),
    (".svg", Format::Svg),
    (".psd", Format::Photoshop),
];

/// One line for each such format. Images given by name are known by it.
pub fn notes(
    files: &[NamedFile],
    rules: &RowRules,
    context: &dyn OpenContext,
) -> Result<Vec<String>, StageError> {
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_remote(file.input.path())).take(FILES) {
        let Some(split) = file.raw.splits().first() else { continue };
        let key =
            format!("read/unread-images/{VERSION}/{}/{}", rules.images_identity(), split.digest.to_hex());
        let mut find = || {
            let found = found(file.raw.as_ref(), rules)?;
            serde_json::to_vec(&found).map_err(|error| StageError::new(error.to_string()))
        };
        let found = context.remembered(&key, &mut find)?;
        let found: BTreeMap<String, usize> = serde_json::from_slice(&found).unwrap_or_default();
        found.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
    }
    let line = |(what, count)| format!("{count} of the first rows have an image that is not read: {what}");
    Ok(all.into_iter().map(line).collect())
}

fn found(file: &dyn RawFile, rules: &RowRules) -> Result<BTreeMap<String, usize>, StageError> {
    let mut found = BTreeMap::new();
    let columns = rules.needed(&["images"]);
    let request = Request { columns: Some(columns.into()), limit: Some(LOOKED_AT), ..Request::default() };
    for chunk in file.read(0, request)? {
        let chunk = chunk?;
        for index in 0..chunk.rows().len() {
            let Ok(row) = chunk.value(index) else { continue };
            let Ok(images) = rules.named_images(&row) else { continue };
            let unread = images.iter().find_map(format_of).filter(|format| !reads(*format));
            unread
                .into_iter()
                .for_each(|format| *found.entry(Content::Image(format).to_string()).or_default() += 1);
        }
    }
    Ok(found)
}

fn format_of(image: &Image<'_>) -> Option<Format> {
    match image {
        Image::Bytes(bytes) => match Content::of_image(bytes)? {
            Content::Image(format) => Some(format),
            _ => None,
        },
        Image::Path(path) => {
            let path = path.to_ascii_lowercase();
            ENDINGS.iter().find(|(ending, _)| path.ends_with(ending)).map(|(_, format)| *format)
        }
    }
}
