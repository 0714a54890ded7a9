//! One node of the graph, opened: what enters its keys, its partitions, its recipes.

use super::{Identity, OpenNode, Session};
use crate::keys::cause::SETTINGS;
use crate::keys::recipe::Recipe;
use crate::spec::error::StageError;
use crate::spec::graph::{InputGroup, NodeIndex};
use crate::spec::registry::Role;
use crate::spec::stage::{OpenContext, Settings, Units};
use crate::store::key::canonical;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

impl Session<'_> {
    pub(super) fn open_node(&self, index: NodeIndex) -> Result<OpenNode, StageError> {
        let node = &self.graph.nodes[index];
        let source = match &node.stage.role {
            Role::Source(stage) => Some(self.pool.install(|| stage.open(&self.digests))?),
            _ => None,
        };
        let labels = match (&source, &node.stage.role) {
            (Some(source), _) => {
                source.partitions().iter().map(|partition| partition.label.clone()).collect()
            }
            (None, Role::Gather(stage)) if stage.units() == Units::PerPartition => {
                self.units(index).map(|(group, partition)| self.unit_label(index, group, partition)).collect()
            }
            (None, Role::Gather(_)) => ["all partitions".to_owned()].into(),
            (None, Role::Job(_)) => [node.name.clone()].into(),
            (None, _) => self.shared_labels(self.graph.source_of(index).unwrap_or(index)),
        };
        Ok(OpenNode {
            identity: self.identity(index)?,
            labels,
            recipes: self.recipes(index)?,
            source,
            work: Mutex::new(None),
        })
    }

    fn identity(&self, index: NodeIndex) -> Result<Identity, StageError> {
        let stage = &self.graph.nodes[index].stage;
        let mut resources = BTreeMap::new();
        for resource in stage.role.parameters().resources()? {
            let digest = self.digests.file_digest(&resource.path)?;
            resources.insert(resource.name, digest.to_hex().to_string());
        }
        let settings = self.settings(index)?;
        let (kind, version, params) = (stage.kind, stage.version, canonical(&stage.params));
        Ok(Identity { kind, version, params, resources, settings })
    }

    /// The settings that a job reads, as content: their digests, by what they are.
    fn settings(&self, index: NodeIndex) -> Result<BTreeMap<String, String>, StageError> {
        let node = &self.graph.nodes[index];
        let mut digests: BTreeMap<String, blake3::Hasher> = BTreeMap::new();
        if matches!(&node.stage.role, Role::Job(stage) if stage.reads_settings()) {
            for (n, input) in node.tables().enumerate() {
                for Settings { what, value, .. } in self.graph.settings(input)? {
                    let name = format!("{SETTINGS} {n} {what}");
                    digests.entry(name).or_default().update(canonical(&value).to_string().as_bytes());
                }
            }
        }
        let hex = |hasher: blake3::Hasher| hasher.finalize().to_hex().to_string();
        Ok(digests.into_iter().map(|(name, hasher)| (name, hex(hasher))).collect())
    }

    fn recipes(&self, index: NodeIndex) -> Result<Vec<Arc<Recipe>>, StageError> {
        let node = &self.graph.nodes[index];
        let columns = match &node.stage.role {
            Role::Map(stage) => stage.input(),
            Role::Gather(stage) => stage.input(),
            Role::Source(_) | Role::Job(_) => return Ok(Vec::new()),
        };
        let recipe = |group: &InputGroup| {
            let kept = self.kept(index, group);
            let names = columns.names().chain(kept.names().filter(|name| columns.get(name).is_none()));
            Recipe::new(self.graph, group, &names.collect::<Vec<_>>()).map(Arc::new)
        };
        node.inputs.iter().map(recipe).collect()
    }
}
