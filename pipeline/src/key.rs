//! The key of a partition, a gather unit or a job: a blake3 hash over everything that decides its bytes, and nothing else.
//!
//! # What invalidates what
//!
//! | what changes | what is made again |
//! |---|---|
//! | the content of a raw file | the partitions cut from it, in the stages that read the changed columns |
//! | a file is added or removed | its own partitions; gather stages and jobs |
//! | a parameter of a stage | all partitions of that stage |
//! | a parameter spelled out that has its default value | nothing |
//! | the content of a resource (a tokenizer) | all partitions of the stages that use it |
//! | the version of a stage kind | all partitions of the stages of that kind |
//! | the output of an input | the same partitions of the stages that read it |
//! | an input is made again with the same bytes | nothing (early cutoff) |
//! | `seed` | gather stages, jobs, and stages that say they use it |
//! | the order of partitions, weights or names of the tables of a gather stage | that gather stage |
//! | a path, a modification time, the name of a file, the order of sections in the manifest | nothing (shards keep the ids they were made with) |
//! | the number of threads, a reject budget, the name of the manifest | nothing |
//! | the name of a stage | that stage, once: its outputs lie under its name |
//!
//! In: the parts, gathered by the session. Out: 64 hexadecimal digits. The parts are kept in the commit record, so that
//! `explain` can say which of them changed.

use crate::inspect::explain::Cause;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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
    pub place: BTreeMap<String, String>,
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
            (FORMAT, &self.kind, self.version, canonical(&self.params), &self.resources, inputs, &self.place);
        // Maps with text keys and values that came from JSON: writing them as JSON cannot fail.
        let text = serde_json::to_string(&parts).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// What is different from `old`; empty when the keys are equal.
    pub fn changes_since(&self, old: &Self) -> Vec<Cause> {
        if self.kind != old.kind {
            return vec![Cause::Kind { old: old.kind.clone(), new: self.kind.clone() }];
        }
        let mut causes = Vec::new();
        if self.version != old.version {
            causes.push(Cause::Version { old: old.version, new: self.version });
        }
        causes.extend(changed_params(&old.params, &self.params));
        let names: BTreeSet<&String> = old.resources.keys().chain(self.resources.keys()).collect();
        let changed = names.into_iter().filter(|name| old.resources.get(*name) != self.resources.get(*name));
        causes.extend(changed.map(|name| Cause::Resource { name: name.clone() }));
        causes.extend(self.changed_inputs(old));
        if self.place != old.place {
            causes.push(self.moved(old));
        }
        causes
    }

    fn changed_inputs(&self, old: &Self) -> Vec<Cause> {
        let columns = |parts: &Self| -> BTreeSet<Vec<String>> {
            parts.inputs.iter().map(|input| input.columns.clone()).collect()
        };
        // Another number of partitions is told by `moved`.
        let grew = self.inputs.len() != old.inputs.len() && self.place == old.place;
        if grew || columns(self) != columns(old) {
            return vec![Cause::Wiring];
        }
        let mut causes = Vec::new();
        let pairs = self.inputs.iter().zip(&old.inputs);
        for (new, _) in pairs.filter(|(new, old)| new.digest != old.digest) {
            let cause = Cause::Input { stage: new.stage.clone(), columns: new.columns.clone() };
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
        causes
    }

    fn moved(&self, old: &Self) -> Cause {
        let changed = |start: &str| {
            let of = |parts: &Self| -> Vec<String> {
                let found = parts.place.iter().filter(|(name, _)| name.starts_with(start));
                found.map(|(_, value)| value.clone()).collect()
            };
            let (old, new) = (of(old), of(self));
            (old != new).then(|| (old.join(" and "), new.join(" and ")))
        };
        if let Some((old, new)) = changed("seed") {
            return Cause::Parameter {
                name: "seed".to_owned(),
                old: Some(old.into()),
                new: Some(new.into()),
            };
        }
        if let Some((old, new)) = changed("partitions of").or_else(|| changed("units of")) {
            return Cause::Partitions { old, new };
        }
        if changed("tables of").or_else(|| changed("weight of")).is_some() {
            Cause::Wiring
        } else {
            Cause::Place
        }
    }
}

fn changed_params(old: &Value, new: &Value) -> Vec<Cause> {
    let empty = serde_json::Map::new();
    let (Some(a), Some(b)) = (old.as_object().or(Some(&empty)), new.as_object().or(Some(&empty))) else {
        return Vec::new();
    };
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let changed = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    changed
        .map(|name| Cause::Parameter {
            name: name.clone(),
            old: a.get(name).cloned(),
            new: b.get(name).cloned(),
        })
        .collect()
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

#[cfg(test)]
mod tests;
