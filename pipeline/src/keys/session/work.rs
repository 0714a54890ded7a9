//! The work of map stages, opened when it is needed and closed when it no longer is.

use super::Session;
use crate::spec::error::StageError;
use crate::spec::graph::NodeIndex;
use crate::spec::panics::catch;
use crate::spec::registry::Role;
use crate::spec::stage::{Apply, Digest, OpenContext, Pass};
use crate::store::digests::FileDigests;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

impl Session<'_> {
    /// The work of a map stage; opened once, and again after [`Session::close`].
    pub fn work(&self, node: NodeIndex) -> Result<Arc<dyn Apply>, StageError> {
        let Role::Map(stage) = &self.graph.nodes[node].stage.role else {
            return Err(StageError::new(format!("`{}` is no map stage", self.name(node))));
        };
        let mut work = self.opened(node)?.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = work.as_ref() {
            return Ok(Arc::clone(work));
        }
        let context =
            MapContext { digests: &self.digests, seed: stage.uses_seed().then_some(self.graph.seed) };
        let opened: Arc<dyn Apply> = Arc::from(catch("while opening", || stage.open(&context))?);
        *work = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Gives the memory of a map stage's work back, a tokenizer's say, once none of its partitions is left to make.
    pub fn close(&self, node: NodeIndex) {
        if let Some(open) = self.node(node) {
            *open.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// What a map stage is opened with. Its seed is 0 unless it says that it uses one, because only then it is in its key.
struct MapContext<'a> {
    digests: &'a FileDigests<'a>,
    seed: Option<u64>,
}

impl OpenContext for MapContext<'_> {
    fn file_digest(&self, path: &Path) -> Result<Digest, StageError> {
        self.digests.file_digest(path)
    }

    fn file_digest_reading(&self, path: &Path, pass: Pass<'_>) -> Result<Digest, StageError> {
        self.digests.file_digest_reading(path, pass)
    }

    fn files_digest(&self, memo: &str, paths: &[PathBuf]) -> Result<Digest, StageError> {
        self.digests.files_digest(memo, paths)
    }

    fn remembered(
        &self,
        key: &str,
        compute: &mut dyn FnMut() -> Result<Vec<u8>, StageError>,
    ) -> Result<Vec<u8>, StageError> {
        self.digests.remembered(key, compute)
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }
}
