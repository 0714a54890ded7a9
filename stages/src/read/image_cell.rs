//! What an image cell holds, in any of the forms data sets use.
//!
//! In: a cell. Out: the images it names, in order: bytes, or a path for the `images` folder or zip.
//!
//! | cell | images |
//! |---|---|
//! | null, empty text, empty list | none: a text-only row |
//! | binary, list of binary, list of byte values | the bytes; zero bytes are a broken image, not a missing one |
//! | struct of `bytes` and `path` (Hugging Face `datasets`), of `url`, `image`, `base64` … | the first of them that is not null |
//! | text | a `data:` URI, base64, a path, or JSON text of a list or struct of these |
//! | list of these | one after the other, nulls left out |

use super::json;
use super::raw::reject;
use super::value::Value;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use data_url::DataUrl;
use llavm_model::magic::Content;
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;

/// One image of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image<'a> {
    Bytes(Cow<'a, [u8]>),
    Path(Cow<'a, str>),
}

impl Image<'_> {
    pub fn into_owned(self) -> Image<'static> {
        match self {
            Self::Bytes(bytes) => Image::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Path(path) => Image::Path(Cow::Owned(path.into_owned())),
        }
    }
}

/// Padding is optional: data sets hold both, and the length alone decides.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

/// How base64 text of a JPEG (in either alphabet), PNG, GIF, WebP (RIFF), BMP or TIFF begins.
const BASE64_STARTS: [&str; 11] =
    ["/9j/", "_9j_", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "Qk1", "Qk2", "Qk3", "SUkqA", "TU0AK"];

/// Endings of image files, those that nothing here can decode among them: an image that cannot be decoded is said to be one.
const ENDINGS: [&str; 26] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif", "heic",
    "heif", "jxl", "jp2", "j2k", "jpx", "svg", "ico", "tga", "pnm", "ppm", "pgm", "psd",
];

/// What a struct calls its image, the first that is not null first: `bytes` before `path`, since the path is where the file once was.
pub const FIELDS: [&str; 13] = [
    "bytes",
    "image",
    "images",
    "image_url",
    "url",
    "base64",
    "data",
    "source",
    "path",
    "image_path",
    "file_name",
    "filename",
    "src",
];

/// Text of at least this length without an extension is taken for base64 even when its beginning is unknown: no path is so
/// long.
const LONG_TEXT: usize = 512;

/// Whether the name ends as those of image files do.
pub fn has_image_ending(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.trim_end().to_ascii_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Whether the cell is an image by the look of it: a file name, base64 text, encoded bytes.
pub fn looks_like_image(cell: &Value<'_>) -> bool {
    match cell {
        Value::Text(text) => {
            let text = text.trim();
            let is_name = text.len() < LONG_TEXT && !text.contains('\n') && has_image_ending(text);
            is_name || text.starts_with("data:image/") || is_base64(text)
        }
        Value::Bytes(bytes) => matches!(Content::of_image(bytes), Some(Content::Image(_))),
        Value::List(items) => items.first().is_some_and(looks_like_image),
        Value::Object(_) => cell.first_of(&["bytes", "path"]).is_some_and(looks_like_image),
        _ => false,
    }
}

/// The images of a cell.
pub fn images<'a>(cell: &'a Value<'_>) -> Result<Vec<Image<'a>>, Reject> {
    let mut found = Vec::new();
    collect(cell, &mut found)?;
    Ok(found)
}

fn collect<'a>(cell: &'a Value<'_>, found: &mut Vec<Image<'a>>) -> Result<(), Reject> {
    match cell {
        Value::Null => Ok(()),
        Value::Bytes(bytes) => {
            found.push(Image::Bytes(Cow::Borrowed(bytes)));
            Ok(())
        }
        Value::Text(text) => from_text(text, found),
        Value::Object(_) => from_struct(cell, found),
        Value::List(items) => match byte_values(items) {
            Some(bytes) => {
                found.push(Image::Bytes(Cow::Owned(bytes)));
                Ok(())
            }
            None => items.iter().try_for_each(|item| collect(item, found)),
        },
        other => {
            let detail = format!(
                "the image cell is {}, not bytes, base64 or a path; set `image_name` if it names one",
                other.kind()
            );
            Err(reject("bad-image", detail))
        }
    }
}

fn from_struct<'a>(cell: &'a Value<'_>, found: &mut Vec<Image<'a>>) -> Result<(), Reject> {
    if FIELDS.iter().all(|name| cell.get(name).is_none()) {
        let detail = format!("the image cell is {}: it has neither `bytes` nor `path`", cell.kind());
        return Err(reject("bad-image", detail));
    }
    let before = found.len();
    for name in FIELDS {
        collect(cell.get(name).unwrap_or(&Value::Null), found)?;
        if found.len() > before {
            break;
        }
    }
    Ok(())
}

/// A list of numbers that are all bytes (`list<uint8>`).
fn byte_values(items: &[Value<'_>]) -> Option<Vec<u8>> {
    let byte =
        |item: &Value<'_>| if let Value::Int(number) = item { u8::try_from(*number).ok() } else { None };
    if items.is_empty() { None } else { items.iter().map(byte).collect() }
}

fn from_text<'a>(text: &'a str, found: &mut Vec<Image<'a>>) -> Result<(), Reject> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(());
    }
    if let Some(cell) = json_cell(text) {
        for image in images(&cell)? {
            found.push(image.into_owned());
        }
        return Ok(());
    }
    if text.starts_with("data:") {
        found.push(from_data_url(text)?);
        return Ok(());
    }
    if is_url(text) {
        let detail =
            format!("{} is a URL: download the images first, then set `images` to their folder", short(text));
        return Err(reject("image-is-url", detail));
    }
    found.push(if is_base64(text) || text.len() >= LONG_TEXT {
        Image::Bytes(Cow::Owned(decode_base64(text)?))
    } else {
        Image::Path(Cow::Borrowed(text))
    });
    Ok(())
}

/// A list or struct written as JSON text, as tables hold them.
fn json_cell(text: &str) -> Option<Value<'_>> {
    let brackets =
        (text.starts_with('[') && text.ends_with(']')) || (text.starts_with('{') && text.ends_with('}'));
    brackets.then(|| json::parse(text).ok()).flatten()
}

fn from_data_url(text: &str) -> Result<Image<'static>, Reject> {
    let bad = |why: &str| reject("bad-image", format!("{why}: {}", short(text)));
    let url = DataUrl::process(text).map_err(|_| bad("no valid data: URI"))?;
    let head = text.split_once(',').map_or(text, |(head, _)| head).to_ascii_lowercase();
    if url.mime_type().type_ != "image" && !head.ends_with(";base64") {
        return Err(bad("the data: URI is no image"));
    }
    let (bytes, _) = url.decode_to_vec().map_err(|_| bad("the data: URI is not base64"))?;
    if bytes.is_empty() {
        return Err(bad("the data: URI is empty"));
    }
    Ok(Image::Bytes(Cow::Owned(bytes)))
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "s3://", "gs://", "hf://"].iter().any(|scheme| text.starts_with(scheme))
}

fn is_base64(text: &str) -> bool {
    let starts = BASE64_STARTS.iter().any(|start| text.starts_with(start)) || is_iso_media(text);
    starts && !has_extension(text)
}

/// Whether base64 text begins as AVIF and HEIC do: a length below 256, then `ftyp`.
fn is_iso_media(text: &str) -> bool {
    text.starts_with("AAAA") && text.get(5..10) == Some("GZ0eX")
}

/// Base64 has no full stop, so one near the end means a file name.
fn has_extension(text: &str) -> bool {
    text.len() < LONG_TEXT && text.contains('.')
}

/// Base64 in the standard or the URL-safe alphabet, line breaks allowed (MIME).
pub fn decode_base64(text: &str) -> Result<Vec<u8>, Reject> {
    let unbroken: Cow<'_, str> = if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        Cow::Owned(text.chars().filter(|c| !c.is_ascii_whitespace()).collect())
    } else {
        Cow::Borrowed(text)
    };
    let engine = if unbroken.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    match engine.decode(unbroken.as_bytes()) {
        Ok(bytes) if bytes.is_empty() => Err(reject("bad-image", "the base64 text is empty")),
        Ok(bytes) => Ok(bytes),
        Err(cause) => Err(reject("bad-image", format!("not base64 ({cause}): {}", short(text)))),
    }
}

/// The beginning of a text, for messages, on one line: line breaks and marks that cannot be seen are written as escapes.
pub fn short(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown = "`".to_owned();
    for letter in text.chars().take(SHOWN) {
        if letter.is_control() || letter == '\u{feff}' {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown.push_str(if text.chars().nth(SHOWN).is_some() { "…`" } else { "`" });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const JPEG: &[u8] = &[0xff, 0xd8, 0xff, 0xe0, 0, 16, b'J', b'F', b'I', b'F'];

    fn bytes(cell: &Value<'_>) -> Vec<Vec<u8>> {
        let bytes = |image| match image {
            Image::Bytes(bytes) => bytes.into_owned(),
            Image::Path(path) => panic!("{path} is a path"),
        };
        images(cell).unwrap().into_iter().map(bytes).collect()
    }

    fn jpeg() -> Value<'static> {
        Value::Bytes(Cow::Borrowed(JPEG))
    }

    #[test]
    fn every_form_of_the_same_image_gives_the_same_bytes() {
        let base64 = STANDARD.encode(JPEG);
        let structure =
            Value::Object(vec![("bytes".into(), jpeg()), ("path".into(), Value::Text("gone.jpg".into()))]);
        let forms = [
            jpeg(),
            Value::List(vec![jpeg()]),
            structure.clone(),
            Value::List(vec![structure]),
            Value::Text(base64.clone().into()),
            Value::Text(base64.trim_end_matches('=').to_owned().into()),
            Value::Text(format!("{}\r\n{}", &base64[..8], &base64[8..]).into()),
            Value::Text(format!("data:image/jpeg;base64,{base64}").into()),
            Value::Text(URL_SAFE.encode(JPEG).into()),
            Value::Text(format!("[\"{base64}\"]").into()),
            Value::Text(format!("{{\"bytes\": null, \"url\": \"data:image/jpeg;base64,{base64}\"}}").into()),
            Value::Object(vec![(
                "url".into(),
                Value::Text(format!("data:image/jpeg;base64,{base64}").into()),
            )]),
            Value::Text(format!("data:;base64,{}", base64.replace('+', "%2B")).into()),
            Value::List(JPEG.iter().map(|byte| Value::Int((*byte).into())).collect()),
        ];
        for form in forms {
            assert_eq!(bytes(&form), [JPEG], "{form:?}");
        }
    }

    #[test]
    fn null_and_empty_cells_are_text_only() {
        let nothing = Value::Object(vec![("bytes".into(), Value::Null), ("path".into(), Value::Null)]);
        for cell in [
            Value::Null,
            Value::Text("  ".into()),
            Value::List(vec![]),
            Value::List(vec![Value::Null]),
            nothing,
        ] {
            assert_eq!(images(&cell).unwrap(), [], "{cell:?}");
        }
    }

    #[test]
    fn a_file_name_is_a_path_even_where_it_could_be_base64() {
        for name in
            ["GCC_train_002582585.jpg", "00000/000000010.jpg", "/9j/4AAQ.jpg", "Qk0.png", "图.jpg", "[1].jpg"]
        {
            assert_eq!(images(&Value::Text(name.into())).unwrap(), [Image::Path(name.into())]);
        }
    }

    #[test]
    fn a_list_in_json_text_holds_several_images() {
        let cell = Value::Text(r#"["a.jpg", null, "b.jpg"]"#.into());
        assert_eq!(images(&cell).unwrap(), [Image::Path("a.jpg".into()), Image::Path("b.jpg".into())]);
    }

    #[test]
    fn images_are_known_by_their_look() {
        for text in
            ["a/b.JPG", "x.avif", "data:image/png;base64,AA", "/9j/4AAQSkZJRg", "AAAAIGZ0eXBhdmlmAAAA"]
        {
            assert!(looks_like_image(&Value::Text(text.into())), "{text}");
        }
        assert!(
            looks_like_image(&Value::List(vec![jpeg()]))
                && !looks_like_image(&Value::Bytes(b"text".as_slice().into()))
        );
        for text in ["a cat", "see a.jpg and tell", "v1.0", ""] {
            assert!(!looks_like_image(&Value::Text(text.into())), "{text}");
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        for (cell, code) in [
            (Value::Text("https://example.org/a.jpg".into()), "image-is-url"),
            (Value::Text("data:text/plain,hello".into()), "bad-image"),
            (Value::Text("data:image/png;base64,%%%".into()), "bad-image"),
            (Value::Int(7), "bad-image"),
            (Value::Object(vec![("width".into(), Value::Null)]), "bad-image"),
            (Value::Object(vec![("url".into(), Value::Text("https://x.org/a.png".into()))]), "image-is-url"),
        ] {
            assert_eq!(images(&cell).unwrap_err().code, code, "{cell:?}");
        }
    }

    #[test]
    fn what_a_message_shows_of_a_text_is_one_line() {
        assert_eq!(short("\u{feff}one\r\n二\t`3`"), r"`\u{feff}one\r\n二\t`3``");
        assert_eq!(short(&"图".repeat(60)), format!("`{}`", "图".repeat(60)));
        assert_eq!(short(&"图".repeat(61)), format!("`{}…`", "图".repeat(60)));
    }
}
