//! `llavm explain`: why a stage would run.

use crate::commands::args::{ManifestArgs, stage};
use crate::ui::failure::Outcome;
use crate::ui::output::print;
use llavm_pipeline::{Engine, Options};

/// Say why a stage would run: which part of its key changed
#[derive(clap::Args)]
#[command(after_help = "Example: llavm explain manifests/quickstart.toml shards")]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// The stage
    stage: String,
}

pub fn run(args: &Args) -> Outcome {
    let manifest = args.manifest.load()?;
    stage(&manifest.graph, &args.stage)?;
    let engine = Engine::open(manifest.graph, Options::default())?;
    print(&format!("{}\n", engine.explain(&args.stage)?))?;
    Ok(())
}
