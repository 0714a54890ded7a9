//! `llavm validate`: is the manifest right, and are its files there?

use crate::args::ManifestArgs;
use crate::failure::Outcome;
use crate::output::print;

/// Check a manifest without running anything
///
/// Tells every mistake at once, each with its place in the file and the nearest name that would have been right. Also looks
/// whether the files it names are there.
#[derive(clap::Args)]
#[command(after_help = "Example: llavm validate manifests/quickstart.toml")]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,
}

pub fn run(args: &Args) -> Outcome {
    let manifest = args.manifest.load()?;
    let nodes = manifest.graph.nodes.len();
    manifest.check_files(&(0..nodes).collect::<Vec<_>>())?;
    let stages = if nodes == 1 { "1 stage".to_owned() } else { format!("{nodes} stages") };
    print(&format!("{} is fine: {stages}\n", args.manifest.path.display()))?;
    Ok(())
}
