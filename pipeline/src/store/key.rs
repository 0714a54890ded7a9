//! What a key is made of: everything that decides the bytes of an output, and nothing else. Kept in the commit record, so that
//! `explain` can say what changed. `keys/` gathers the parts.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Raised when the engine itself comes to store the same rows as other bytes.
const FORMAT: u32 = 1;

/// Everything that decides the bytes of an output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyParts {
    pub kind: String,
    pub version: u32,
    /// Canonical: keys sorted.
    pub params: Value,
    /// Content digests by name.
    pub resources: BTreeMap<String, String>,
    pub inputs: Vec<InputPart>,
    /// What else the work depends on: the seed, weights, where the rows stand in the whole table.
    #[serde(alias = "place")]
    pub context: BTreeMap<String, String>,
}

/// An input partition or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPart {
    /// The stage it comes from, for people; not part of the key.
    pub stage: String,
    /// The columns that are read.
    pub columns: Vec<String>,
    /// The content digest.
    pub digest: String,
}

impl KeyParts {
    /// The key: 64 hexadecimal digits.
    pub fn key(&self) -> String {
        let inputs: Vec<(&[String], &str)> =
            self.inputs.iter().map(|input| (input.columns.as_slice(), input.digest.as_str())).collect();
        let parts =
            (FORMAT, &self.kind, self.version, sorted(&self.params), &self.resources, inputs, &self.context);
        // Maps with text keys and values that came from JSON: writing them as JSON cannot fail.
        let text = serde_json::to_string(&parts).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

/// [`canonical`], without a copy where nothing is to be changed.
fn sorted(value: &Value) -> Cow<'_, Value> {
    if is_sorted(value) { Cow::Borrowed(value) } else { Cow::Owned(canonical(value)) }
}

fn is_sorted(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.keys().is_sorted() && map.values().all(is_sorted),
        Value::Array(items) => items.iter().all(is_sorted),
        _ => true,
    }
}

/// The same JSON with the keys of all objects sorted, whatever order serde kept.
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, Value> =
                map.iter().map(|(key, value)| (key, canonical(value))).collect();
            sorted
                .into_iter()
                .map(|(key, value)| (key.clone(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}
