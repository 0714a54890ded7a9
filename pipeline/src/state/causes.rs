//! Why a task has to run: what changed since its manifest was last run.

use super::lookup::Snapshot;
use crate::keys::cause::{Cause, changes};
use crate::keys::session::Session;
use crate::keys::tasks::{Pass, Task};
use crate::spec::error::StageError;
use crate::spec::registry::Role;
use crate::store::Address;
use crate::store::key::KeyParts;
use crate::store::record::read_record;
use crate::store::roots::{self, Known, Root};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What the manifest of a session stood for when it was last run.
pub struct LastRoot {
    root: Root,
    /// By stage and pass: where the output of each label stands. Made when the first one stands elsewhere than now.
    places: RefCell<BTreeMap<(String, Pass), BTreeMap<String, usize>>>,
}

impl LastRoot {
    pub fn read(session: &Session<'_>) -> Result<Self, StageError> {
        let root = roots::read(session.store.as_ref(), &session.graph.manifest, &session.graph.settings)?;
        Ok(Self { root, places: RefCell::default() })
    }

    /// The output that a task had.
    fn output(&self, session: &Session<'_>, task: &Task) -> Option<&Known> {
        let name = session.name(task.node);
        let stage = self.root.stages.get(name)?;
        let outputs = if task.pass == Pass::Intermediate { &stage.intermediate } else { &stage.outputs };
        let label = session.label(task.node, task.index);
        let same_place = outputs.get(task.index).and_then(Option::as_ref);
        if let Some(known) = same_place.filter(|known| known.label == label) {
            return Some(known);
        }
        let mut places = self.places.borrow_mut();
        let places = places.entry((name.to_owned(), task.pass)).or_insert_with(|| {
            let known = outputs.iter().enumerate().rev();
            known.filter_map(|(n, known)| Some((known.as_ref()?.label.clone(), n))).collect()
        });
        outputs.get(*places.get(label)?)?.as_ref()
    }
}

/// Why a task that has to run does: what changed since its manifest was last run.
pub fn causes(snapshot: &Snapshot<'_>, root: &LastRoot, task: &Task) -> Result<Vec<Cause>, StageError> {
    let session = snapshot.session;
    let Some(parts) = snapshot.keys().parts(task)? else { return Ok(Vec::new()) };
    let name = session.name(task.node);
    let known = root.output(session, task);
    let Some(known) = known else { return Ok(vec![Cause::New]) };
    if known.key == parts.key() {
        return Ok(vec![Cause::Missing]);
    }
    let is_table = matches!(session.graph.nodes[task.node].stage.role, Role::Source(_) | Role::Map(_));
    let record = if is_table { Address::table(name, &known.key) } else { Address::folder(name, &known.key) };
    let old = read_record::<WithKey>(session.store.as_ref(), &record)?;
    let changes = old.map(|old| changes(&old.key, &parts)).unwrap_or_default();
    Ok(if changes.is_empty() { vec![Cause::Missing] } else { changes })
}

/// The part of any record that says what its key was made of.
#[derive(serde::Deserialize)]
struct WithKey {
    key: KeyParts,
}
