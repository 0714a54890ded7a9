//! The file formats: one table, a line for each.

use super::arrow_file::ArrowRows;
use super::delimited::{self, COMMA, TAB};
use super::input::peek;
use super::json_array::{JsonArray, Layout, begins_array, layout};
use super::json_lines::JsonLines;
use super::opening::{Opened, Opening, boxed};
use super::parquet::Parquet;
use super::text::TextFile;
use super::webdataset::Webdataset;
use llavm_model::magic::Content;
use llavm_pipeline::StageError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;

/// How the rows of a file are written.
#[derive(Debug)]
pub struct FileFormat {
    /// What `format` calls it, and what else it may be called there.
    name: &'static str,
    alias: &'static str,
    extensions: &'static [&'static str],
    /// How its files begin, where they all do.
    begins: Option<Content>,
    /// Whether `encoding` concerns it.
    is_text: bool,
    /// Whether its files may be packed as a whole.
    may_be_packed: bool,
    open: fn(&Opening<'_>) -> Opened,
}

const FORMATS: [FileFormat; 7] = [
    line("parquet", "pq", &["parquet", "pq"], open_parquet).beginning(Content::Parquet).never_packed(),
    line("arrow", "feather", &["arrow", "feather", "ipc"], open_arrow).beginning(Content::Arrow),
    line("jsonl", "ndjson", &["jsonl", "ndjson"], open_lines).text(),
    line("json", "json-array", &["json"], open_json).text(),
    line("csv", "comma-separated", &["csv"], |opening| delimited::open(opening, COMMA)).text(),
    line("tsv", "tab-separated", &["tsv", "tab"], |opening| delimited::open(opening, TAB)).text(),
    line("webdataset", "tar", &["tar", "tgz"], |opening| boxed(Webdataset::open(opening)?)),
];

/// Raised when the same file is taken for another layout.
const VERSION: u32 = 2;

/// Endings of packed files, which stand behind the format's own.
const PACKED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];

const fn line(
    name: &'static str,
    alias: &'static str,
    extensions: &'static [&'static str],
    open: fn(&Opening<'_>) -> Opened,
) -> FileFormat {
    FileFormat { name, alias, extensions, begins: None, is_text: false, may_be_packed: true, open }
}

impl FileFormat {
    const fn beginning(mut self, content: Content) -> Self {
        self.begins = Some(content);
        self
    }

    const fn never_packed(mut self) -> Self {
        self.may_be_packed = false;
        self
    }

    const fn text(mut self) -> Self {
        self.is_text = true;
        self
    }
}

fn open_parquet(opening: &Opening<'_>) -> Opened {
    boxed(Parquet::open(opening.path(), opening.read.partition_rows, opening.dictionaries, opening.context)?)
}

fn open_arrow(opening: &Opening<'_>) -> Opened {
    boxed(ArrowRows::open(opening)?)
}

fn open_lines(opening: &Opening<'_>) -> Opened {
    let found =
        opening.input.seen_at_start(&format!("array-in-lines/{VERSION}"), opening.context, &|file| {
            Ok(vec![u8::from(begins_array(file)?)])
        })?;
    match found {
        Ok(found) if found == [1] => {
            Ok(Err("it is one JSON array: name it `.json`, or set format = \"json\"".to_owned()))
        }
        Ok(_) => boxed(TextFile::open(opening, JsonLines)?),
        Err(cause) => Ok(Err(cause)),
    }
}

fn open_json(opening: &Opening<'_>) -> Opened {
    let found = opening.input.seen_at_start(&format!("json-layout/{VERSION}"), opening.context, &|file| {
        serde_json::to_vec(&layout(file)?).map_err(std::io::Error::from)
    })?;
    match found.map(|found| serde_json::from_slice::<Result<Layout, String>>(&found)) {
        Ok(Ok(Ok(Layout::Array))) => boxed(TextFile::open(opening, JsonArray)?),
        Ok(Ok(Ok(Layout::Lines))) => boxed(TextFile::open(opening, JsonLines)?),
        Ok(Ok(Err(cause))) | Err(cause) => Ok(Err(cause)),
        Ok(Err(cause)) => Ok(Err(cause.to_string())),
    }
}

/// One of [`FORMATS`].
#[derive(Clone, Copy, Debug)]
pub struct Format(&'static FileFormat);

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Format {
    /// By extension, without that of a packed file.
    pub fn of(path: &Path) -> Result<Self, StageError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
        let mut endings = name.rsplit('.').filter(|ending| !PACKED.contains(ending));
        let ending = endings.next().unwrap_or_default();
        let found = FORMATS.iter().find(|format| format.extensions.contains(&ending));
        found.map(Self).ok_or_else(|| {
            let names: Vec<_> = FORMATS.iter().map(|format| format!("\"{}\"", format.name)).collect();
            StageError::new(format!("{}: cannot tell the format from the name", path.display()))
                .help(format!("Set format = {}; unpack zips first.", names.join(" or ")))
        })
    }

    fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|format| format.name == name || format.alias == name).map(Self)
    }

    pub fn is_text(self) -> bool {
        self.0.is_text
    }

    /// Opens a file. The inner error says why it is none of this format.
    pub fn open(self, opening: &Opening<'_>) -> Opened {
        let io = |cause| StageError::io(opening.path(), cause);
        let content = if self.0.may_be_packed {
            match opening.input.content() {
                Ok(content) => content,
                Err(cause) => return opening.input.failed(cause),
            }
        } else {
            peek(opening.path()).map_err(io)?
        };
        match content {
            Some(Content::Utf16) if opening.read.encoding.is_none() && self.0.is_text => {
                Ok(Err("it is text in UTF-16: set encoding = \"utf-16\"".to_owned()))
            }
            Some(Content::Utf16) if self.0.is_text => (self.0.open)(opening),
            Some(content) if Some(content) != self.0.begins => Ok(Err(content.to_string())),
            _ => (self.0.open)(opening),
        }
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| {
            let names: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
            serde::de::Error::custom(format!("unknown format `{name}`, expected one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_tells_the_format() {
        for (name, format) in [
            ("a.PARQUET", "parquet"),
            ("a.ndjson", "jsonl"),
            ("a.jsonl.gz", "jsonl"),
            ("a.JSON.zst", "json"),
            ("00000.tar.gz", "webdataset"),
            ("00000.tgz", "webdataset"),
            ("data-00000-of-00001.arrow", "arrow"),
            ("a.tab", "tsv"),
        ] {
            assert_eq!(Format::of(Path::new(name)).unwrap(), Format::named(format).unwrap(), "{name}");
        }
        let error = Format::of(Path::new("a.zip")).unwrap_err();
        assert!(error.advice().unwrap().contains("unpack"), "{error}");
        assert_eq!(Format::named("tar"), Format::named("webdataset"));
    }
}
