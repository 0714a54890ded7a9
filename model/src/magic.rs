//! Magic bytes: what a file really is where it is not what its name says. One table for data, weights, tokenizer files and images.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes looked at.
pub const PEEKED: usize = 512;

/// What the first bytes of a file show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Empty,
    Zeros,
    LfsPointer,
    Html,
    HubError,
    Xml,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    Lz4,
    SevenZip,
    Rar,
    Zip,
    Utf16,
    Parquet,
    Arrow,
    Pickle,
    Pdf,
    Sqlite,
    Hdf5,
    Video,
    Image(Image),
}

/// An image format; the codecs say which are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    Jpeg,
    Png,
    Gif,
    WebP,
    Bmp,
    Tiff,
    Jpeg2000,
    Avif,
    Heic,
    JpegXl,
    Photoshop,
    OpenExr,
    Radiance,
    Dds,
    Icon,
    Svg,
}

/// What a file begins with: bytes at an offset.
struct Magic {
    at: usize,
    bytes: &'static [u8],
    content: Content,
}

const fn magic(bytes: &'static [u8], content: Content) -> Magic {
    Magic { at: 0, bytes, content }
}

const fn image(at: usize, bytes: &'static [u8], image: Image) -> Magic {
    Magic { at, bytes, content: Content::Image(image) }
}

/// One line for each beginning, the longer before the shorter.
const MAGIC: &[Magic] = &[
    image(0, b"\xff\xd8\xff", Image::Jpeg),
    image(0, b"\x89PNG\r\n\x1a\n", Image::Png),
    image(0, b"GIF87a", Image::Gif),
    image(0, b"GIF89a", Image::Gif),
    image(8, b"WEBP", Image::WebP),
    image(0, b"BM", Image::Bmp),
    image(0, b"II*\0", Image::Tiff),
    image(0, b"MM\0*", Image::Tiff),
    image(0, b"II+\0", Image::Tiff),
    image(0, b"MM\0+", Image::Tiff),
    image(0, b"\0\0\0\x0cjP  \r\n\x87\n", Image::Jpeg2000),
    image(0, b"\xff\x4f\xff\x51", Image::Jpeg2000),
    image(4, b"ftypavif", Image::Avif),
    image(4, b"ftypavis", Image::Avif),
    image(4, b"ftyphei", Image::Heic),
    image(4, b"ftyphev", Image::Heic),
    image(4, b"ftypmif1", Image::Heic),
    image(4, b"ftypmsf1", Image::Heic),
    image(0, b"\xff\x0a", Image::JpegXl),
    image(0, b"\0\0\0\x0cJXL \r\n\x87\n", Image::JpegXl),
    image(0, b"8BPS", Image::Photoshop),
    image(0, b"\x76\x2f\x31\x01", Image::OpenExr),
    image(0, b"#?RADIANCE", Image::Radiance),
    image(0, b"DDS ", Image::Dds),
    image(0, b"\0\0\x01\0", Image::Icon),
    image(0, b"<svg", Image::Svg),
    Magic { at: 4, bytes: b"ftyp", content: Content::Video },
    magic(b"version https://git-lfs.github.com/spec/", Content::LfsPointer),
    magic(b"\x1f\x8b", Content::Gzip),
    magic(b"\x28\xb5\x2f\xfd", Content::Zstd),
    magic(b"BZh", Content::Bzip2),
    magic(b"\xfd7zXZ\0", Content::Xz),
    magic(b"\x04\x22\x4d\x18", Content::Lz4),
    magic(b"7z\xbc\xaf\x27\x1c", Content::SevenZip),
    magic(b"Rar!\x1a\x07", Content::Rar),
    magic(b"PK\x03\x04", Content::Zip),
    magic(b"PK\x05\x06", Content::Zip),
    magic(b"\xff\xfe", Content::Utf16),
    magic(b"\xfe\xff", Content::Utf16),
    magic(b"PAR1", Content::Parquet),
    magic(b"ARROW1", Content::Arrow),
    magic(b"\x80\x02", Content::Pickle),
    magic(b"%PDF-", Content::Pdf),
    magic(b"SQLite format 3\0", Content::Sqlite),
    magic(b"\x89HDF\r\n\x1a\n", Content::Hdf5),
    magic(b"Entry not found", Content::HubError),
    magic(b"Invalid username or password", Content::HubError),
];

impl Content {
    /// Of a file that should be text, a table, weights or the like, by its first bytes; `None` for text, and for formats that nobody mistakes.
    /// Images are left out: some begin as a text may (`BM`).
    pub fn of(start: &[u8]) -> Option<Self> {
        Self::found(start, |content| !matches!(content, Self::Image(_) | Self::Video))
    }

    /// Of a file that should be an image, by its first bytes.
    pub fn of_image(start: &[u8]) -> Option<Self> {
        Self::found(start, |_| true)
    }

    fn found(start: &[u8], wanted: impl Fn(Self) -> bool) -> Option<Self> {
        if start.is_empty() {
            return Some(Self::Empty);
        }
        let peeked = &start[..start.len().min(PEEKED)];
        if peeked.len() >= 64 && peeked.iter().all(|byte| *byte == 0) {
            return Some(Self::Zeros);
        }
        let known = |magic: &&Magic| {
            wanted(magic.content)
                && start.get(magic.at..).is_some_and(|rest| rest.starts_with(magic.bytes))
                && (magic.content != Self::Image(Image::WebP) || start.starts_with(b"RIFF"))
        };
        let content = MAGIC.iter().find(known).map(|magic| magic.content).or_else(|| markup(start));
        // Both may call themselves `mif1`; the list of brands behind it tells.
        let is_avif = || {
            peeked
                .get(16..peeked.len().min(64))
                .is_some_and(|brands| brands.windows(4).any(|brand| brand == b"avif"))
        };
        match content {
            Some(Self::Image(Image::Heic)) if is_avif() => Some(Self::Image(Image::Avif)),
            content => content,
        }
    }

    /// Of the file at `path`.
    pub fn of_file(path: &Path) -> io::Result<Option<Self>> {
        let mut start = Vec::with_capacity(PEEKED);
        File::open(path)?.take(PEEKED as u64).read_to_end(&mut start)?;
        Ok(Self::of(&start))
    }

    /// What it is, and what to do about it.
    fn parts(self) -> (&'static str, &'static str) {
        const UNPACK: &str = "unpack it first";
        const AGAIN: &str = "download it again";
        match self {
            Self::Empty => ("the file is empty", AGAIN),
            Self::Zeros => ("it holds nothing but zero bytes, as a download does that never finished", AGAIN),
            Self::LfsPointer => (
                "it is a Git LFS pointer, not the file itself",
                "run `git lfs pull` in its folder, or download it with `llavm fetch`",
            ),
            Self::Html => (
                "it is a web page (HTML), such as a login or an error page",
                "download the file itself: the address may need a login, or its raw form",
            ),
            Self::HubError => {
                ("it is an error message of the Hugging Face hub", "download it with `llavm fetch`")
            }
            Self::Xml => (
                "it is XML, such as the error of a storage service",
                "download it again, with a valid address",
            ),
            Self::Gzip => ("it is packed with gzip", UNPACK),
            Self::Zstd => ("it is packed with zstd", UNPACK),
            Self::Bzip2 => ("it is packed with bzip2", UNPACK),
            Self::Xz => ("it is packed with xz", UNPACK),
            Self::Lz4 => ("it is packed with lz4", UNPACK),
            Self::SevenZip => ("it is a 7-Zip archive", UNPACK),
            Self::Rar => ("it is a RAR archive", UNPACK),
            Self::Zip => ("it is a zip archive", UNPACK),
            Self::Utf16 => ("it is text in UTF-16", "write it in UTF-8"),
            Self::Parquet => ("it is a Parquet file", "name it `.parquet`"),
            Self::Arrow => ("it is an Arrow file", "name it `.arrow`"),
            Self::Pickle => ("it is a Python pickle", "save it in another format"),
            Self::Pdf => ("it is a PDF", "name the file meant"),
            Self::Sqlite => ("it is an SQLite database", "export the table"),
            Self::Hdf5 => ("it is an HDF5 file", "save it in another format"),
            Self::Video => ("it is a video", "take frames out of it first"),
            Self::Image(image) => image.parts(),
        }
    }

    /// What it is: "it is a zip archive".
    pub fn what(self) -> &'static str {
        self.parts().0
    }

    /// What to do: "unpack it first".
    pub fn advice(self) -> &'static str {
        self.parts().1
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, advice) = self.parts();
        write!(f, "{what}: {advice}")
    }
}

impl Image {
    fn parts(self) -> (&'static str, &'static str) {
        const CONVERT: &str = "convert it to JPEG, PNG or WebP first";
        match self {
            Self::Jpeg => ("it is a JPEG", CONVERT),
            Self::Png => ("it is a PNG", CONVERT),
            Self::Gif => ("it is a GIF", CONVERT),
            Self::WebP => ("it is a WebP", CONVERT),
            Self::Bmp => ("it is a BMP", CONVERT),
            Self::Tiff => ("it is a TIFF", CONVERT),
            Self::Jpeg2000 => ("it is a JPEG 2000", CONVERT),
            Self::Avif => ("it is an AVIF", "convert it to JPEG, PNG or WebP first (`avifdec`, or Pillow)"),
            Self::Heic => {
                ("it is a HEIC", "convert it to JPEG first (`heif-convert`, or Python's pillow-heif)")
            }
            Self::JpegXl => ("it is a JPEG XL", CONVERT),
            Self::Photoshop => ("it is a Photoshop document", CONVERT),
            Self::OpenExr => ("it is an OpenEXR", CONVERT),
            Self::Radiance => ("it is a Radiance HDR", CONVERT),
            Self::Dds => ("it is a DDS", CONVERT),
            Self::Icon => ("it is an icon", CONVERT),
            Self::Svg => ("it is an SVG", "render it to PNG first"),
        }
    }
}

fn markup(start: &[u8]) -> Option<Content> {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |with: &[u8]| start.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if begins(b"<!doctype html") || begins(b"<html") || begins(b"<head") || begins(b"<!-- ") {
        return Some(Content::Html);
    }
    begins(b"<?xml").then_some(Content::Xml)
}

/// What is wrong with a file of a model, by its first bytes where they show it, and otherwise in the words of whoever could not read it.
pub fn culprit(path: &Path, cause: impl fmt::Display) -> String {
    match Content::of_file(path) {
        // PyTorch's own files are zips and pickles.
        Ok(Some(content)) if !matches!(content, Content::Zip | Content::Pickle) => content.to_string(),
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_name_the_culprit() {
        let of = |start: &[u8]| Content::of(start);
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n";
        assert_eq!(of(pointer), Some(Content::LfsPointer));
        assert_eq!(of(b"\n <!DOCTYPE HTML><title>Sign in"), Some(Content::Html));
        assert_eq!(of(b"\x1f\x8b\x08"), Some(Content::Gzip));
        assert_eq!(of(b"PK\x03\x04\x14"), Some(Content::Zip));
        assert_eq!(of(b"\xff\xfe{\0"), Some(Content::Utf16));
        assert_eq!(of(&[0; 80]), Some(Content::Zeros));
        assert_eq!(of(b""), Some(Content::Empty));
        for fine in [b"{\"a\": 1}".as_slice(), b"[1]", b"a,b\n", b"\x89PNG\r\n", b"<image>\tx\n"] {
            assert_eq!(of(fine), None, "{fine:?}");
        }
        let reported = Content::LfsPointer.to_string();
        assert!(
            reported.starts_with("it is a Git LFS pointer, not the file itself: run `git lfs pull`"),
            "{reported}"
        );
    }

    #[test]
    fn a_general_container_is_what_its_brands_say() {
        let of = |brands: &[u8]| Content::of_image(&[b"\0\0\0\x1cftypmif1\0\0\0\0", brands].concat());
        assert_eq!(of(b"mif1avifmiaf"), Some(Content::Image(Image::Avif)));
        assert_eq!(of(b"mif1heicmiaf"), Some(Content::Image(Image::Heic)));
    }

    #[test]
    fn weights_and_tokenizers_that_are_something_else_say_what() {
        let folder = tempfile::tempdir().unwrap();
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n";
        for name in ["model.safetensors", "pytorch_model.bin", "tokenizer.json", "config.json"] {
            std::fs::write(folder.path().join(name), pointer).unwrap();
        }
        let lfs = "is a Git LFS pointer, not the file itself: run `git lfs pull`";
        let weights = crate::weights::Checkpoint::open(folder.path()).err().unwrap().to_string();
        assert!(weights.contains("model.safetensors") && weights.contains(lfs), "{weights}");
        let tokenizer = crate::tokenizer::Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(tokenizer.contains("tokenizer.json") && tokenizer.contains(lfs), "{tokenizer}");
        let config = crate::load::qwen3_config(folder.path()).unwrap_err().to_string();
        assert!(config.contains("config.json") && config.contains(lfs), "{config}");
    }
}
