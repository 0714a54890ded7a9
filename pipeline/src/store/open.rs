//! Opens the store that a manifest names.

use super::Store;
use super::folder::Folder;
use super::objects::Objects;
use super::objects::account::Account;
use super::place::{Place, workdir};
use crate::spec::error::StageError;
use std::path::Path;
use std::sync::Arc;

/// The store; what of it is not there yet is created, but no bucket.
pub fn open(store: &Path) -> Result<Arc<dyn Store>, StageError> {
    match Place::parse(&store.to_string_lossy()) {
        Some(place) => Ok(bucket(&place?, store)?),
        None => Ok(Folder::open(store)?),
    }
}

/// The store that is there already; for what only looks at one or removes from it.
pub fn existing(store: &Path) -> Result<Arc<dyn Store>, StageError> {
    let Some(place) = Place::parse(&store.to_string_lossy()) else { return Ok(Folder::existing(store)?) };
    let objects = bucket(&place?, store)?;
    if objects.is_empty()? {
        let text = format!("there is no store at {}", objects.address());
        return Err(StageError::new(text).help("`store` in the manifest names it; a run creates it."));
    }
    Ok(objects)
}

fn bucket(place: &Place, store: &Path) -> Result<Arc<Objects>, StageError> {
    let account = Account::of_environment()?;
    Objects::open(place, &account, &workdir(store))
}
