//! Webdataset: a tar in which consecutive members with the same name up to the first dot are one row.
//!
//! `0001.jpg`, `0001.txt`, `0001.json` become the columns `jpg`, `txt`, `json` (and its fields: `json.caption`), beside `__key__`
//! (the name) and `image` (the first member that is a picture, whatever its extension). Members are read where they lie; only
//! those whose column is asked for, and of pictures that are only counted nothing but the headers.

use super::image_cell::short;
use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, Piece, RawColumn, RawFile, Request, reject};
use super::regions::{Position, Region, borders, regions};
use super::sample::sampled_columns;
use super::section::Section;
use super::text::MAX_RECORD;
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{Digest, OpenContext};
use rayon::prelude::*;
use std::borrow::Cow;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const PICTURES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "jfif", "tif", "tiff"];
const KEY: &str = "__key__";
const IMAGE: &str = "image";
/// Raised when the same rows get another digest without their pictures.
const TEXT_VERSION: u32 = 1;
/// Members lie at multiples of this.
const BLOCK: u64 = 512;

/// A tar whose rows have been counted.
pub struct Webdataset {
    path: PathBuf,
    regions: Vec<Region>,
    pieces: Vec<Piece>,
    columns: Vec<RawColumn>,
    /// By piece: the digest of everything but the bytes of pictures.
    without_pictures: Vec<Digest>,
}

impl Webdataset {
    pub fn open(
        path: &Path,
        every: u64,
        context: &dyn OpenContext,
    ) -> Result<Result<Self, String>, StageError> {
        let file = Section::open(path).map_err(|cause| StageError::io(path, cause))?;
        if let Some(cause) = not_a_tar(&file).map_err(|cause| StageError::io(path, cause))? {
            return Ok(Err(cause));
        }
        let regions = regions(path, "webdataset", every, context, &|file| {
            let length = file.len();
            let mut samples = Samples { file, offset: 0 };
            let mut chunk = Vec::new().into_iter();
            borders(every, length, &mut || {
                if chunk.len() == 0 {
                    chunk = samples.next(CHUNK_ROWS)?.into_iter();
                }
                Ok(chunk.next().map(|sample: Sample| Position { offset: sample.offset, line: 0 }))
            })
        })?;
        let pieces = regions.iter().map(Region::piece).collect();
        let mut file = Self {
            path: path.to_owned(),
            regions,
            pieces,
            columns: Vec::new(),
            without_pictures: Vec::new(),
        };
        file.columns = sampled_columns(&file, &|cell| cell.kind())?;
        Ok(Ok(file))
    }

    /// One digest for each region, over the names of its members and the content of those that are no pictures.
    fn digests(&self) -> io::Result<Vec<u8>> {
        let file = Section::open(&self.path)?;
        let digest = |region: &Region| {
            let part = file.part(region.offset, region.length);
            let mut samples = Samples { file: part.clone(), offset: 0 };
            let mut hasher = blake3::Hasher::new();
            loop {
                let chunk = samples.next(CHUNK_ROWS)?;
                if chunk.is_empty() {
                    return Ok(*hasher.finalize().as_bytes());
                }
                chunk.iter().try_for_each(|sample| sample.hash(&part, &mut hasher))?;
            }
        };
        let digests = self.regions.par_iter().map(digest).collect::<io::Result<Vec<_>>>()?;
        Ok(digests.concat())
    }
}

impl RawFile for Webdataset {
    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> &[RawColumn] {
        &self.columns
    }

    fn prepare(
        &mut self,
        _request: &Request,
        _image: Option<&str>,
        context: &dyn OpenContext,
    ) -> Result<(), StageError> {
        let mut all = blake3::Hasher::new();
        self.regions.iter().for_each(|region| {
            all.update(region.digest.as_bytes());
        });
        let key = format!("read/without-pictures/{TEXT_VERSION}/{}", all.finalize().to_hex());
        let mut compute = || self.digests().map_err(|cause| StageError::io(&self.path, cause));
        let remembered = context.remembered(&key, &mut compute)?;
        let (digests, _) = remembered.as_chunks::<{ blake3::OUT_LEN }>();
        self.without_pictures = digests.iter().copied().map(Digest::from_bytes).collect();
        Ok(())
    }

    fn digest(&self, piece: usize, request: &Request) -> Option<Digest> {
        let is_text = |name: &String| name != IMAGE && !is_picture(name);
        let columns = request.columns.as_deref().unwrap_or_default();
        let mut read = columns.iter().filter(|name| request.counted.as_deref() != Some(name));
        if request.columns.is_some() && read.all(is_text) {
            return self.without_pictures.get(piece).copied();
        }
        self.pieces.get(piece).map(|piece| piece.digest)
    }

    fn read(&self, piece: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let region = self.regions.get(piece).ok_or_else(|| StageError::new("no such piece"))?;
        let file = Section::open(&self.path).map_err(|cause| StageError::io(&self.path, cause))?;
        let left = request.limit.unwrap_or(usize::MAX).min(region.rows as usize);
        let samples = Samples { file: file.part(region.offset, region.length), offset: 0 };
        Ok(Box::new(Rows { path: &self.path, samples, request, next: 0, left }))
    }
}

/// Why the file cannot be a tar at all: its first header is no header.
fn not_a_tar(file: &Section) -> io::Result<Option<String>> {
    let mut archive = tar::Archive::new(file.clone());
    Ok(match archive.entries()?.next() {
        None => Some("the tar is empty".to_owned()),
        Some(Err(cause)) => Some(format!("no tar: {cause}")),
        Some(Ok(_)) => None,
    })
}

/// The members of one row.
#[derive(Debug, Default)]
struct Sample {
    key: String,
    /// Where its first header begins.
    offset: u64,
    /// Extension in lower case, position and length of each member, in order.
    members: Vec<(String, u64, u64)>,
    fault: Option<String>,
}

impl Sample {
    /// Adds all but the bytes of pictures; `file` is the region it lies in.
    fn hash(&self, file: &Section, hasher: &mut blake3::Hasher) -> io::Result<()> {
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        text(&self.key);
        text(self.fault.as_deref().unwrap_or_default());
        for (extension, position, size) in &self.members {
            hasher.update(extension.as_bytes()).update(b"\0");
            if is_picture(extension) {
                hasher.update(&[u8::from(*size > MAX_RECORD as u64)]);
            } else {
                hasher.update(&size.to_le_bytes()).update_reader(file.part(*position, *size))?;
            }
        }
        hasher.update(b"\0\0");
        Ok(())
    }
}

/// Reads headers only, skipping over data.
struct Samples {
    file: Section,
    /// Where the next sample begins.
    offset: u64,
}

impl Samples {
    /// The next `count` samples, fewer at the end. What stands after a broken header is one sample with a fault.
    fn next(&mut self, count: usize) -> io::Result<Vec<Sample>> {
        let base = self.offset;
        let rest = self.file.part(base, u64::MAX - base);
        let length = rest.len();
        let mut samples: Vec<Sample> = Vec::new();
        let mut end = 0;
        let mut archive = tar::Archive::new(rest);
        for entry in archive.entries_with_seek()? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(cause) => {
                    let fault = Some(format!("the tar is broken here: {cause}"));
                    samples.push(Sample { offset: base + end, fault, ..Sample::default() });
                    end = length;
                    break;
                }
            };
            let (position, size) = (entry.raw_file_position(), entry.size());
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let named = entry.header().entry_type().is_file().then(|| key_and_extension(&path)).flatten();
            if let Some((key, extension)) = named {
                if samples.last().is_none_or(|sample| sample.key != key) {
                    if samples.len() == count {
                        break;
                    }
                    samples.push(Sample { key, offset: base + end, ..Sample::default() });
                }
                if let Some(sample) = samples.last_mut() {
                    if position.saturating_add(size) > length {
                        sample.fault = Some(format!("the file ends inside {}", short(&path)));
                    }
                    sample.members.push((extension, base.saturating_add(position), size));
                }
            }
            end = position.saturating_add(size).div_ceil(BLOCK).saturating_mul(BLOCK).min(length);
        }
        self.offset = if samples.is_empty() { base + length } else { base + end };
        Ok(samples)
    }
}

/// `part/0001.seg.png` is the member `seg.png` of `part/0001`. Hidden files and names without a dot are no members.
fn key_and_extension(path: &str) -> Option<(String, String)> {
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    let (stem, extension) = path[name_at..].split_once('.')?;
    let named = !stem.is_empty() && !extension.is_empty();
    named.then(|| (format!("{}{stem}", &path[..name_at]), extension.to_ascii_lowercase()))
}

fn is_picture(extension: &str) -> bool {
    PICTURES.contains(&extension.rsplit('.').next().unwrap_or_default())
}

struct Rows<'a> {
    path: &'a Path,
    samples: Samples,
    request: Request,
    next: usize,
    left: usize,
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Box<dyn Chunk + 'a>, StageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let wanted = CHUNK_ROWS.min(self.left);
            let samples = match self.samples.next(wanted) {
                _ if wanted == 0 => return None,
                Ok(samples) if samples.is_empty() => return None,
                Ok(samples) => samples,
                Err(cause) => return Some(Err(StageError::io(self.path, cause))),
            };
            let first = self.next;
            (self.next, self.left) = (first + samples.len(), self.left.saturating_sub(samples.len()));
            let kept = samples.into_iter().enumerate().filter(|(index, _)| self.request.wants(first + index));
            let (rows, samples): (Vec<_>, Vec<_>) =
                kept.map(|(index, sample)| (first + index, sample)).unzip();
            if !rows.is_empty() {
                let (file, request) = (self.samples.file.clone(), self.request.clone());
                return Some(Ok(Box::new(TarChunk { file, request, rows, samples })));
            }
        }
    }
}

struct TarChunk {
    file: Section,
    request: Request,
    rows: Vec<usize>,
    samples: Vec<Sample>,
}

impl Chunk for TarChunk {
    fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn value(&self, index: usize) -> Result<Value<'_>, Reject> {
        let sample = self.samples.get(index).ok_or_else(|| reject("bad-file", "no such row"))?;
        if let Some(fault) = &sample.fault {
            return Err(reject("bad-file", fault.clone()));
        }
        let mut fields = Vec::new();
        if self.request.wants_column(KEY) {
            fields.push((Cow::Borrowed(KEY), Value::Text(Cow::Borrowed(&sample.key))));
        }
        for member in &sample.members {
            if self.request.wants_column(&member.0) {
                fields.push((Cow::Borrowed(member.0.as_str()), self.member(member, &member.0)?));
            }
        }
        let picture = sample.members.iter().find(|member| is_picture(&member.0));
        let named = sample.members.iter().any(|member| member.0 == IMAGE);
        if let Some(picture) = picture.filter(|_| !named && self.request.wants_column(IMAGE)) {
            fields.push((Cow::Borrowed(IMAGE), self.member(picture, IMAGE)?));
        }
        Ok(Value::Object(fields))
    }
}

impl TarChunk {
    /// A picture as bytes (none of them where it is only counted), JSON parsed, anything else as text without the line end
    /// that closes a text file. `column` is what the request calls it.
    fn member(
        &self,
        (extension, position, size): &(String, u64, u64),
        column: &str,
    ) -> Result<Value<'static>, Reject> {
        if *size > MAX_RECORD as u64 {
            return Err(reject("too-large", format!("the member .{extension} is over {MAX_RECORD} bytes")));
        }
        if is_picture(extension) && self.request.counts(column) {
            return Ok(Value::Bytes(Cow::Borrowed(&[])));
        }
        let mut bytes = Vec::with_capacity(*size as usize);
        let failed =
            |cause: &dyn std::fmt::Display| reject("bad-file", format!("the member .{extension}: {cause}"));
        self.file.part(*position, *size).read_to_end(&mut bytes).map_err(|cause| failed(&cause))?;
        if is_picture(extension) {
            return Ok(Value::Bytes(Cow::Owned(bytes)));
        }
        if extension.rsplit('.').next() == Some("json") {
            let parsed = serde_json::from_slice::<Value<'_>>(&bytes);
            return parsed
                .map(Value::into_owned)
                .map_err(|cause| reject("bad-json", format!("the member .{extension}: {cause}")));
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Value::Text(Cow::Owned(without_line_end(text))),
            Err(cause) => Value::Bytes(Cow::Owned(cause.into_bytes())),
        })
    }
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
