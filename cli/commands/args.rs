//! Arguments that several commands share.

use crate::ui::failure::Failure;
use llavm_pipeline::graph::NodeIndex;
use llavm_pipeline::manifest::did_you_mean;
use llavm_pipeline::storage::workdir;
use llavm_pipeline::{Graph, Manifest};
use std::path::PathBuf;

/// Which manifest, and with which variables.
#[derive(clap::Args)]
pub struct ManifestArgs {
    /// The manifest, a TOML file such as manifests/quickstart.toml
    #[arg(value_name = "MANIFEST")]
    pub path: PathBuf,

    /// Give a variable of [vars] another value; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl ManifestArgs {
    /// Reads and checks the manifest. Whether the raw files are there is another question: [`Manifest::check_files`].
    pub fn load(&self) -> Result<Manifest, Failure> {
        let manifest = Manifest::load(&self.path, &self.set, &llavm_stages::registry())?;
        tracing::debug!(manifest = %self.path.display(), stages = manifest.graph.nodes.len(), store = %manifest.graph.store.display(), "read");
        Ok(manifest)
    }

    /// As [`ManifestArgs::load`], for a command that only makes sense on a store: a mistyped one is not created.
    pub fn load_with_store(&self) -> Result<Manifest, Failure> {
        let manifest = self.load()?;
        let store = &manifest.graph.store;
        // Whether a bucket is there is asked when it is opened.
        if workdir(store) != *store || store.is_dir() {
            return Ok(manifest);
        }
        Err(Failure::wrong(
            format!("there is no store at {}", store.display()),
            "`store` in the manifest names its folder, relative to the folder llavm is started in; `llavm run` creates it.",
        ))
    }
}

/// The stages that `--until` and `--from` choose.
pub fn selected(graph: &Graph, until: Option<&str>, from: Option<&str>) -> Result<Vec<NodeIndex>, Failure> {
    let mut nodes: Vec<NodeIndex> = (0..graph.nodes.len()).collect();
    if let Some(name) = until {
        let needed = graph.upstream(&[stage(graph, name)?]);
        nodes.retain(|node| needed.contains(node));
    }
    if let Some(name) = from {
        let needing = graph.downstream(&[stage(graph, name)?]);
        nodes.retain(|node| needing.contains(node));
    }
    Ok(nodes)
}

/// The stage called `name` on the command line.
pub fn stage(graph: &Graph, name: &str) -> Result<NodeIndex, Failure> {
    graph.find(name).ok_or_else(|| {
        let names = graph.nodes.iter().map(|node| node.name.as_str());
        let manifest = graph.manifest.display();
        Failure::wrong(format!("{manifest} has no stage `{name}`"), did_you_mean(name, "stages", names))
    })
}
