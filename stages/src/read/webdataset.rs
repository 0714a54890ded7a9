//! Webdataset: a tar in which consecutive members with the same name up to the first dot are one row.
//!
//! `0001.jpg`, `0001.txt`, `0001.json` become the columns `jpg`, `txt`, `json` (and its fields: `json.caption`), beside `__key__`
//! (the name) and `image` (all members that are images, whatever their extension, in order). Numbered members, `0001.0.jpg` and
//! `0001.1.jpg`, are also one column by what stands behind the number, a list in the order of the numbers. Two members of one name in a row are
//! what `webdataset` calls an error too: nobody knows which belongs to which. Members are read where they lie; only those whose
//! column is asked for, and of images that are only counted nothing but the headers. Tars one behind the other in a file are one.
//!
//! There is no stage that downloads lists of addresses (Wukong and the like): a hundred million images on as many hosts need resolvers,
//! limits and retries by host, which img2dataset has; its webdataset output (`jpg`, `json.caption`) is taken as it is. What could
//! not be downloaded is listed in its own parquet files.

use super::byte_ranges::{ByteRange, Position, byte_ranges, cut};
use super::files::is_hidden;
use super::image_cell::{has_image_ending, short};
use super::input::Input;
use super::json;
use super::opening::Opening;
use super::raw::{CHUNK_ROWS, Chunk, ChunkIterator, RawColumn, RawFile, Request, Split, reject};
use super::sample::remembered_columns;
use super::section::Section;
use super::text::MAX_RECORD;
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::{FILE_LOST, Reject};
use llavm_pipeline::stage::{Digest, OpenContext};
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

const KEY: &str = "__key__";
const IMAGE: &str = "image";
/// Raised when the same rows get another digest without their images.
const TEXT_VERSION: u32 = 3;
/// Members lie at multiples of this.
const BLOCK: u64 = 512;

/// A tar whose rows have been counted.
pub struct Webdataset {
    input: Arc<Input>,
    byte_ranges: Vec<ByteRange>,
    splits: Vec<Split>,
    columns: Vec<RawColumn>,
    /// By split: the digest of everything but the bytes of images.
    without_images: Vec<Digest>,
}

impl Webdataset {
    /// The inner error says why the file is no tar.
    pub fn open(opening: &Opening<'_>) -> Result<Result<Self, String>, StageError> {
        let Opening { input, context, .. } = opening;
        let wrong = input.seen_at_start(&format!("tar/{TEXT_VERSION}"), *context, &|file| {
            Ok(not_a_tar(file)?.unwrap_or_default().into_bytes())
        })?;
        match wrong {
            Ok(wrong) if wrong.is_empty() => {}
            Ok(wrong) => return Ok(Err(String::from_utf8_lossy(&wrong).into_owned())),
            Err(cause) => return Ok(Err(cause)),
        }
        let every = opening.read.partition_rows;
        let byte_ranges = byte_ranges(input, "webdataset", every, *context, &|file| {
            let mut samples = Samples { file: file.clone(), offset: 0 };
            let mut chunk = Vec::new().into_iter();
            cut(every, file, &mut || {
                if chunk.len() == 0 {
                    chunk = samples.next(CHUNK_ROWS)?.into_iter();
                }
                Ok(chunk.next().map(|sample: Sample| Position { offset: sample.offset, line: 0 }))
            })
        });
        let byte_ranges = match byte_ranges? {
            Ok(byte_ranges) => byte_ranges,
            Err(cause) => return Ok(Err(cause)),
        };
        let splits = byte_ranges.iter().map(ByteRange::split).collect();
        let mut file = Self {
            input: Arc::clone(input),
            byte_ranges,
            splits,
            columns: Vec::new(),
            without_images: Vec::new(),
        };
        file.columns = remembered_columns(&file, "webdataset", *context)?;
        Ok(Ok(file))
    }

    /// One digest for each range, over the names of its members and the content of those that are no images.
    fn digests(&self) -> io::Result<Vec<u8>> {
        let file = self.input.section()?;
        let digest = |range: &ByteRange| {
            let part = file.part(range.offset, range.length);
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
        let digests = self.byte_ranges.par_iter().map(digest).collect::<io::Result<Vec<_>>>()?;
        Ok(digests.concat())
    }
}

impl RawFile for Webdataset {
    fn splits(&self) -> &[Split] {
        &self.splits
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
        self.byte_ranges.iter().for_each(|range| {
            all.update(range.digest.as_bytes());
        });
        let key = format!("read/without-images/{TEXT_VERSION}/{}", all.finalize().to_hex());
        let mut compute = || self.digests().map_err(|cause| StageError::io(self.input.path(), cause));
        let remembered = context.remembered(&key, &mut compute)?;
        let (digests, _) = remembered.as_chunks::<{ blake3::OUT_LEN }>();
        self.without_images = digests.iter().copied().map(Digest::from_bytes).collect();
        Ok(())
    }

    fn digest(&self, split: usize, request: &Request) -> Option<Digest> {
        let is_text = |name: &String| name != IMAGE && !is_image(name);
        let columns = request.columns.as_deref().unwrap_or_default();
        let mut read = columns.iter().filter(|name| request.counted.as_deref() != Some(name));
        if request.columns.is_some() && read.all(is_text) {
            return self.without_images.get(split).copied();
        }
        self.splits.get(split).map(|split| split.digest)
    }

    fn read(&self, split: usize, request: Request) -> Result<ChunkIterator<'_>, StageError> {
        let range = self.byte_ranges.get(split).ok_or_else(|| StageError::new("no such split"))?;
        let file = self.input.section().map_err(|cause| StageError::io(self.input.path(), cause))?;
        let left = request.limit.unwrap_or(usize::MAX).min(range.rows as usize);
        let samples = Samples { file: file.part(range.offset, range.length), offset: 0 };
        Ok(Box::new(Rows { input: &self.input, samples, request, next: 0, left }))
    }
}

/// Why the file cannot be a tar at all: its first header is no header.
fn not_a_tar(file: &Section) -> io::Result<Option<String>> {
    let mut archive = tar::Archive::new(file.clone());
    archive.set_ignore_zeros(true);
    Ok(match archive.entries()?.next() {
        None => Some("the tar is empty".to_owned()),
        Some(Err(cause)) => Some(format!("no tar: {cause}")),
        Some(Ok(_)) => None,
    })
}

/// Extension in lower case, position and length.
type Member = (String, u64, u64);

/// The members of one row.
#[derive(Debug, Default)]
struct Sample {
    key: String,
    /// Where its first header begins.
    offset: u64,
    members: Vec<Member>,
    fault: Option<(&'static str, String)>,
}

/// The number and the rest of `0.jpg`.
pub fn numbered(extension: &str) -> Option<(u64, &str)> {
    let (number, rest) = extension.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// Members that all have a number by that; others as the tar has them.
fn in_order<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<&'a Member> {
    let mut members: Vec<_> = members.collect();
    let number = |member: &&Member| numbered(&member.0).map(|(number, _)| number);
    if members.iter().all(|member| number(member).is_some()) {
        members.sort_by_key(number);
    }
    members
}

impl Sample {
    /// Numbered members by the extension behind the number, where no member has that for its own.
    fn numbered(&self) -> BTreeMap<&str, Vec<&Member>> {
        let mut found: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in &self.members {
            if let Some((_, rest)) = numbered(&member.0) {
                found.entry(rest).or_default().push(member);
            }
        }
        found.retain(|extension, _| self.members.iter().all(|member| member.0 != *extension));
        found.into_iter().map(|(extension, members)| (extension, in_order(members.into_iter()))).collect()
    }

    /// Adds all but the bytes of images; `file` is the range it lies in.
    fn hash(&self, file: &Section, hasher: &mut blake3::Hasher) -> io::Result<()> {
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        text(&self.key);
        text(self.fault.as_ref().map_or("", |(_, fault)| fault));
        for (extension, position, size) in &self.members {
            hasher.update(extension.as_bytes()).update(b"\0");
            if is_image(extension) {
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
        // What follows an end marker is another tar.
        archive.set_ignore_zeros(true);
        for entry in archive.entries_with_seek()? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(cause) => {
                    let fault = Some((FILE_LOST, format!("the tar is broken here: {cause}")));
                    samples.push(Sample { offset: base + end, fault, ..Sample::default() });
                    end = length;
                    break;
                }
            };
            let (position, size) = (entry.raw_file_position(), entry.size());
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            let is_link = kind.is_hard_link() || kind.is_symlink();
            let named = (kind.is_file() || is_link).then(|| key_and_extension(&path)).flatten();
            if let Some((key, extension)) = named {
                if samples.last().is_none_or(|sample| sample.key != key) {
                    if samples.len() == count {
                        break;
                    }
                    samples.push(Sample { key, offset: base + end, ..Sample::default() });
                }
                if let Some(sample) = samples.last_mut() {
                    if position.saturating_add(size) > length {
                        sample.fault = Some((FILE_LOST, format!("the file ends inside {}", short(&path))));
                    } else if is_link {
                        sample.fault.get_or_insert_with(|| ("linked-member", link(&path)));
                    } else if sample.fault.is_none()
                        && sample.members.iter().any(|member| member.0 == extension)
                    {
                        let detail = format!("the key {} has two members .{extension}", short(&sample.key));
                        sample.fault = Some(("duplicate-key", detail));
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

/// What is said of a member that is only a link to another.
fn link(path: &str) -> String {
    let path = short(path);
    format!("{path} is a link in the tar, not a file: write it with `tar --dereference --hard-dereference`")
}

/// `part/0001.seg.png` is the member `seg.png` of `part/0001`. Hidden files and names without a dot are no members.
fn key_and_extension(path: &str) -> Option<(String, String)> {
    let path = path.trim_start_matches("./");
    if path.split('/').any(is_hidden) {
        return None;
    }
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    let (stem, extension) = path[name_at..].split_once('.')?;
    let named = !stem.is_empty() && !extension.is_empty();
    named.then(|| (format!("{}{stem}", &path[..name_at]), extension.to_ascii_lowercase()))
}

fn is_image(extension: &str) -> bool {
    has_image_ending(&format!(".{extension}"))
}

struct Rows<'a> {
    input: &'a Input,
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
                Err(cause) => return Some(Err(StageError::io(self.input.path(), cause))),
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
        let sample = self.samples.get(index).ok_or_else(|| reject(FILE_LOST, "no such row"))?;
        if let Some(fault) = &sample.fault {
            return Err(reject(fault.0, fault.1.clone()));
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
        for (extension, members) in sample.numbered() {
            if self.request.wants_column(extension) {
                let members = members.into_iter().map(|member| self.member(member, extension));
                fields.push((Cow::Borrowed(extension), Value::List(members.collect::<Result<_, _>>()?)));
            }
        }
        let named = sample.members.iter().any(|member| member.0 == IMAGE);
        if !named && self.request.wants_column(IMAGE) {
            let images = in_order(sample.members.iter().filter(|member| is_image(&member.0)));
            let images = images.into_iter().map(|image| self.member(image, IMAGE));
            let mut images = images.collect::<Result<Vec<_>, _>>()?;
            let image = if images.len() == 1 { images.pop() } else { None };
            fields.push((Cow::Borrowed(IMAGE), image.unwrap_or(Value::List(images))));
        }
        Ok(Value::Object(fields))
    }
}

impl TarChunk {
    /// An image as bytes (none of them where it is only counted), JSON parsed, anything else as text without the line end
    /// that closes a text file. `column` is what the request calls it.
    fn member(&self, (extension, position, size): &Member, column: &str) -> Result<Value<'static>, Reject> {
        if *size > MAX_RECORD as u64 {
            return Err(reject("too-large", format!("the member .{extension} is over {MAX_RECORD} bytes")));
        }
        if is_image(extension) && (self.request.counts(column) || self.request.types_only) {
            return Ok(Value::Bytes(Cow::Borrowed(&[])));
        }
        let mut bytes = Vec::with_capacity(*size as usize);
        let failed =
            |cause: &dyn std::fmt::Display| reject(FILE_LOST, format!("the member .{extension}: {cause}"));
        self.file.part(*position, *size).read_to_end(&mut bytes).map_err(|cause| failed(&cause))?;
        if is_image(extension) {
            return Ok(Value::Bytes(Cow::Owned(bytes)));
        }
        if extension.rsplit('.').next() == Some("json") {
            let bad = |cause: &dyn std::fmt::Display| {
                reject("bad-json", format!("the member .{extension}: {cause}"))
            };
            let text = std::str::from_utf8(&bytes).map_err(|cause| bad(&cause))?;
            let text = text.trim_start_matches('\u{feff}');
            return json::parse(text).map(Value::into_owned).map_err(|cause| bad(&cause));
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
