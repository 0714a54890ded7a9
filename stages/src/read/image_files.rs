//! Images that rows name: files of a folder, entries of a zip that is never extracted, or lines of a table.
//!
//! A path never leaves the folder: `..` is rejected, an absolute path has to lie in the folder. Names are looked up as they are
//! spelled, then with the spellings of other systems: `file:` URIs, backslashes, letters composed or decomposed (macOS writes `é` as
//! two characters), and in zips that Windows made, names in its own encoding.

use super::files::is_hidden;
use super::image_cell::short;
use super::image_table::TableImages;
use super::raw::reject;
use super::section::Section;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{Digest, OpenContext};
use percent_encoding::percent_decode_str;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use unicode_normalization::UnicodeNormalization;
use zip::ZipArchive;

/// Code of an image that no place has.
const MISSING: &str = "missing-image";

/// Largest image file read, in bytes: above the largest real photos, below what a crafted zip entry can unfold to.
const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// Where images given by name are looked up: in each place in turn.
pub struct ImageFiles {
    places: Vec<Place>,
}

/// One entry of `images`.
pub enum Place {
    Folder(Folder),
    Zip(Box<ZipImages>),
    Table(TableImages),
}

/// A folder, and the absolute paths that lead to it.
pub struct Folder {
    path: PathBuf,
    absolute: Vec<PathBuf>,
}

/// An open zip with its central directory.
pub struct ZipImages {
    archive: ZipArchive<Section>,
    /// Entries by other spellings of their names: in UTF-8, with slashes.
    respelled: HashMap<String, usize>,
    /// The folder that all entries share, with its slash, in each spelling; rows may leave it out.
    folders: Vec<String>,
    digest: Digest,
}

impl ImageFiles {
    /// `images` as the manifest has it, in its order.
    pub fn open(images: &[PathBuf], context: &dyn OpenContext) -> Result<Self, StageError> {
        let places = images.iter().map(|path| Place::open(path, context));
        Ok(Self { places: places.collect::<Result<_, _>>()? })
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The encoded image of that name, from the first place that has it.
    pub fn load(&self, path: &str) -> Result<Vec<u8>, Reject> {
        if self.places.is_empty() {
            let detail = format!(
                "the image cell is the path {}: set `images` to the folder, zip or table it lies in",
                short(path)
            );
            return Err(reject("no-images-folder", detail));
        }
        let mut found = Err(missing(path));
        for place in &self.places {
            found = place.load(path);
            if !found.as_ref().is_err_and(|reject| reject.code == MISSING) {
                break;
            }
        }
        found
    }
}

impl Place {
    fn open(path: &Path, context: &dyn OpenContext) -> Result<Self, StageError> {
        if path.is_dir() {
            return Ok(Self::Folder(Folder::new(path)));
        }
        if !path.is_file() {
            let text = format!("images = \"{}\": no such folder, zip file or table", path.display());
            return Err(StageError::new(text));
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(extension.to_ascii_lowercase().as_str(), "tsv" | "tab") {
            return Ok(Self::Table(TableImages::open(path, context)?));
        }
        Ok(Self::Zip(Box::new(ZipImages::open(path, context)?)))
    }

    /// The digest of the whole zip or table; `None` for a folder, whose files are digested one by one.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Folder(_) => None,
            Self::Zip(zip) => Some(zip.digest),
            Self::Table(table) => Some(table.digest()),
        }
    }

    pub fn folder(&self) -> Option<&Folder> {
        if let Self::Folder(folder) = self { Some(folder) } else { None }
    }

    fn load(&self, path: &str) -> Result<Vec<u8>, Reject> {
        match self {
            Self::Folder(folder) => folder.load(path),
            Self::Zip(zip) => zip.load(path),
            Self::Table(table) => {
                let found = spellings(path).iter().find_map(|name| table.load(name).transpose());
                found.transpose()?.ok_or_else(|| missing(path))
            }
        }
    }
}

/// The ways in which a name may be written on this system, as it is first.
fn spellings(path: &str) -> Vec<String> {
    let plain = match path.strip_prefix("file://") {
        Some(rest) => {
            let rest = rest.strip_prefix("localhost").unwrap_or(rest);
            percent_decode_str(rest).decode_utf8_lossy().into_owned()
        }
        None => path.to_owned(),
    };
    let mut all = vec![plain.clone()];
    let mut add = |name: String| {
        if !all.contains(&name) {
            all.push(name);
        }
    };
    if plain.contains('\\') {
        add(plain.replace('\\', "/"));
    }
    if !plain.is_ascii() {
        let slashed = plain.replace('\\', "/");
        add(plain.nfc().collect());
        add(plain.nfd().collect());
        add(slashed.nfc().collect());
        add(slashed.nfd().collect());
    }
    all
}

/// `C:\images\a.jpg` or `C:/images/a.jpg`.
fn has_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic())
}

/// `path` without `./`, when it stays inside the folder it is joined to.
fn inside(path: &str) -> Result<PathBuf, Reject> {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return Err(reject(MISSING, format!("{} leads out of `images`", short(path)))),
        }
    }
    if path.contains('\0') || clean.as_os_str().is_empty() {
        return Err(reject("bad-image", format!("{} is no file name", short(path))));
    }
    Ok(clean)
}

fn outside(path: &str) -> Reject {
    let detail = if has_drive(path) {
        "a path of another computer: write names relative to a folder, and set `images` to that folder"
    } else {
        "an absolute path that lies in none of `images`: set `images` to a folder that holds it"
    };
    reject(MISSING, format!("{} is {detail}", short(path)))
}

impl Folder {
    fn new(path: &Path) -> Self {
        let absolute = [std::path::absolute(path), path.canonicalize()];
        Self { path: path.to_owned(), absolute: absolute.into_iter().flatten().collect() }
    }

    /// The files that a name may mean, likeliest first.
    pub fn candidates(&self, path: &str) -> Result<Vec<PathBuf>, Reject> {
        let relative = |name: &String| {
            if has_drive(name) {
                return Err(outside(name));
            }
            if !name.starts_with('/') {
                return inside(name);
            }
            let rest = self.absolute.iter().find_map(|folder| Path::new(name).strip_prefix(folder).ok());
            inside(&rest.ok_or_else(|| outside(path))?.to_string_lossy())
        };
        let names = spellings(path);
        let found: Vec<_> = names.iter().map(relative).collect();
        let joined: Vec<_> = found.iter().flatten().map(|name| self.path.join(name)).collect();
        if joined.is_empty() {
            found.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        Ok(joined)
    }

    fn load(&self, path: &str) -> Result<Vec<u8>, Reject> {
        let candidates = self.candidates(path)?;
        let found = candidates.iter().find(|file| file.is_file());
        let Some(file) = found.or(candidates.first()) else { return Err(missing(path)) };
        from_file(file, path)
    }
}

fn from_file(file: &Path, path: &str) -> Result<Vec<u8>, Reject> {
    let failed = |cause: &io::Error| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => missing(path),
        _ => reject("unreadable-image-file", format!("{}: {cause}", short(path))),
    };
    let file = std::fs::File::open(file).map_err(|cause| failed(&cause))?;
    let metadata = file.metadata().map_err(|cause| failed(&cause))?;
    if metadata.is_dir() {
        return Err(reject(MISSING, format!("{} is a folder", short(path))));
    }
    let size = metadata.len();
    read_whole(file, size, path)
}

fn missing(path: &str) -> Reject {
    reject(MISSING, format!("{} is not in `images`", short(path)))
}

fn read_whole(input: impl Read, size: u64, path: &str) -> Result<Vec<u8>, Reject> {
    let mut bytes = Vec::with_capacity(size.min(MAX_IMAGE_BYTES) as usize);
    let read = input.take(MAX_IMAGE_BYTES + 1).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 > MAX_IMAGE_BYTES => {
            Err(reject("too-large", format!("{} is over {MAX_IMAGE_BYTES} bytes", short(path))))
        }
        Ok(_) => Ok(bytes),
        Err(cause) => Err(reject("unreadable-image-file", format!("{}: {cause}", short(path)))),
    }
}

impl ZipImages {
    fn open(path: &Path, context: &dyn OpenContext) -> Result<Self, StageError> {
        let digest = context.file_digest(path)?;
        let file = Section::open(path).map_err(|cause| StageError::io(path, cause))?;
        let archive = ZipArchive::new(file).map_err(|cause| {
            StageError::new(format!(
                "images = \"{}\": not a zip file that can be read: {cause}",
                path.display()
            ))
            .help("Name a folder or a complete .zip file; a download cut short has lost its directory.")
            .because(cause)
        })?;
        let names: Vec<String> = archive.file_names_raw().map(utf8_name).collect();
        let in_gbk: Vec<String> = archive.file_names_raw().map(gbk_name).collect();
        let mut folders = vec![shared_folder(&names), shared_folder(&in_gbk)];
        folders.dedup();
        let mut respelled = HashMap::new();
        for names in [names, in_gbk] {
            for (index, (name, raw)) in names.into_iter().zip(archive.file_names_raw()).enumerate() {
                if name.as_bytes() != raw {
                    // The likelier spelling came first, and stays.
                    respelled.entry(name).or_insert(index);
                }
            }
        }
        Ok(Self { archive, respelled, folders, digest })
    }

    fn index(&self, path: &str) -> Result<usize, Reject> {
        let mut names = Vec::new();
        for name in spellings(path) {
            if name.starts_with('/') || has_drive(&name) {
                return Err(outside(path));
            }
            // A zip separates folders with slashes wherever it was made.
            names.push(inside(&name)?.to_string_lossy().replace('\\', "/"));
        }
        let entry = |name: &str| {
            let index = self.archive.index_for_name_raw(name.as_bytes());
            index.or_else(|| self.respelled.get(name).copied())
        };
        let below = |name: &str| self.folders.iter().find_map(|folder| entry(&format!("{folder}{name}")));
        let found = names.iter().find_map(|name| entry(name).or_else(|| below(name)));
        found.ok_or_else(|| missing(path))
    }

    fn load(&self, path: &str) -> Result<Vec<u8>, Reject> {
        let index = self.index(path)?;
        // A clone shares the directory and the file, and has a read position of its own.
        let mut archive = ZipArchive::clone(&self.archive);
        match archive.by_index(index) {
            Ok(entry) => {
                let size = entry.size();
                read_whole(entry, size, path)
            }
            Err(cause) => Err(reject("unreadable-image-file", format!("{}: {cause}", short(path)))),
        }
    }
}

/// The name of an entry in UTF-8, with slashes: Windows writes GBK (or another encoding of its own) and sometimes backslashes.
fn utf8_name(raw: &[u8]) -> String {
    let name = match std::str::from_utf8(raw) {
        Ok(name) => name.to_owned(),
        Err(_) => encoding_rs::GB18030.decode_without_bom_handling(raw).0.into_owned(),
    };
    slashed(&name)
}

/// The name read as GBK even where it is valid UTF-8: the GBK bytes of `图片/猫.png` are, by chance.
fn gbk_name(raw: &[u8]) -> String {
    match encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(raw) {
        Some(name) => slashed(&name),
        None => utf8_name(raw),
    }
}

fn slashed(name: &str) -> String {
    name.replace('\\', "/").nfc().collect()
}

/// `images/` when every entry lies below it, otherwise nothing; what the Finder adds does not count.
fn shared_folder(names: &[String]) -> String {
    let mut names = names.iter().filter(|name| !name.split('/').any(is_hidden));
    let Some((folder, _)) = names.clone().next().and_then(|name| name.split_once('/')) else {
        return String::new();
    };
    let folder = format!("{folder}/");
    if names.all(|name| name.starts_with(&folder)) { folder } else { String::new() }
}
