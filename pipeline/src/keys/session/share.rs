//! A share of the raw files, read before all of them are opened, so that several processes need not each read all.

use super::Session;
use crate::spec::error::StageError;
use crate::spec::event::Watch;
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use crate::spec::registry::Role;
use crate::spec::shard::Shard;
use crate::store::Held;
use std::time::Duration;

/// How often a share that another process is at is asked for again.
const AGAIN: Duration = Duration::from_millis(50);

impl Session<'_> {
    /// Opens what a shard has of the sources among `nodes`, so that what is remembered of their raw files is known before all of
    /// them are opened. Waits for a process that is at the same shard.
    pub fn open_share(&self, nodes: &[NodeIndex], shard: Shard, watch: Watch<'_>) -> Result<(), StageError> {
        for &node in nodes {
            let Role::Source(stage) = &self.graph.nodes[node].stage.role else { continue };
            let _lease = self.lease_share(node, shard, watch)?;
            let opened = catch("while opening", || match stage.shared(shard)? {
                Some(part) => self.pool.install(|| part.open(&self.digests)).map(drop),
                None => Ok(()),
            });
            watch.go_on()?;
            // What is wrong with raw files is reported when all of them are opened.
            if let Err(cause) = opened {
                tracing::debug!(stage = self.name(node), %shard, "{cause}");
            }
        }
        Ok(())
    }

    /// How many raw files of the sources among `nodes` have a digest that is not known.
    pub fn unread_files(&self, nodes: &[NodeIndex]) -> Result<usize, StageError> {
        let mut unread = 0;
        for &node in nodes {
            if let Role::Source(stage) = &self.graph.nodes[node].stage.role {
                unread += stage.raw_files()?.iter().filter(|path| !self.digests.is_known(path)).count();
            }
        }
        Ok(unread)
    }

    fn lease_share(&self, node: NodeIndex, shard: Shard, watch: Watch<'_>) -> Result<Held, StageError> {
        let (name, graph) = (self.name(node), self.graph);
        let what = format!("{}\n{:?}\n{name}\n{shard}", graph.manifest.display(), graph.settings);
        let key = blake3::hash(what.as_bytes()).to_hex();
        loop {
            if let Some(lease) = self.store.lease(name, &key)? {
                return Ok(lease);
            }
            watch.go_on()?;
            std::thread::sleep(AGAIN);
        }
    }
}
