//! A table of images: lines of a name, a tab and base64, as the Chinese retrieval sets (MUGE) keep them.
//!
//! In: a TSV file without a header. Out: the image of a name, read where it lies. Only names and places are in memory; where a
//! name comes twice, the first line counts.

use super::image_cell::{decode_base64, short};
use super::json_lines::BOM;
use super::raw::reject;
use super::section::Section;
use super::text::{MAX_RECORD, READ_BUFFER};
use llavm_pipeline::StageError;
use llavm_pipeline::rejects::Reject;
use llavm_pipeline::stage::{Digest, OpenContext};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Raised when the same file gives another index.
const INDEX_VERSION: u32 = 1;

/// An open table with the places of its images.
pub struct TableImages {
    file: Section,
    /// Where the base64 text of a name begins, and its length in bytes.
    places: HashMap<String, (u64, u64)>,
    digest: Digest,
}

impl TableImages {
    pub fn open(path: &Path, context: &dyn OpenContext) -> Result<Self, StageError> {
        let io = |cause| StageError::io(path, cause);
        let digest = context.file_digest(path)?;
        let file = Section::open(path).map_err(io)?;
        let key = format!("read/image-table/{INDEX_VERSION}/{}", digest.to_hex());
        let mut compute = || index(file.clone()).map_err(io);
        let mut places = decode(&context.remembered(&key, &mut compute)?);
        if places.is_none() {
            places = decode(&compute()?);
        }
        match places {
            Some(places) if !places.is_empty() => Ok(Self { file, places, digest }),
            _ => Err(StageError::new(format!(
                "images = \"{}\": no line is a name, a tab and base64",
                path.display()
            ))
            .help(
                "A table of images has no header and two columns; name a folder or a zip if this is none.",
            )),
        }
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The encoded image of that name, if the table has it.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>, Reject> {
        let Some((start, length)) = self.places.get(name) else { return Ok(None) };
        if *length > MAX_RECORD as u64 {
            return Err(reject("too-large", format!("{} is over {MAX_RECORD} bytes", short(name))));
        }
        let mut text = String::with_capacity(*length as usize);
        let read = self.file.part(*start, *length).read_to_string(&mut text);
        read.map_err(|cause| reject("unreadable-image-file", format!("{}: {cause}", short(name))))?;
        decode_base64(&text).map(Some)
    }
}

/// Name, start and length of each image: two lengths of eight bytes, the length of the name, the name.
fn index(file: Section) -> io::Result<Vec<u8>> {
    let mut lines = BufReader::with_capacity(READ_BUFFER, file);
    let (mut index, mut name, mut offset) = (Vec::new(), Vec::new(), 0_u64);
    loop {
        name.clear();
        let named = lines.read_until(b'\t', &mut name)? as u64;
        if named == 0 {
            return Ok(index);
        }
        // A line without a tab belongs to the name of the next one as it was read; it holds no image.
        let line = name.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = name[line..].strip_suffix(b"\t").unwrap_or_default();
        let text = text.strip_prefix(BOM).unwrap_or(text).trim_ascii();
        let length = lines.skip_until(b'\n')? as u64;
        if !text.is_empty() && length > 0 {
            for number in [offset + named, length, text.len() as u64] {
                index.extend_from_slice(&number.to_le_bytes());
            }
            index.extend_from_slice(text);
        }
        offset += named + length;
    }
}

fn decode(mut index: &[u8]) -> Option<HashMap<String, (u64, u64)>> {
    let mut places = HashMap::new();
    while !index.is_empty() {
        let (numbers, rest) = index.split_first_chunk::<24>()?;
        let number = |at: usize| Some(u64::from_le_bytes(*numbers[at..].first_chunk()?));
        let (name, rest) = rest.split_at_checked(usize::try_from(number(16)?).ok()?)?;
        let place = (number(0)?, number(8)?);
        places.entry(String::from_utf8_lossy(name).into_owned()).or_insert(place);
        index = rest;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::tests::Context;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn table(text: &str) -> Result<TableImages, StageError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imgs.tsv");
        std::fs::write(&path, text).unwrap();
        TableImages::open(&path, &Context::default())
    }

    #[test]
    fn an_image_is_found_by_its_name_whatever_the_line_ends() {
        let [one, two] = [b"\xff\xd8one".as_slice(), b"\xff\xd8two"].map(|bytes| STANDARD.encode(bytes));
        let table =
            table(&format!("\u{feff}17\t{one}\r\n\nno tab here\n18\t{two}\n17\t{two}\n图\t{one}")).unwrap();
        for (name, bytes) in [("17", b"\xff\xd8one"), ("18", b"\xff\xd8two"), ("图", b"\xff\xd8one")] {
            assert_eq!(table.load(name).unwrap().as_deref(), Some(bytes.as_slice()), "{name}");
        }
        assert_eq!(table.load("19").unwrap(), None);
    }

    #[test]
    fn what_is_no_table_is_reported() {
        for text in ["", "no tab\n", "\t\n"] {
            assert!(table(text).err().unwrap().to_string().contains("no line is a name"), "{text:?}");
        }
        assert_eq!(table("1\t%%%\n").unwrap().load("1").unwrap_err().code, "bad-image");
    }
}
