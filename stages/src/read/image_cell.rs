//! What an image cell holds, in any of the forms data sets use.
//!
//! In: a cell. Out: the pictures it names, in order: bytes, or a path for the `images` folder or zip.
//!
//! | cell | pictures |
//! |---|---|
//! | null, empty text, empty list | none: a text-only row |
//! | binary, list of binary, list of byte values | the bytes; zero bytes are a broken picture, not a missing one |
//! | struct of `bytes` and `path` (Hugging Face `datasets`) | the bytes, or the path where bytes are null |
//! | text | a `data:` URI, base64, or a path |
//! | list of these | one after the other, nulls left out |

use super::raw::reject;
use super::value::Value;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use llavm_pipeline::rejects::Reject;
use std::borrow::Cow;

/// One picture of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture<'a> {
    Bytes(Cow<'a, [u8]>),
    Path(Cow<'a, str>),
}

/// Padding is optional: data sets hold both, and the length alone decides.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

/// How base64 text of a JPEG (in either alphabet), PNG, GIF, WebP (RIFF) or BMP begins.
const BASE64_STARTS: [&str; 9] =
    ["/9j/", "_9j_", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0", "Qk1", "Qk2", "Qk3"];

/// Text of at least this length without an extension is taken for base64 even when its beginning is unknown: no path is so
/// long.
const LONG_TEXT: usize = 512;

/// The pictures of a cell.
pub fn pictures<'a>(cell: &'a Value<'_>) -> Result<Vec<Picture<'a>>, Reject> {
    let mut found = Vec::new();
    collect(cell, &mut found)?;
    Ok(found)
}

fn collect<'a>(cell: &'a Value<'_>, found: &mut Vec<Picture<'a>>) -> Result<(), Reject> {
    match cell {
        Value::Null => Ok(()),
        Value::Bytes(bytes) => {
            found.push(Picture::Bytes(Cow::Borrowed(bytes)));
            Ok(())
        }
        Value::Text(text) => {
            found.extend(from_text(text)?);
            Ok(())
        }
        Value::Object(_) => from_struct(cell, found),
        Value::List(items) => match byte_values(items) {
            Some(bytes) => {
                found.push(Picture::Bytes(Cow::Owned(bytes)));
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

/// `{bytes, path}` as `datasets` writes it; bytes win, since the path is where the file once was.
fn from_struct<'a>(cell: &'a Value<'_>, found: &mut Vec<Picture<'a>>) -> Result<(), Reject> {
    let (bytes, path) = (cell.get("bytes"), cell.get("path"));
    if bytes.is_none() && path.is_none() {
        let detail = format!("the image cell is {}: it has neither `bytes` nor `path`", cell.kind());
        return Err(reject("bad-image", detail));
    }
    let before = found.len();
    collect(bytes.unwrap_or(&Value::Null), found)?;
    if found.len() == before {
        collect(path.unwrap_or(&Value::Null), found)?;
    }
    Ok(())
}

/// A list of numbers that are all bytes (`list<uint8>`).
fn byte_values(items: &[Value<'_>]) -> Option<Vec<u8>> {
    let byte =
        |item: &Value<'_>| if let Value::Int(number) = item { u8::try_from(*number).ok() } else { None };
    if items.is_empty() { None } else { items.iter().map(byte).collect() }
}

fn from_text(text: &str) -> Result<Option<Picture<'_>>, Reject> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(uri) = text.strip_prefix("data:") {
        let (kind, data) = uri.split_once(',').unwrap_or((uri, ""));
        if !kind.ends_with(";base64") {
            return Err(reject("bad-image", "the data: URI is not base64"));
        }
        return bytes_of(data).map(Some);
    }
    if is_url(text) {
        let detail = format!(
            "{} is a URL: download the pictures first, then set `images` to their folder",
            short(text)
        );
        return Err(reject("image-is-url", detail));
    }
    let base64 = BASE64_STARTS.iter().any(|start| text.starts_with(start)) && !has_extension(text);
    if base64 || text.len() >= LONG_TEXT {
        bytes_of(text).map(Some)
    } else {
        Ok(Some(Picture::Path(Cow::Borrowed(text))))
    }
}

fn bytes_of(base64: &str) -> Result<Picture<'static>, Reject> {
    decode_base64(base64).map(|bytes| Picture::Bytes(Cow::Owned(bytes)))
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "s3://", "gs://"].iter().any(|scheme| text.starts_with(scheme))
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
        let bytes = |picture| match picture {
            Picture::Bytes(bytes) => bytes.into_owned(),
            Picture::Path(path) => panic!("{path} is a path"),
        };
        pictures(cell).unwrap().into_iter().map(bytes).collect()
    }

    fn jpeg() -> Value<'static> {
        Value::Bytes(Cow::Borrowed(JPEG))
    }

    #[test]
    fn every_form_of_the_same_picture_gives_the_same_bytes() {
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
            assert_eq!(pictures(&cell).unwrap(), [], "{cell:?}");
        }
    }

    #[test]
    fn a_file_name_is_a_path_even_where_it_could_be_base64() {
        for name in ["GCC_train_002582585.jpg", "00000/000000010.jpg", "/9j/4AAQ.jpg", "Qk0.png", "图.jpg"] {
            assert_eq!(pictures(&Value::Text(name.into())).unwrap(), [Picture::Path(name.into())]);
        }
    }

    #[test]
    fn what_is_no_picture_is_named() {
        for (cell, code) in [
            (Value::Text("https://example.org/a.jpg".into()), "image-is-url"),
            (Value::Text("data:text/plain,hello".into()), "bad-image"),
            (Value::Text("data:image/png;base64,%%%".into()), "bad-image"),
            (Value::Int(7), "bad-image"),
            (Value::Object(vec![("url".into(), Value::Null)]), "bad-image"),
        ] {
            assert_eq!(pictures(&cell).unwrap_err().code, code, "{cell:?}");
        }
    }

    #[test]
    fn what_a_message_shows_of_a_text_is_one_line() {
        assert_eq!(short("\u{feff}one\r\n二\t`3`"), r"`\u{feff}one\r\n二\t`3``");
        assert_eq!(short(&"图".repeat(60)), format!("`{}`", "图".repeat(60)));
        assert_eq!(short(&"图".repeat(61)), format!("`{}…`", "图".repeat(60)));
    }
}
