//! Finds the output of a task in the store.

use super::counts::Counts;
use crate::keys::builder::Entry;
use crate::keys::session::Session;
use crate::keys::tasks::Task;
use crate::spec::error::StageError;
use crate::spec::registry::Role;
use crate::spec::stage::Digest;
use crate::store::record::{find_folder, find_table};

/// The output of a task, when it is in the store under this key.
pub fn find(session: &Session<'_>, task: &Task, key: &str) -> Result<Option<(Entry, Counts)>, StageError> {
    let (name, store) = (session.name(task.node), session.store.as_ref());
    let found = match &session.graph.nodes[task.node].stage.role {
        Role::Source(_) => None,
        Role::Map(_) => {
            find_table(store, name, key)?.map(|record| (record.digest.clone(), Counts::from(&record)))
        }
        Role::Gather(_) | Role::Job(_) => {
            find_folder(store, name, key)?.map(|record| (record.digest.clone(), Counts::from(&record)))
        }
    };
    // A sealed record holds what was written; this only guards against a writer of another version.
    let found = found.filter(|(digest, _)| Digest::from_hex(digest).is_ok());
    Ok(found.map(|(digest, counts)| (Entry { key: key.to_owned(), digest, rows: counts.rows }, counts)))
}
