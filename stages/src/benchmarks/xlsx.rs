//! The first sheet of an XLSX file, as pandas (openpyxl, `XlsxWriter`) writes VLMEvalKit's predictions: a table whose first row
//! names its columns. Values only; formulas give what was computed last.

use super::record::Record;
use llavm_pipeline::StageError;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zip::ZipArchive;

/// Bytes of a part that are read at most.
const LONGEST: u64 = 1 << 30;

/// The rows of the first sheet.
pub fn read(path: &Path) -> Result<Vec<Record>, StageError> {
    let wrong = |error: &dyn std::fmt::Display| StageError::new(format!("it is no XLSX file: {error}"));
    let file = File::open(path).map_err(|cause| StageError::new(cause.to_string()))?;
    let mut archive = ZipArchive::new(file).map_err(|error| wrong(&error))?;
    let strings = match part(&mut archive, "xl/sharedStrings.xml").map_err(|error| wrong(&error))? {
        Some(xml) => elements(&xml, "si").map(|(_, inner)| texts(inner)).collect(),
        None => Vec::new(),
    };
    let sheet = part(&mut archive, "xl/worksheets/sheet1.xml").map_err(|error| wrong(&error))?;
    let sheet = sheet.ok_or_else(|| StageError::new("it has no xl/worksheets/sheet1.xml"))?;
    let mut rows = elements(&sheet, "row").map(|(_, row)| cells(row, &strings));
    let names = rows.next().unwrap_or_default();
    let record = |row: Vec<(usize, String)>| {
        let name = |column: usize| names.iter().find(|(at, _)| *at == column).map(|(_, name)| name.clone());
        let fields = row.into_iter().filter_map(|(column, text)| Some((name(column)?, Value::String(text))));
        Record(fields.collect::<Map<String, Value>>())
    };
    Ok(rows.map(record).collect())
}

fn part(archive: &mut ZipArchive<File>, name: &str) -> Result<Option<String>, String> {
    let Ok(entry) = archive.by_name(name) else { return Ok(None) };
    let mut text = String::new();
    let read = entry.take(LONGEST).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if read as u64 == LONGEST { Err(format!("{name} is longer than 1 GiB")) } else { Ok(Some(text)) }
}

/// The cells of a row by column, from 0.
fn cells(row: &str, strings: &[String]) -> Vec<(usize, String)> {
    let mut cells = Vec::new();
    for (n, (attributes, inner)) in elements(row, "c").enumerate() {
        let column = attribute(attributes, "r").map_or(n, column_of);
        let value = || elements(inner, "v").next().map(|(_, text)| unescaped(text));
        let text = match attribute(attributes, "t") {
            Some("s") => value().and_then(|at| strings.get(at.parse::<usize>().ok()?).cloned()),
            Some("inlineStr") => Some(texts(inner)),
            Some("b") => value().map(|one| if one == "1" { "True" } else { "False" }.to_owned()),
            _ => value(),
        };
        cells.extend(text.map(|text| (column, text)));
    }
    cells
}

/// `C7` is column 2.
fn column_of(reference: &str) -> usize {
    let letters = reference.bytes().take_while(u8::is_ascii_uppercase);
    letters
        .fold(0, |column: usize, letter| {
            column.saturating_mul(26).saturating_add((letter - b'A') as usize + 1)
        })
        .saturating_sub(1)
}

/// All texts of a string that may come in runs.
fn texts(inner: &str) -> String {
    elements(inner, "t").map(|(_, text)| unescaped(text)).collect()
}

/// The elements `name` of some XML, as attributes and what is inside. They do not nest in these files.
fn elements<'a>(xml: &'a str, name: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(&format!("<{name}"))? + name.len() + 1;
            let after = &rest[start..];
            // `<c` begins `<col`, too.
            if !after.starts_with(['>', ' ', '/', '\n', '\r', '\t']) {
                rest = after;
                continue;
            }
            let end = after.find('>')?;
            let attributes = &after[..end];
            if let Some(attributes) = attributes.strip_suffix('/') {
                rest = &after[end + 1..];
                return Some((attributes, ""));
            }
            let inner = &after[end + 1..];
            let close = inner.find(&format!("</{name}>"))?;
            rest = &inner[close..];
            return Some((attributes, &inner[..close]));
        }
    })
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = attributes.split_once(&format!(" {name}=\""))?;
    value.split('"').next()
}

/// Text without XML's entities, and without the `_x000D_` that stands for a control character.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out += before;
        let (entity, behind) = after.split_once(';').unwrap_or((after, ""));
        let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        let letter = match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => match entity.strip_prefix("#x") {
                Some(digits) => number(digits, 16),
                None => entity.strip_prefix('#').and_then(|digits| number(digits, 10)),
            },
        };
        out.extend(letter);
        rest = behind;
    }
    (out + rest).replace("_x000D_", "\r")
}
