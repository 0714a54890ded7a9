//! A manifest of nothing but keys, shaped like that of CC3M: what planning takes can be told without any data.
//!
//! ```text
//! rows ──> seen (in row order) ──> pixels ──> shards
//!   └────> tokens ─────────────────────────────┘
//! ```

mod kinds;

use crate::commands::model::failed;
use crate::ui::failure::Failure;
use llavm_pipeline::rehearsal::KeysOnly;
use llavm_pipeline::{Engine, Manifest, Options};
use std::path::Path;
use std::sync::Arc;

/// An engine over so many rows, with a store that keeps nothing but keys in `folder`.
pub fn engine(rows: usize, partition_rows: usize, folder: &Path) -> Result<(Engine, Arc<KeysOnly>), Failure> {
    let store = KeysOnly::open(folder, partition_rows as u64).map_err(failed)?;
    let text = manifest(rows, partition_rows);
    let manifest = Manifest::read(text.as_bytes(), Path::new("keys.toml"), &[], &kinds::registry())?;
    let engine = Engine::open(manifest.graph, Options::default())?;
    Ok((engine.with_store(Arc::clone(&store) as _), store))
}

fn manifest(rows: usize, partition_rows: usize) -> String {
    format!(
        r#"
[stages.rows]
kind = "keys"
rows = {rows}
partition_rows = {partition_rows}
[stages.seen]
kind = "step"
from = "rows"
takes = "id"
gives = "seen"
in_order = true
[stages.pixels]
kind = "step"
from = "seen"
takes = "seen"
gives = "pixels"
[stages.tokens]
kind = "step"
from = "rows"
takes = "id"
gives = "tokens"
[stages.shards]
kind = "collect"
from = ["tokens", "pixels"]
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use llavm_pipeline::Silent;
    use std::sync::atomic::AtomicBool;

    /// The stages really work: a run in a folder makes them all.
    #[test]
    fn rows_of_nothing_but_keys_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("store = {:?}\n{}", folder.path().display().to_string(), manifest(100, 30));
        let manifest =
            Manifest::read(text.as_bytes(), Path::new("keys.toml"), &[], &kinds::registry()).unwrap();
        let engine = Engine::open(manifest.graph, Options::default()).unwrap();
        let finished = engine.run(&Silent, &AtomicBool::new(false)).unwrap();
        assert!(finished.errors.is_empty(), "{:?}", finished.errors);
        let made: Vec<usize> = finished.summary.stages.iter().map(|stage| stage.ran).collect();
        assert_eq!(made, [0, 4, 4, 4, 1]);
        let shards = &engine.folders("shards").unwrap()[0];
        assert_eq!(std::fs::read_to_string(shards.join("rows")).unwrap(), "100");
    }
}
