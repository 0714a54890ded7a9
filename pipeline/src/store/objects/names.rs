//! Names of objects, and what a name says.

use crate::store::{Address, Kind, What};
use std::collections::BTreeMap;
use std::path::Path;

/// Where the mark of damaged content is.
pub const DAMAGED: &str = "damaged";
/// The lease of whoever removes things, and those of all who use the store.
pub const EXCLUSIVE: &str = "locks/exclusive";
pub const USERS: &str = "locks/users";

/// Hexadecimal digits that name an attempt.
const ATTEMPT: usize = 32;

/// The name of an object.
pub fn text(path: &Path) -> String {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("/")
}

pub fn mark_key(address: &Address) -> String {
    format!("{DAMAGED}/{}", text(&address.content_name()))
}

pub fn root_key(name: &str) -> String {
    format!("index/{name}.json")
}

/// The attempt that a record names.
pub fn attempt(record: &[u8]) -> String {
    blake3::hash(record).to_hex()[..ATTEMPT].to_owned()
}

/// The objects of content: of a table its own name, of a folder what those of its files begin with.
pub fn content_key(address: &Address, attempt: &str) -> String {
    let name = text(&address.content_name());
    match address.kind {
        Kind::Table => name,
        Kind::Folder => format!("{name}/{attempt}"),
    }
}

/// What an object, or an attempt, is. `named`: of folders with several attempts, the right one.
pub fn what(kind: Kind, key: &str, named: &BTreeMap<Address, String>) -> What {
    let parts: Vec<&str> = key.split('/').collect();
    match (kind, parts.as_slice()) {
        (_, [_, stage, file]) => {
            let address = |name: &str| Address { kind, stage: (*stage).to_owned(), name: name.to_owned() };
            match file.rsplit_once('.') {
                Some((name, "json")) => What::Record(address(name)),
                Some((name, "arrow")) if kind == Kind::Table => What::Content(address(name)),
                _ => What::Stray,
            }
        }
        (Kind::Folder, [_, stage, name, attempt]) => {
            let address = Address::folder(stage, name);
            match named.get(&address) {
                Some(right) if right != attempt => What::Stray,
                _ => What::Content(address),
            }
        }
        _ => What::Stray,
    }
}

/// The address of `tables/<stage>/<digest>.arrow` or `jobs/<stage>/<key>`.
pub fn address_of(name: &str) -> Option<Address> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        ["tables", stage, file] => Some(Address::table(stage, file.strip_suffix(".arrow")?)),
        ["jobs", stage, key] => Some(Address::folder(stage, key)),
        _ => None,
    }
}
