//! The columns of a file that names them row by row (JSON, webdataset), seen in a sample; and those that only a search finds,
//! because few rows have them: pictures in a file of chats, say.

use super::raw::{RawColumn, RawFile, Request};
use super::value::Value;
use llavm_pipeline::StageError;
use llavm_pipeline::stage::OpenContext;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Rows looked at in the first piece, and in each of some other pieces.
const FIRST_ROWS: usize = 64;
const OTHER_ROWS: usize = 4;
const OTHER_PIECES: usize = 16;

/// Raised when the same rows give other columns.
const SEARCH_VERSION: u32 = 1;

/// Every column seen in the sample, sorted by name, with the widest type seen.
///
/// `kind` names the type of a cell.
pub fn sampled_columns(file: &dyn RawFile, kind: Kind<'_>) -> Result<Vec<RawColumn>, StageError> {
    let mut kinds = BTreeMap::new();
    let pieces = file.pieces().len();
    let step = pieces.div_ceil(OTHER_PIECES).max(1);
    for piece in (0..pieces).step_by(step) {
        let limit = Some(if piece == 0 { FIRST_ROWS } else { OTHER_ROWS });
        for chunk in file.read(piece, Request { limit, ..Request::default() })? {
            let chunk = chunk?;
            for index in 0..chunk.rows().len() {
                if let Ok(Value::Object(fields)) = chunk.value(index) {
                    fields.iter().for_each(|(name, value)| widen(name, value, kind, &mut kinds));
                }
            }
        }
    }
    Ok(columns(kinds))
}

/// Those of the columns `sought` that any row of the file has. Remembered by the rows' content.
pub fn search(
    file: &dyn RawFile,
    sought: &[String],
    context: &dyn OpenContext,
) -> Result<Vec<RawColumn>, StageError> {
    let mut rows = blake3::Hasher::new();
    file.pieces().iter().for_each(|piece| {
        rows.update(piece.digest.as_bytes());
    });
    let key = format!("read/search/{SEARCH_VERSION}/{sought:?}/{}", rows.finalize().to_hex());
    let mut compute = || {
        let pieces = (0..file.pieces().len()).into_par_iter().map(|piece| search_piece(file, piece, sought));
        let mut kinds = BTreeMap::new();
        for (name, kind) in pieces.collect::<Result<Vec<_>, StageError>>()?.into_iter().flatten() {
            let widest = kinds.get(&name).map_or_else(|| kind.clone(), |seen: &String| wider(seen, &kind));
            kinds.insert(name, widest);
        }
        Ok(kinds
            .into_iter()
            .flat_map(|(name, kind)| [name, kind])
            .collect::<Vec<_>>()
            .join("\0")
            .into_bytes())
    };
    let found = context.remembered(&key, &mut compute)?;
    let found = String::from_utf8_lossy(&found).into_owned();
    let mut parts = found.split('\0').map(str::to_owned);
    let next = || Some(RawColumn { name: parts.next()?, kind: parts.next()? });
    Ok(std::iter::from_fn(next).collect())
}

fn search_piece(
    file: &dyn RawFile,
    piece: usize,
    sought: &[String],
) -> Result<BTreeMap<String, String>, StageError> {
    let mut kinds = BTreeMap::new();
    for chunk in file.read(piece, Request { columns: Some(sought.into()), ..Request::default() })? {
        let chunk = chunk?;
        for index in 0..chunk.rows().len() {
            if let Ok(Value::Object(fields)) = chunk.value(index) {
                fields.iter().for_each(|(name, value)| widen(name, value, &|cell| cell.kind(), &mut kinds));
            }
        }
    }
    Ok(kinds)
}

fn columns(kinds: BTreeMap<String, String>) -> Vec<RawColumn> {
    kinds.into_iter().map(|(name, kind)| RawColumn { name, kind }).collect()
}

/// Names the type of a cell.
pub type Kind<'a> = &'a dyn Fn(&Value<'_>) -> String;

fn widen(name: &str, value: &Value<'_>, name_kind: Kind<'_>, kinds: &mut BTreeMap<String, String>) {
    let kind = name_kind(value);
    let seen = kinds.entry(name.to_owned()).or_insert_with(|| kind.clone());
    if *seen != kind {
        *seen = wider(seen, &kind);
    }
    if let Value::Object(fields) = value {
        fields.iter().for_each(|(field, value)| widen(&format!("{name}.{field}"), value, name_kind, kinds));
    }
}

fn wider(one: &str, other: &str) -> String {
    match (one, other) {
        ("null" | "list<null>", kind) | (kind, "null" | "list<null>") => kind.to_owned(),
        ("int", "float") | ("float", "int") => "float".to_owned(),
        ("bool" | "int" | "float" | "string", "bool" | "int" | "float" | "string") => "string".to_owned(),
        (first, _) => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_type_of_a_column_is_named() {
        let mut kinds = BTreeMap::new();
        for row in [r#"{"n": null, "s": 1}"#, r#"{"n": 1, "s": "x", "i": {"p": "a"}}"#, r#"{"n": 0.5}"#] {
            let Value::Object(fields) = serde_json::from_str(row).unwrap() else { panic!() };
            fields.iter().for_each(|(name, value)| widen(name, value, &|cell| cell.kind(), &mut kinds));
        }
        let kinds: Vec<_> = kinds.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
        assert_eq!(kinds, ["i: struct<p: string>", "i.p: string", "n: float", "s: string"]);
    }
}
