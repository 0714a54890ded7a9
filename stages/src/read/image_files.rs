//! Pictures that rows name: files of a folder, entries of a zip that is never extracted, or lines of a table.
//!
//! A path never leaves the folder: absolute paths and `..` are rejected.

use super::image_cell::short;
use super::image_table::TableImages;
use super::raw::reject;
use super::section::Section;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{Digest, OpenContext};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use zip::ZipArchive;

/// Code of a picture that no place has.
const MISSING: &str = "missing-image";

/// Largest picture file read, in bytes: above the largest real photos, below what a crafted zip entry can unfold to.
const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// Where pictures given by name are looked up: in each place in turn.
pub struct ImageFiles {
    places: Vec<Place>,
}

/// One entry of `images`.
pub enum Place {
    Folder(PathBuf),
    Zip(Box<ZipImages>),
    Table(TableImages),
}

/// An open zip with its central directory.
pub struct ZipImages {
    archive: ZipArchive<Section>,
    /// The folder that all entries share, with its slash; rows may leave it out.
    folder: String,
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

    /// The encoded picture of that name, from the first place that has it.
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
            return Ok(Self::Folder(path.to_owned()));
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

    pub fn folder(&self) -> Option<&Path> {
        if let Self::Folder(folder) = self { Some(folder) } else { None }
    }

    fn load(&self, path: &str) -> Result<Vec<u8>, Reject> {
        match self {
            Self::Folder(folder) => from_folder(folder, path),
            Self::Zip(zip) => zip.load(path),
            Self::Table(table) => table.load(path)?.ok_or_else(|| missing(path)),
        }
    }
}

/// `path` without `./`, when it stays inside the folder it is joined to.
pub fn inside(path: &str) -> Result<PathBuf, Reject> {
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

fn from_folder(folder: &Path, path: &str) -> Result<Vec<u8>, Reject> {
    let failed = |cause: &io::Error| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => missing(path),
        _ => reject("unreadable-image-file", format!("{}: {cause}", short(path))),
    };
    let file = std::fs::File::open(folder.join(inside(path)?)).map_err(|cause| failed(&cause))?;
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
        let folder = shared_folder(&archive);
        Ok(Self { archive, folder, digest })
    }

    fn load(&self, path: &str) -> Result<Vec<u8>, Reject> {
        let name = inside(path)?;
        let name = name.to_string_lossy();
        let index = self.archive.index_for_name_raw(name.as_bytes());
        let index =
            index.or_else(|| self.archive.index_for_name_raw(format!("{}{name}", self.folder).as_bytes()));
        let index = index.ok_or_else(|| missing(path))?;
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

/// `images/` when every entry lies below it, otherwise nothing.
fn shared_folder(archive: &ZipArchive<Section>) -> String {
    let first = archive.name_for_index(0).and_then(Result::ok);
    let Some((folder, _)) = first.as_deref().and_then(|name| name.split_once('/')) else {
        return String::new();
    };
    let folder = format!("{folder}/");
    let shared = archive.file_names_raw().all(|name| name.starts_with(folder.as_bytes()));
    if shared { folder } else { String::new() }
}
